"""What scalar expressions look like in the source of each target.

Terms, scopes and schedules are the same for all targets; a target says in which namespace its
building blocks lie, and what it calls the functions of a real number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kernelwright.codegen.functions import SCALAR
from kernelwright.model import FrozenMap, Target


@dataclass(frozen=True)
class Dialect:
    """How scalar expressions are printed."""

    name: Target
    space: str
    """Namespace of the building blocks."""
    calls: Mapping[str, str]
    """Operation to its form on float32 arguments."""
    integer_extreme: str
    """The form of the greater (`max`) or lesser (`min`) of two integers."""
    inverts: bool
    """Whether quotients by what an outer loop knows become products with its reciprocal."""


CPU = Dialect("cpu", "simd", FrozenMap(SCALAR), "std::{op}<int64_t>({0}, {1})", False)

_SAME_NAME = (
    "exp", "exp2", "expm1", "log", "log2", "log1p", "sin", "cos", "tan", "tanh", "erf", "atan",
    "asin", "acos", "sinh", "cosh", "sqrt", "rsqrt", "floor", "ceil", "trunc",
)  # fmt: skip
CUDA = Dialect(
    "cuda",
    "simt",
    FrozenMap({
        **{name: f"{name}f({{0}})" for name in _SAME_NAME},
        "abs": "fabsf({0})", "round_even": "rintf({0})",
        "sigmoid": "(1.0f / (1.0f + expf(-{0})))",
        "atan2": "atan2f({0}, {1})", "fmod": "fmodf({0}, {1})", "pow": "powf({0}, {1})",
    }),
    "simt::{op}imum({0}, {1})",
    True,
)  # fmt: skip
