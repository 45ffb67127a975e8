"""Running sums along the last axis, with a pointwise body.

out[t, i] = Σ_{j <= i} body(t, j)
"""

from __future__ import annotations

from dataclasses import dataclass

from kernelwright.expr.nodes import Axis, Node, Program, Reduce, Scan, substitute, walk
from kernelwright.expr.polynomial import from_dimension
from kernelwright.expr.rowwise import Bound


@dataclass(frozen=True)
class ScanPlan:
    """An inclusive running sum of `body` along `column`, in each row on its own."""

    tensor: str
    rows: tuple[Bound, ...]
    column: Bound
    body: Node
    """Over the rows and the column, without reductions."""


def match(program: Program) -> ScanPlan | None:
    """The plan of a running sum along the last axis of the only output, or None."""
    if len(program.outputs) != 1:
        return None
    output = program.outputs[0]
    scan = output.body
    if type(scan) is not Scan or not output.axes or scan.at is not Axis(output.axes[-1]):
        return None
    if from_dimension(scan.extent) != from_dimension(output.dims[-1]):
        return None
    if any(isinstance(node, Scan | Reduce) for node in walk(scan.body)):
        return None
    bounds = [Bound(f"row{n}", dim) for n, dim in enumerate(output.dims[:-1])] + [
        Bound("column", output.dims[-1])
    ]
    names: dict[str, Node] = {
        axis: Axis(bound.axis) for axis, bound in zip(output.axes, bounds, strict=True)
    }
    names[scan.axis] = Axis("column")
    body = substitute(scan.body, names)
    return ScanPlan(output.name, tuple(bounds[:-1]), bounds[-1], body)
