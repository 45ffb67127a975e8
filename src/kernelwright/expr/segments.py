"""Sums over segments: the sources of each target follow one another.

out[m] = Σ_z [offsets[m] <= z < offsets[m + 1]] value(z)

As traced from runs (`repeat_interleave`) the target of a source is the number of runs that have
ended: `m = Σ_i [ends(i) <= z]`. As ends never descend, that is the segment from `ends(m - 1)` to
`ends(m)`.
"""

from __future__ import annotations

from dataclasses import dataclass

from kernelwright.expr.integers import Integers
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
from kernelwright.expr.polynomial import ONE, Polynomial, from_dimension
from kernelwright.expr.rowwise import Bound
from kernelwright.expr.scatter import condition_of, picked_by

SEGMENT = "segment"
"""The axis of `Segments.start`: from 0 to the number of segments, both included."""


@dataclass(frozen=True)
class Segments:
    """A float sum over each segment of a long vector."""

    tensor: str
    segments: Bound
    elements: Bound
    start: Node
    """Where a segment begins; where the one before it ends."""
    value: Node
    """Over the axis of `elements`, without reductions."""
    total: Reduce
    """The node of the body that stands for the sum."""
    body: Node
    """What is stored for a segment: of its axis, and of `total`."""


def match(program: Program) -> Segments | None:
    """How a program sums segments, or None when it does not."""
    if len(program.outputs) != 1 or len(program.outputs[0].axes) != 1:
        return None
    output = program.outputs[0]
    target, extent = output.axes[0], output.dims[0]
    sums = [n for n in walk(output.body) if isinstance(n, Reduce) and target in free_axes(n)]
    if len(sums) != 1:
        return None
    (total,) = sums
    condition, body = condition_of(total), total.body
    key = None if condition is None else picked_by(condition, target, total.axis)
    if key is None or not (isinstance(body, Apply) and body.op == "where"):
        return None
    value, start = body.args[1], _start(key, total.axis, extent)
    if start is None or target in free_axes(value):
        return None
    if any(isinstance(n, Reduce | Scan) for n in walk(start, value)):
        return None
    rest = [n for n in walk(transform(output.body, lambda n: Constant(0.0) if n is total else n))]
    if any(isinstance(n, Reduce | Scan) for n in rest):
        return None
    if Kinds(program.signature).of(value) != "float":
        return None
    bounds = Bound(target, extent), Bound(total.axis, total.extent)
    return Segments(output.name, *bounds, start, value, total, output.body)


def _start(key: Node, source: str, extent: str) -> Node | None:
    """Where segments begin, from the number of those that have ended at a place."""
    condition = condition_of(key)
    if not isinstance(key, Reduce) or not isinstance(condition, Apply):
        return None
    if from_dimension(key.extent) != from_dimension(extent):
        return None
    if condition.op not in ("le", "lt", "ge", "gt"):
        return None
    integers = Integers({})
    left, right = (integers.polynomial(side) for side in condition.args)
    # at least 0 once a segment has ended: z - ends
    slack = right - left if condition.op in ("le", "lt") else left - right
    if condition.op in ("lt", "gt"):
        slack = slack - ONE
    ends = integers.node(Polynomial.atom(Axis(source)) - slack)
    if source in free_axes(ends) or key.axis not in free_axes(ends):
        return None
    before = Apply("sub", (Axis(SEGMENT), Constant(1)))

    def tidy(node: Node) -> Node:
        if isinstance(node, Apply) and node.op in ("add", "sub"):
            return integers.node(integers.polynomial(node))
        return node

    return transform(substitute(ends, {key.axis: before}), tidy)
