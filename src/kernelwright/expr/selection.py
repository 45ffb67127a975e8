"""The largest or smallest elements of each row, and what is made of where they are.

out[t, p] = body(t, p, index of what stands at position p of row t)
"""

from __future__ import annotations

from dataclasses import dataclass

from kernelwright.expr.nodes import (
    Axis,
    Node,
    Order,
    Program,
    Reduce,
    Scan,
    free_axes,
    substitute,
    transform,
    walk,
)
from kernelwright.expr.polynomial import from_dimension
from kernelwright.expr.rowwise import Bound

INDEX = "index"
"""Stands in bodies for the index of the element that was chosen."""


@dataclass(frozen=True)
class Selection:
    """The first `position` elements of each row in order of `key`."""

    rows: tuple[Bound, ...]
    column: Bound
    position: Bound
    key: Node
    """Over rows and column, without reductions."""
    largest: bool
    results: tuple[tuple[str, Node], ...]
    """Outputs by name; their bodies are over rows, position and `INDEX`."""


def sorts(program: Program) -> bool:
    """Whether anything is sorted."""
    return any(isinstance(node, Order) for node in walk(*(o.body for o in program.outputs)))


def match(program: Program) -> Selection | None:
    """The one selection along the last axis that all outputs are made of, or None."""
    found: Selection | None = None
    results: list[tuple[str, Node]] = []
    for output in program.outputs:
        if not output.axes:
            return None
        dims = output.dims
        bounds = [Bound(f"row{n}", dim) for n, dim in enumerate(dims[:-1])]
        bounds.append(Bound("position", dims[-1]))
        names: dict[str, Node] = {
            axis: Axis(bound.axis) for axis, bound in zip(output.axes, bounds, strict=True)
        }
        body = substitute(output.body, names)
        orders = [node for node in walk(body) if isinstance(node, Order)]
        if len(orders) != 1 or orders[0].at is not Axis("position"):
            return None
        (order,) = orders
        key = substitute(order.body, {order.axis: Axis("column")})
        column = Bound("column", order.extent)
        body = transform(body, lambda node, o=order: Axis(INDEX) if node is o else node)
        if "position" in free_axes(key):
            return None
        if any(isinstance(node, Reduce | Scan) for node in walk(key, body)):
            return None
        results.append((output.name, body))
        this = Selection(tuple(bounds[:-1]), column, bounds[-1], key, order.largest, ())
        if found is not None and not _same(found, this):
            return None
        found = found or this
    if found is None:
        return None
    return Selection(
        found.rows, found.column, found.position, found.key, found.largest, tuple(results)
    )


def _same(one: Selection, other: Selection) -> bool:
    pairs = zip(
        (*one.rows, one.column, one.position), (*other.rows, other.column, other.position),
        strict=False,
    )  # fmt: skip
    alike = len(one.rows) == len(other.rows) and one.largest is other.largest
    return (
        alike
        and one.key is other.key
        and all(from_dimension(a.extent) == from_dimension(b.extent) for a, b in pairs)
    )
