"""The expression form of a reference, its skeletons and its schedules."""

from kernelwright.expr.evaluate import evaluate
from kernelwright.expr.kinds import Kinds
from kernelwright.expr.nodes import (
    OPERATIONS,
    Apply,
    Axis,
    Constant,
    Extent,
    Load,
    Node,
    Order,
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
from kernelwright.expr.operations import operations, unit_of
from kernelwright.expr.pretty import pretty
from kernelwright.expr.serialize import from_json, to_json
from kernelwright.expr.simplify import axis_extents, simplify
from kernelwright.expr.skeleton import skeleton

__all__ = [
    "OPERATIONS",
    "Apply",
    "Axis",
    "Constant",
    "Extent",
    "Kinds",
    "Load",
    "Node",
    "Order",
    "Output",
    "Parameter",
    "Program",
    "Reduce",
    "Scan",
    "axis_extents",
    "evaluate",
    "free_axes",
    "from_json",
    "operations",
    "pretty",
    "simplify",
    "skeleton",
    "substitute",
    "to_json",
    "transform",
    "unit_of",
    "walk",
]
