"""Pointwise programs that read a tensor across the order in which they write.

out[b, n, m] = f(A[.., m, .., n], B[.., n, m], c[n], ...)
"""

from __future__ import annotations

from dataclasses import dataclass

from kernelwright.expr.integers import Integers
from kernelwright.expr.kinds import Kinds
from kernelwright.expr.nodes import (
    Axis,
    Load,
    Node,
    Program,
    Reduce,
    Scan,
    substitute,
    transform,
    walk,
)
from kernelwright.expr.polynomial import ONE, ZERO
from kernelwright.expr.rowwise import Bound, clamped, flatten, stride_of


@dataclass(frozen=True)
class Turned:
    """One output whose last axis is not the one that some inputs are contiguous along."""

    tensor: str
    outer: tuple[Bound, ...]
    across: Bound
    """The axis that crossed loads are contiguous along."""
    column: Bound
    """The last axis of the output."""
    crossed: tuple[Load, ...]
    """Flat loads of stride 1 along `across` and of another along `column`."""
    offset: Node
    """Where an element goes."""
    body: Node
    """Over all axes, with flat loads."""


def match(program: Program) -> Turned | None:
    """How a pointwise program turns a tensor, or None when nothing is read across."""
    if len(program.outputs) != 1 or len(program.outputs[0].axes) < 2:
        return None
    output, dims = program.outputs[0], {t.name: t.dims for t in program.signature.tensors}
    if any(isinstance(node, Reduce | Scan) for node in walk(output.body)):
        return None
    names = tuple(f"axis{n}" for n in range(len(output.axes)))
    bounds = tuple(Bound(name, dim) for name, dim in zip(names, output.dims, strict=True))
    integers = Integers({b.axis: b.extent for b in bounds})
    body = substitute(output.body, dict(zip(output.axes, map(Axis, names), strict=True)))
    body = _flat(body, dims, integers)
    kinds = Kinds(program.signature)
    column = names[-1]
    crossed: list[Load] = []
    across: set[str] = set()
    for load in walk(body):
        if not isinstance(load, Load):
            continue
        offset = integers.polynomial(load.indices[0])
        steps = {name: stride_of(offset, name) for name in names}
        along = steps[column]
        if along is None:
            return None
        if along in (ZERO, ONE):
            continue
        unit = [name for name in names[:-1] if steps[name] == ONE]
        if len(unit) != 1 or None in steps.values() or kinds.of(load) != "float":
            return None
        crossed.append(load)
        across |= set(unit)
    if len(across) != 1 or kinds.of(body) != "float":
        return None
    chosen = next(bound for bound in bounds if bound.axis in across)
    target = flatten(Load(output.name, tuple(map(Axis, names))), dims[output.name], integers)
    outer = tuple(bound for bound in bounds[:-1] if bound is not chosen)
    return Turned(output.name, outer, chosen, bounds[-1], tuple(crossed), target.indices[0], body)


def _flat(body: Node, dims: dict[str, tuple[str, ...]], integers: Integers) -> Node:
    """The term with loads by flat offset."""

    def change(node: Node) -> Node:
        if not isinstance(node, Load):
            return node
        pairs = zip(node.indices, dims[node.tensor], strict=True)
        inside = Load(node.tensor, tuple(clamped(i, dim, integers) for i, dim in pairs))
        return flatten(inside, dims[node.tensor], integers)

    return transform(body, change)
