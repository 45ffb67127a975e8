"""Pointwise operations on NumPy arrays, in float64."""

# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernelwright.model import Dtype

Array = NDArray[Any]

_erf = np.vectorize(math.erf, otypes=[np.float64])

_PRECISION = {Dtype.BF16: (8, -133), Dtype.F16: (11, -24), Dtype.F32: (24, -149)}
"""Bits of the significand, and the exponent of the least subnormal."""
_LARGEST = {
    Dtype.BF16: (2 - 2.0**-7) * 2.0**127,
    Dtype.F16: 65504.0,
    Dtype.F32: (2 - 2.0**-23) * 2.0**127,
}


def round_to(values: Array, dtype: Dtype) -> Array:
    """Float64 values rounded once to a dtype (nearest, ties to even), still as float64."""
    if dtype not in _PRECISION:
        return values
    bits, least = _PRECISION[dtype]
    values = np.asarray(values, dtype=np.float64)
    _, exponent = np.frexp(values)
    # the spacing of the dtype's values around each value, never below the least subnormal
    step = np.maximum(exponent.astype(np.int64) - bits, least)
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = np.ldexp(np.rint(np.ldexp(values, -step)), step)
    overflow = np.abs(rounded) > _LARGEST[dtype]
    rounded = np.where(overflow, np.copysign(np.inf, values), rounded)
    return np.where(np.isfinite(values), rounded, values)


def _sigmoid(x: Array) -> Array:
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


def _sign(x: Array) -> Array:
    return np.sign(x)


NUMPY_OPERATIONS: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.true_divide,
    "neg": np.negative, "abs": np.abs, "reciprocal": lambda x: 1.0 / x,
    "fma": lambda a, b, c: a * b + c, "max": np.maximum, "min": np.minimum, "sqrt": np.sqrt,
    "rsqrt": lambda x: 1.0 / np.sqrt(x), "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1,
    "log": np.log, "log2": np.log2, "log1p": np.log1p, "sin": np.sin, "cos": np.cos,
    "tan": np.tan, "tanh": np.tanh, "sigmoid": _sigmoid, "erf": _erf,
    "pow": lambda a, b: np.power(np.asarray(a, np.float64), b), "floor": np.floor,
    "ceil": np.ceil, "trunc": np.trunc, "round_even": np.rint, "sign": _sign, "atan": np.arctan,
    "asin": np.arcsin, "acos": np.arccos, "sinh": np.sinh, "cosh": np.cosh,
    "atan2": np.arctan2, "fmod": np.fmod,
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
    "ge": np.greater_equal, "and": np.logical_and, "or": np.logical_or, "not": np.logical_not,
    "where": np.where, "isnan": np.isnan, "isinf": np.isinf, "floordiv": np.floor_divide,
    "mod": np.mod, "to_float": lambda x: np.asarray(x, np.float64),
    "to_int": lambda x: np.trunc(x).astype(np.int64), "to_bool": lambda x: np.asarray(x) != 0,
}  # fmt: skip
"""Every operation but the roundings, by name."""
