"""Axes of a fixed, small extent, written out: reductions become chains of operations."""

from __future__ import annotations

from functools import reduce
from itertools import product

from kernelwright.expr.nodes import (
    Apply,
    Axis,
    Constant,
    Node,
    Output,
    Reduce,
    substitute,
    transform,
)
from kernelwright.expr.polynomial import from_dimension

_CHAINED = {"sum": "add", "prod": "mul", "max": "max", "min": "min", "any": "or", "all": "and"}


def fixed_extent(dim: str, most: int) -> int | None:
    """The number that a dimension expression is; None where it is none, or above `most`."""
    extent = from_dimension(dim).as_constant
    return extent if extent is not None and extent <= most else None


def unroll_reductions(body: Node, most: int) -> Node:
    """Write out every reduction over at most `most` elements, in order of the index."""

    def change(node: Node) -> Node:
        if not isinstance(node, Reduce) or node.op not in _CHAINED:
            return node
        extent = fixed_extent(node.extent, most)
        if extent is None:
            return node
        terms = [substitute(node.body, {node.axis: Constant(i)}) for i in range(extent)]
        return reduce(lambda a, b: Apply(_CHAINED[node.op], (a, b)), terms)

    return transform(body, change)


def unroll_output(output: Output, most: int) -> list[tuple[tuple[Node, ...], Node]]:
    """Index and value of an output for each index of its axes of at most `most` elements."""
    fixed = [fixed_extent(dim, most) for dim in output.dims]
    ranges = [range(extent) if extent is not None else (None,) for extent in fixed]
    found: list[tuple[tuple[Node, ...], Node]] = []
    for choice in product(*ranges):
        index = tuple(
            Axis(axis) if number is None else Constant(number)
            for axis, number in zip(output.axes, choice, strict=True)
        )
        values = {a: i for a, i in zip(output.axes, index, strict=True) if isinstance(i, Constant)}
        found.append((index, substitute(output.body, dict[str, Node](values))))
    return found
