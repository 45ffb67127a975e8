"""All pairs: reductions over j of a body whose operands depend on i or on j, never on both.

    out[b, i, ...] = epilogue(b, i, reduce_j f(left(b, i), right(b, j)), ...)

Axes of a few elements (the components of a vector) are written out, so that what the components
share (a distance) is one term. Several reductions of one program share the sweep over j.
"""

from __future__ import annotations

from dataclasses import dataclass

from kernelwright.expr.contraction import replace
from kernelwright.expr.kinds import Kinds
from kernelwright.expr.nodes import (
    Apply,
    Axis,
    Kind,
    Load,
    Node,
    Program,
    Reduce,
    ReduceOp,
    Scan,
    free_axes,
    substitute,
    walk,
)
from kernelwright.expr.polynomial import from_dimension
from kernelwright.expr.rowwise import Bound
from kernelwright.expr.unroll import fixed_extent, unroll_output, unroll_reductions

ROW, OTHER = "row", "other"
_MOST_COMPONENTS, _MOST_ELEMENTS, _MOST_NODES = 16, 32, 2000
_OPERATIONS = frozenset({"sum", "prod", "max", "min", "argmax", "argmin"})


@dataclass(frozen=True)
class PairReduction:
    """A number per row, reduced over the others; `value` stands for it in the results."""

    value: Node
    op: ReduceOp
    body: Node
    kind: Kind
    """Of the value."""


@dataclass(frozen=True)
class PairResult:
    """One element of an output: its index over batch and row, and its value."""

    tensor: str
    index: tuple[Node, ...]
    body: Node


@dataclass(frozen=True)
class PairsPlan:
    """Reductions over all pairs of a row and another, in each batch on its own."""

    batch: tuple[Bound, ...]
    row: Bound
    other: Bound
    reductions: tuple[PairReduction, ...]
    results: tuple[PairResult, ...]

    @property
    def axes(self) -> dict[str, str]:
        """Every index variable with its extent."""
        return {bound.axis: bound.extent for bound in (*self.batch, self.row, self.other)}


class _Unmatched(Exception):
    """The program has another form."""


def match(program: Program) -> PairsPlan | None:
    """The plan of a program over all pairs, or None."""
    outputs = program.outputs
    dims = [tuple(d for d in o.dims if fixed_extent(d, _MOST_COMPONENTS) is None) for o in outputs]
    same = [tuple(map(from_dimension, own)) for own in dims]
    if not dims[0] or any(other != same[0] for other in same):
        return None
    bounds = [Bound(f"batch{n}", dim) for n, dim in enumerate(dims[0][:-1])]
    bounds.append(Bound(ROW, dims[0][-1]))
    try:
        return _Matcher(program, tuple(bounds)).plan()
    except _Unmatched:
        return None


class _Matcher:
    """Collects the reductions of all outputs."""

    def __init__(self, program: Program, bounds: tuple[Bound, ...]) -> None:
        self.program, self.bounds = program, bounds
        self.kinds = Kinds(program.signature)
        self.reductions: dict[tuple[ReduceOp, Node], PairReduction] = {}
        self.other: Bound | None = None

    def plan(self) -> PairsPlan:
        results: list[PairResult] = []
        for output in self.program.outputs:
            for index, body in unroll_output(output, _MOST_COMPONENTS):
                dynamic = [i.name for i in index if isinstance(i, Axis)]
                pairs = zip(dynamic, self.bounds, strict=True)
                names = {old: Axis(bound.axis) for old, bound in pairs}
                body = substitute(body, dict[str, Node](names))
                where = tuple(names[i.name] if isinstance(i, Axis) else i for i in index)
                results.append(PairResult(output.name, where, self._lower(body)))
        if len(results) > _MOST_ELEMENTS or self.other is None:
            raise _Unmatched
        found = tuple(self.reductions.values())
        self._require_pairs([r.body for r in found])
        return PairsPlan(self.bounds[:-1], self.bounds[-1], self.other, found, tuple(results))

    def _lower(self, body: Node) -> Node:
        body = unroll_reductions(body, _MOST_COMPONENTS)
        if sum(1 for _ in walk(body)) > _MOST_NODES:
            raise _Unmatched
        values: dict[Node, Node] = {}
        for node in walk(body):
            if isinstance(node, Scan):
                raise _Unmatched
            if isinstance(node, Reduce):
                values[node] = self._reduction(node)
        return replace(body, values)

    def _reduction(self, node: Reduce) -> Node:
        if node.op not in _OPERATIONS or any(isinstance(n, Reduce) for n in walk(node.body)):
            raise _Unmatched
        extent = from_dimension(node.extent)
        if self.other is None:
            self.other = Bound(OTHER, node.extent)
        if from_dimension(self.other.extent) != extent:
            raise _Unmatched
        body = substitute(node.body, {node.axis: Axis(OTHER)})
        if self.kinds.of(body) != "float" and not self._counts(node):
            raise _Unmatched
        key = (node.op, body)
        if key not in self.reductions:
            axes = tuple(Axis(bound.axis) for bound in self.bounds)
            value = Apply(f"reduced{len(self.reductions)}", axes)
            self.reductions[key] = PairReduction(value, node.op, body, self.kinds.of(node))
        return self.reductions[key].value

    def _counts(self, node: Reduce) -> bool:
        """Whether the reduction is the number of pairs for which something holds."""
        body = node.body
        truth = isinstance(body, Apply) and body.op == "to_int" and body.args[0]
        return node.op == "sum" and bool(truth) and self.kinds.of(body.children[0]) == "bool"

    def _require_pairs(self, bodies: list[Node]) -> None:
        """Operands of both sides, and none of both at once: each is used for many pairs."""
        left = right = False
        for node in walk(*bodies):
            if isinstance(node, Load):
                axes = free_axes(node)
                if {ROW, OTHER} <= axes or self.kinds.of(node) != "float":
                    raise _Unmatched
                left, right = left or ROW in axes, right or OTHER in axes
        if not (left and right):
            raise _Unmatched
