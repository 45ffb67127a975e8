"""What belongs to a row, to an other and to a pair of them in a program over all pairs."""

from __future__ import annotations

from kernelwright.codegen.contraction_lower import flat_loads
from kernelwright.codegen.emit import Context
from kernelwright.expr.integers import Integers
from kernelwright.expr.nodes import Axis, Load, Node
from kernelwright.expr.pairs import OTHER, ROW, PairsPlan
from kernelwright.expr.powers import inverse_roots, products_last, share_factors


class PairTerms:
    """The bodies of a plan over flat loads, and their largest terms of one side alone."""

    def __init__(self, context: Context, plan: PairsPlan) -> None:
        """Rewrite the bodies for fused operations and split them."""
        self.context, self.plan = context, plan
        integers = Integers(plan.axes)

        def flat(node: Node) -> Node:
            return inverse_roots(flat_loads(node, context.signature, integers))

        self.bodies = self._shared([flat(r.body) for r in plan.reductions])
        self.results = [flat(r.body) for r in plan.results]
        targets = [Load(r.tensor, r.index) for r in plan.results]
        self.offsets = [flat_loads(t, context.signature, integers).children[0] for t in targets]
        batch = {b.axis for b in plan.batch}
        self.of_row = self._terms(batch | {ROW}, batch | {OTHER}, ROW)
        self.of_other = self._terms(batch | {OTHER}, set(), OTHER)

    def _shared(self, bodies: list[Node]) -> list[Node]:
        """What all sums multiply by is computed once; sums end in fused operations."""
        found = enumerate(self.plan.reductions)
        sums = [n for n, r in found if r.op == "sum" and r.kind == "float"]
        for number, body in zip(sums, share_factors([bodies[n] for n in sums]), strict=True):
            bodies[number] = body
        pair = {ROW, OTHER}
        return [products_last(b, lambda n: pair <= self.context.depends(n)) for b in bodies]

    def _terms(self, allowed: set[str], excluded: set[str], axis: str) -> list[Node]:
        """The largest float terms of the bodies that need nothing beyond some axes."""
        found: list[Node] = []
        seen: set[Node] = set()
        stack = list(reversed(self.bodies))
        while stack:
            node = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            needs = self.context.depends(node)
            inside = needs <= allowed and not isinstance(node, Axis)
            # what a batch has for itself is a term of the others
            wanted = axis in needs or (axis == OTHER and bool(needs))
            other = bool(excluded) and needs <= excluded
            if inside and wanted and not other and self.context.kinds.of(node) == "float":
                found.append(node)
                continue
            if not isinstance(node, Load):
                stack.extend(reversed(node.children))
        return found
