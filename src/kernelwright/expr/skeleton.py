"""The family of computation that a program belongs to."""

from __future__ import annotations

from kernelwright.expr import (
    attention,
    contraction,
    pairs,
    pairwise,
    rowwise,
    scan,
    scatter,
    selection,
    staging,
    stencil,
    windows,
)
from kernelwright.expr.nodes import Program, Reduce, Scan, walk

SKELETONS = (
    "pointwise",
    "rowwise map-reduce-map",
    "contraction with epilogue",
    "pairwise reduce",
    "stencil",
    "scan",
    "histogram/scatter",
    "sort/select",
    "attention",
    "none",
)


def skeleton(program: Program) -> str:
    """One of `SKELETONS`: the most special recogniser that takes the program."""
    if not any(
        isinstance(node, Reduce | Scan) for node in walk(*(o.body for o in program.outputs))
    ):
        return "pointwise" if stencil.match(program) is None else "stencil"
    if selection.sorts(program):
        return "sort/select"
    if scatter.scatters(program):
        return "histogram/scatter"
    if contraction.match(program) is not None:
        return "contraction with epilogue"
    if pairwise.match(program) is not None or pairs.match(program) is not None:
        return "pairwise reduce"
    if windows.match(program) is not None:
        return "stencil"
    if scan.match(program) is not None:
        return "scan"
    if attention.match(program) is not None:
        return "attention"
    staged = staging.stage(program, frozenset()) if rowwise.match(program) is None else None
    plan = rowwise.match(staged.program if staged is not None else program)
    return "none" if plan is None else "rowwise map-reduce-map"
