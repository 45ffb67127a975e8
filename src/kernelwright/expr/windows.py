"""Sums over a window that moves with the output: depthwise convolutions and correlations.

    out[b, h, w] = epilogue(Σ_k Σ_l signal(b, h + k, w + l) · taps(b, k, l) + ...)

The signal may be zero in margins (padding). Several windows over one signal that lie inside of the
largest become one, whose taps are the sums of theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

from kernelwright.expr.contraction import replace
from kernelwright.expr.integers import FLIPPED, Integers
from kernelwright.expr.kinds import Kinds
from kernelwright.expr.nodes import (
    Apply,
    Axis,
    Constant,
    Node,
    Program,
    Reduce,
    Scan,
    free_axes,
    substitute,
    transform,
    walk,
)
from kernelwright.expr.polynomial import ONE, Polynomial, from_dimension, to_dimension
from kernelwright.expr.rowwise import Bound
from kernelwright.expr.rules import Rules
from kernelwright.expr.stencil import Margin, margins_of, within

ROW, COLUMN, SIGNAL_ROW, SIGNAL_COLUMN, TAP_ROW, TAP_COLUMN = "h", "w", "y", "x", "k", "l"

_TOTAL = Apply("total", (Axis(ROW), Axis(COLUMN)))


@dataclass(frozen=True)
class Window:
    """Taps over (batch, k, l); output (h, w) meets the signal at (h + k - top, w + l - left)."""

    top: int
    left: int
    rows: str
    columns: str
    taps: Node


@dataclass(frozen=True)
class WindowPlan:
    """Windows over one signal; the first holds all others."""

    batch: tuple[Bound, ...]
    row: Bound
    column: Bound
    height: str
    """Rows of the signal where it is not zero."""
    width: str
    signal: Node
    """Over batch, y < height and x < width."""
    windows: tuple[Window, ...]
    tensor: str
    index: tuple[Node, ...]
    body: Node
    """Over batch, h, w, and `total`."""

    @property
    def total(self) -> Node:
        """What stands for the sum in the body."""
        return _TOTAL


class _Unmatched(Exception):
    """The program has another form."""


def match(program: Program) -> WindowPlan | None:
    """The plan of a program with one output that sums over windows, or None."""
    if len(program.outputs) != 1 or not program.outputs[0].axes:
        return None
    output = program.outputs[0]
    for spatial in ((ROW, COLUMN), (COLUMN,)):
        names = [f"batch{n}" for n in range(len(output.axes) - len(spatial))] + list(spatial)
        if len(names) != len(output.axes):
            continue
        renamed = {old: Axis(new) for old, new in zip(output.axes, names, strict=True)}
        body = substitute(output.body, dict[str, Node](renamed))
        bounds = tuple(Bound(n, d) for n, d in zip(names, output.dims, strict=True))
        try:
            return _Matcher(program, bounds).plan(output.name, body)
        except _Unmatched:
            continue
    return None


@dataclass(frozen=True)
class _Found:
    """One sum: its signal in coordinates of its own, and the window."""

    signal: Node
    height: Polynomial
    width: Polynomial
    window: Window


class _Matcher:
    """Collects the sums of the output."""

    def __init__(self, program: Program, bounds: tuple[Bound, ...]) -> None:
        self.kinds = Kinds(program.signature)
        self.column = bounds[-1]
        rows = tuple(bound for bound in bounds if bound.axis == ROW)
        self.row = rows[0] if rows else Bound(ROW, "1")
        self.batch = bounds[: len(bounds) - 1 - len(rows)]
        self.index = tuple(Axis(bound.axis) for bound in bounds)

    def plan(self, tensor: str, body: Node) -> WindowPlan:
        sums: list[Node] = []
        stack = [body]
        while stack:
            node = stack.pop()
            if isinstance(node, Scan):
                raise _Unmatched
            if isinstance(node, Reduce):
                sums += [node] if node not in sums else []
            else:
                stack.extend(node.children)
        found = [self._sum(node) for node in sums]
        if not found:
            raise _Unmatched
        first = found[0]
        same = [(f.signal, f.height, f.width) == (first.signal, first.height, first.width)
                for f in found]  # fmt: skip
        if not all(same):
            raise _Unmatched
        windows = sorted((f.window for f in found), key=lambda w: (-w.top, -w.left))
        if not all(_holds(windows[0], w) for w in windows[1:]):
            raise _Unmatched
        return WindowPlan(
            self.batch, self.row, self.column, to_dimension(first.height),
            to_dimension(first.width), first.signal, tuple(windows), tensor, self.index,
            _joined(body, sums),
        )  # fmt: skip

    def _sum(self, node: Node) -> _Found:
        chain: list[tuple[str, str]] = []
        while isinstance(node, Reduce) and node.op == "sum" and len(chain) < 2:
            chain.append((node.axis, node.extent))
            node = node.body
        if not (isinstance(node, Apply) and node.op == "mul") or not chain:
            raise _Unmatched
        if any(isinstance(n, Reduce | Scan) for n in walk(node)):
            raise _Unmatched
        for order in (chain, chain[::-1]):
            for signal, taps in (node.args, node.args[::-1]):
                found = self._windowed(signal, taps, order)
                if found is not None:
                    return found
        raise _Unmatched

    def _windowed(self, signal: Node, taps: Node, chain: list[tuple[str, str]]) -> _Found | None:
        """The sum as a window whose rows and columns are the axes of the chain, in this order."""
        if free_axes(taps) & {ROW, COLUMN} or (len(chain) == 2 and self.row.extent == "1"):
            return None
        (column, columns), (row, rows) = chain[-1], (chain[0] if len(chain) == 2 else ("", "1"))
        pairs = ((ROW, row, SIGNAL_ROW, TAP_ROW), (COLUMN, column, SIGNAL_COLUMN, TAP_COLUMN))
        moved: dict[str, Node] = {}
        named: dict[str, Node] = {}
        for own, bound, place, tap in pairs:
            moved[own] = Apply("sub", (Axis(place), Axis(tap))) if bound else Axis(place)
            named[bound] = Axis(tap)
        extents = {
            SIGNAL_ROW: from_dimension(self.row.extent) + from_dimension(rows) - ONE,
            SIGNAL_COLUMN: from_dimension(self.column.extent) + from_dimension(columns) - ONE,
        }
        bounds = (*self.batch, *(Bound(a, to_dimension(e)) for a, e in extents.items()))
        taken = Integers({b.axis: b.extent for b in bounds} | {TAP_ROW: rows, TAP_COLUMN: columns})
        signal = substitute(substitute(signal, named), moved)
        signal = transform(signal, Rules(self.kinds, taken))
        if free_axes(signal) & {TAP_ROW, TAP_COLUMN, ROW, COLUMN}:
            return None
        margins = margins_of(bounds, [signal])
        if any(m != Margin() for m in margins[:-2]) or not self._zero_outside(signal, bounds):
            return None
        inside = within(signal, bounds, margins, self.kinds)
        vertical, horizontal = margins[-2:]
        origin = {SIGNAL_ROW: vertical.before, SIGNAL_COLUMN: horizontal.before}
        shifts = {a: Apply("add", (Axis(a), Constant(n))) for a, n in origin.items()}
        inside = transform(
            substitute(inside, dict[str, Node](shifts)), Rules(self.kinds, Integers({}))
        )
        window = Window(vertical.before, horizontal.before, rows, columns, substitute(taps, named))
        sizes = [
            extents[axis] - Polynomial.constant(margin.before + margin.after)
            for axis, margin in ((SIGNAL_ROW, vertical), (SIGNAL_COLUMN, horizontal))
        ]
        return _Found(inside, sizes[0], sizes[1], window)

    def _zero_outside(self, signal: Node, bounds: tuple[Bound, ...]) -> bool:
        """Whether there are no margins, or the signal is zero in all of them."""
        if all(m == Margin() for m in margins_of(bounds, [signal])):
            return True
        if not (isinstance(signal, Apply) and signal.op == "where"):
            return False
        condition, value, other = signal.args
        conjuncts = _conjuncts(condition)
        plain = all(isinstance(c, Apply) and c.op in FLIPPED and c.op not in ("eq", "ne")
                    for c in conjuncts)  # fmt: skip
        # each conjunct holds in the middle and so is false beyond its own margin
        margins = margins_of(bounds, [condition])
        held = within(condition, bounds, margins, self.kinds)
        bare = all(m == Margin() for m in margins_of(bounds, [value]))
        return plain and bare and held is Constant(True) and _is_zero(other)


def _conjuncts(node: Node) -> list[Node]:
    if isinstance(node, Apply) and node.op == "and":
        return [part for arg in node.args for part in _conjuncts(arg)]
    return [node]


def _is_zero(node: Node) -> bool:
    return isinstance(node, Constant) and node.value == 0


def _holds(outer: Window, inner: Window) -> bool:
    """Whether all taps of one window lie inside of another."""
    for before, extent in (("top", "rows"), ("left", "columns")):
        shift = getattr(outer, before) - getattr(inner, before)
        rest = from_dimension(getattr(outer, extent)) - from_dimension(getattr(inner, extent))
        number = rest.as_constant
        if shift < 0 or number is None or shift > number:
            return False
    return True


def _joined(body: Node, sums: list[Node]) -> Node:
    """The body with the sum of all windows as one value."""
    parts: list[Node] = [Apply(f"window{n}", ()) for n in range(len(sums))]
    body = replace(body, dict(zip(sums, parts, strict=True)))
    known = {part: frozenset({n}) for n, part in enumerate(parts)}

    def change(node: Node) -> Node:
        if isinstance(node, Apply) and node.op == "add" and all(a in known for a in node.args):
            left, right = (known[a] for a in node.args)
            if not left & right:
                name = Apply("window" + "_".join(map(str, sorted(left | right))), ())
                known[name] = left | right
                return name
        return node

    body = transform(body, change)
    left = [node for node in walk(body) if node in known]
    if len(left) != 1 or len(known[left[0]]) != len(sums):
        raise _Unmatched
    return replace(body, {left[0]: _TOTAL})
