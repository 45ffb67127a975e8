"""The expression form of a reference, its skeletons and its schedules."""

from kernelwright.expr.nodes import (
    OPERATIONS,
    Apply,
    Axis,
    Constant,
    Extent,
    Load,
    Node,
    Output,
    Parameter,
    Program,
    Reduce,
    Scan,
    free_axes,
    substitute,
    transform,
    walk,
)

__all__ = [
    "OPERATIONS",
    "Apply",
    "Axis",
    "Constant",
    "Extent",
    "Load",
    "Node",
    "Output",
    "Parameter",
    "Program",
    "Reduce",
    "Scan",
    "free_axes",
    "substitute",
    "transform",
    "walk",
]
