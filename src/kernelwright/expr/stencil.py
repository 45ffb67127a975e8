"""Pointwise programs that treat the border of their grid apart.

    out[h, w] = where(0 < h < H - 1 and 0 < w < W - 1, f(u[h - 1, w], u[h, w + 1], ...), u[h, w])

A condition that compares an axis with a constant, or with its extent less a constant, is the same
everywhere but in a margin of a few cells; so are clamped and wrapped indices. Inside of all margins
the program has no conditions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kernelwright.expr.integers import FLIPPED, Integers
from kernelwright.expr.kinds import Kinds
from kernelwright.expr.nodes import (
    Apply,
    Axis,
    Node,
    Program,
    Reduce,
    Scan,
    substitute,
    transform,
    walk,
)
from kernelwright.expr.polynomial import Polynomial, from_dimension
from kernelwright.expr.rowwise import Bound
from kernelwright.expr.rules import Rules

_WIDEST = 64
"""Cells of the widest margin."""


@dataclass(frozen=True)
class Margin:
    """Cells at the beginning and at the end of an axis where conditions may differ."""

    before: int = 0
    after: int = 0

    def joined(self, other: Margin) -> Margin:
        """The margin that covers both."""
        return Margin(max(self.before, other.before), max(self.after, other.after))


@dataclass(frozen=True)
class Cell:
    """The value of one output at a cell: anywhere, inside the columns' margin, inside all."""

    tensor: str
    anywhere: Node
    in_columns: Node
    inside: Node


@dataclass(frozen=True)
class StencilPlan:
    """A grid whose last axis is the column, with the margin of each axis."""

    bounds: tuple[Bound, ...]
    margins: tuple[Margin, ...]
    cells: tuple[Cell, ...]


def match(program: Program) -> StencilPlan | None:
    """The plan of a pointwise program with margins, or None."""
    first = program.outputs[0]
    dims = [from_dimension(d) for d in first.dims]
    if not dims or any([from_dimension(d) for d in o.dims] != dims for o in program.outputs):
        return None
    bounds = tuple(Bound(f"axis{n}", dim) for n, dim in enumerate(first.dims))
    bodies: list[Node] = []
    for output in program.outputs:
        names = {a: Axis(b.axis) for a, b in zip(output.axes, bounds, strict=True)}
        bodies.append(substitute(output.body, dict[str, Node](names)))
    if any(isinstance(node, Reduce | Scan) for node in walk(*bodies)):
        return None
    margins = margins_of(bounds, bodies)
    if not any(m.before or m.after for m in margins):
        return None
    kinds = Kinds(program.signature)
    columns = tuple(Margin() for _ in margins[:-1]) + margins[-1:]
    cells = tuple(
        Cell(
            o.name, body, within(body, bounds, columns, kinds), within(body, bounds, margins, kinds)
        )
        for o, body in zip(program.outputs, bodies, strict=True)
    )
    return StencilPlan(bounds, margins, cells)


def margins_of(bounds: tuple[Bound, ...], bodies: list[Node]) -> tuple[Margin, ...]:
    """The margin of each axis outside of which no condition on it changes."""
    integers = Integers({b.axis: b.extent for b in bounds})
    found = {b.axis: Margin() for b in bounds}
    extents = {b.axis: from_dimension(b.extent) for b in bounds}
    for node in walk(*bodies):
        if not (isinstance(node, Apply) and node.op in (*FLIPPED, "max", "min", "mod", "floordiv")):
            continue
        try:
            left, right = (integers.polynomial(arg) for arg in node.args)
        except TypeError:
            continue
        wraps = node.op in ("mod", "floordiv")
        for difference in (left, left - right) if wraps else (left - right,):
            margin = _margin_of(node.op, difference, extents)
            if margin is not None and max(margin[1].before, margin[1].after) <= _WIDEST:
                found[margin[0]] = found[margin[0]].joined(margin[1])
    return tuple(found[b.axis] for b in bounds)


def _margin_of(
    op: str, difference: Polynomial, extents: Mapping[str, Polynomial]
) -> tuple[str, Margin] | None:
    """Where an operation on an affine function of one axis may differ from the middle."""
    axes = [a for a in difference.atoms if isinstance(a, Axis) and a.name in extents]
    if len(axes) != 1:
        return None
    axis = axes[0]
    slope = difference.terms.get((axis,), 0)
    rest = difference - Polynomial.atom(axis) * Polynomial.constant(slope)
    if abs(slope) != 1 or axis in rest.atoms:
        return None
    # where the difference is 0; the first cell after the change may be the next one
    root = rest if slope < 0 else -rest
    late = op in ("eq", "ne") or (op in FLIPPED and (op in ("lt", "ge")) != (slope > 0))
    early = op in ("eq", "ne") or not late
    before = (root + Polynomial.constant(int(late))).as_constant
    after = (extents[axis.name] - root - Polynomial.constant(int(not early))).as_constant
    if before is not None and (after is None or before <= after):
        return axis.name, Margin(before=max(0, before))
    return None if after is None else (axis.name, Margin(after=max(0, after)))


def within(
    body: Node, bounds: tuple[Bound, ...], margins: tuple[Margin, ...], kinds: Kinds
) -> Node:
    """The term where every axis is inside its margin; conditions that this decides are gone."""
    integers = Integers({bound.axis: bound.extent for bound in bounds})
    for bound, margin in zip(bounds, margins, strict=True):
        integers.restrict(bound.axis, margin.before, margin.after)
    rules = Rules(kinds, integers)

    def change(node: Node) -> Node:
        if isinstance(node, Apply) and node.op in ("max", "min") and kinds.of(node) == "int":
            difference = integers.polynomial(node.args[0]) - integers.polynomial(node.args[1])
            for sign, pick in ((difference, 0), (-difference, 1)):
                if integers.never_negative(sign):
                    return node.args[pick if node.op == "max" else 1 - pick]
        return rules(node)

    return transform(body, change)


__all__ = ["Cell", "Margin", "StencilPlan", "match"]
