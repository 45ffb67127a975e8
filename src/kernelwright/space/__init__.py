"""Tunables: declarations in source, constraints, values and neighbours."""

from kernelwright.space.constraints import Constraint
from kernelwright.space.declarations import RESERVED, Declarations, Tunable, parse_declarations
from kernelwright.space.space import Space, Values

__all__ = [
    "RESERVED",
    "Constraint",
    "Declarations",
    "Space",
    "Tunable",
    "Values",
    "parse_declarations",
]
