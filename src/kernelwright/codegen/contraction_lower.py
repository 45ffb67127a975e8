"""A contraction over flat offsets, with axes that always move together merged."""

from __future__ import annotations

from dataclasses import dataclass

from kernelwright.expr.contraction import ContractionPlan
from kernelwright.expr.integers import Integers
from kernelwright.expr.nodes import Axis, Load, Node, transform
from kernelwright.expr.rowwise import Bound, clamped, flatten, merge_axes
from kernelwright.model import Signature


@dataclass(frozen=True)
class FlatResult:
    """One output: its flat offset and its value."""

    tensor: str
    offset: Node
    body: Node


@dataclass(frozen=True)
class FlatContraction:
    """The plan with one flat index per load."""

    batch: tuple[Bound, ...]
    rows: tuple[Bound, ...]
    columns: tuple[Bound, ...]
    depth: tuple[Bound, ...]
    lefts: tuple[Node, ...]
    rights: tuple[Node, ...]
    results: tuple[FlatResult, ...]


def flat_loads(term: Node, signature: Signature, integers: Integers) -> Node:
    """The term with loads by flat offset, forced into their tensors where that is not provable."""
    dims = {tensor.name: tensor.dims for tensor in signature.tensors}

    def change(node: Node) -> Node:
        if not isinstance(node, Load):
            return node
        pairs = zip(node.indices, dims[node.tensor], strict=True)
        inside = tuple(clamped(index, dim, integers) for index, dim in pairs)
        return flatten(Load(node.tensor, inside), dims[node.tensor], integers)

    return transform(term, change)


def lower(plan: ContractionPlan, signature: Signature) -> FlatContraction:
    """Flatten all loads and stores, then merge axes within each group."""
    integers = Integers(plan.axes)
    terms = [p.left for p in plan.products] + [p.right for p in plan.products]
    terms += [result.body for result in plan.results]
    terms = [flat_loads(term, signature, integers) for term in terms]
    targets = [Load(r.tensor, tuple(Axis(a) for a in r.axes)) for r in plan.results]
    flat = [flat_loads(target, signature, integers) for target in targets]
    offsets = [load.children[0] for load in flat]
    merged: list[tuple[Bound, ...]] = []
    for group in (plan.batch, plan.rows, plan.columns, plan.depth):
        bounds, drop = merge_axes(group, terms, offsets)
        terms = [drop(term) for term in terms]
        offsets = [drop(offset) for offset in offsets]
        merged.append(bounds)
    count = len(plan.products)
    results = tuple(
        FlatResult(r.tensor, offset, body)
        for r, offset, body in zip(plan.results, offsets, terms[2 * count :], strict=True)
    )
    lefts, rights = tuple(terms[:count]), tuple(terms[count : 2 * count])
    batch, rows, columns, depth = merged
    return FlatContraction(batch, rows, columns, depth, lefts, rights, results)
