"""Pointwise operations on Python numbers, for constant folding: each as the arrays would do it."""

# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any


def _max(a: float, b: float) -> float:
    return a if math.isnan(a) or (a >= b and not math.isnan(b)) else b


def _min(a: float, b: float) -> float:
    return a if math.isnan(a) or (a <= b and not math.isnan(b)) else b


def _div(a: float, b: float) -> float:
    return float(a) / float(b)


def _int(value: float) -> int:
    return int(value)


PYTHON_OPERATIONS: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "div": _div,
    "neg": lambda a: -a, "abs": abs, "reciprocal": lambda a: 1.0 / a, "max": _max, "min": _min,
    "sqrt": math.sqrt, "rsqrt": lambda a: 1.0 / math.sqrt(a), "exp": math.exp, "log": math.log,
    "log2": math.log2, "expm1": math.expm1, "log1p": math.log1p, "sin": math.sin, "cos": math.cos,
    "tan": math.tan, "tanh": math.tanh, "erf": math.erf, "pow": math.pow,
    "eq": lambda a, b: a == b, "ne": lambda a, b: a != b, "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b, "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b,
    "and": lambda a, b: bool(a and b), "or": lambda a, b: bool(a or b), "not": lambda a: not a,
    "where": lambda c, a, b: a if c else b, "isnan": math.isnan, "isinf": math.isinf,
    "floordiv": lambda a, b: a // b, "mod": lambda a, b: a % b,
    "to_float": float, "to_int": _int, "to_bool": bool,
}  # fmt: skip
"""Operation to function. Absent ones, such as roundings to a dtype, are not folded."""
