"""The error budget: how far from the oracle a sound implementation may be.

A sound implementation computes with float32 inside, in some order, and rounds once to the output's
dtype. With `y` the float64 oracle, `u` the unit roundoff of the output and `eps` = 2^-23:

    tolerance = 2 u |y|  +  factor (e + 4 eps |y|)  +  eps terms  +  smallest step

`e` is the error of actual sound runs beyond one output rounding, the worst over several summation
orders, smoothed over lines of the array, because one element's error is a random draw while its
line shares a scale. `terms` is the sum of the absolute terms of a reduction or scan, where the
problem states it. `docs/numerics.md` derives the constants.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kernelwright.model import Dtype
from kernelwright.numerics.formats import Array, Float64, decode, smallest_step

EPS32 = 2.0**-23
FACTOR = 4.0
_LINE = 32
"""A line of fewer elements is too small a sample of the error."""
_WINDOW = 256


def tolerance(
    oracle: Array,
    sound: Sequence[Array],
    dtype: Dtype,
    terms: Array | None = None,
    factor: float = FACTOR,
) -> Float64:
    """Absolute tolerance of every element, in the oracle's shape.

    Args:
        oracle: float64 values.
        sound: outputs of sound float32 runs, rounded once to `dtype`; in its storage or as floats.
        dtype: element type of the output; integers have tolerance 0.
        terms: sum of absolute terms behind every element, or None.
        factor: how much worse than the worst sound run is still sound.

    Returns:
        Tolerances; 0 where the oracle is not finite (the value must match), infinity where a
        sound run and the oracle disagree on being finite (float32 itself overflowed).
    """
    if not dtype.is_float:
        return np.zeros(oracle.shape)
    y = np.asarray(oracle, dtype=np.float64)
    finite = np.isfinite(y)
    size = np.abs(np.where(finite, y, 0.0))
    excess = np.zeros(y.shape)
    disagree = np.zeros(y.shape, dtype=bool)
    for run in sound:
        value = decode(run, dtype).astype(np.float64)
        disagree |= _kind(value) != _kind(y)
        with np.errstate(invalid="ignore"):
            error = np.abs(value - y) - dtype.unit_roundoff * size
        np.maximum(excess, np.where(np.isfinite(error), error, 0.0), out=excess)
    budget = (2 * dtype.unit_roundoff + factor * 4 * EPS32) * size
    budget += factor * smooth(excess) + smallest_step(dtype)
    if terms is not None:
        budget += EPS32 * np.nan_to_num(np.abs(terms), posinf=0.0)
    budget[~finite] = 0.0
    budget[disagree] = np.inf
    return budget


def norm_tolerance(
    oracle: Array,
    sound: Sequence[Array],
    dtype: Dtype,
    terms: Array | None = None,
    factor: float = FACTOR,
) -> float:
    """Tolerance of the Euclidean norm of the whole error, over elements finite everywhere.

    Elementwise budgets allow the rare worst case everywhere; the norm does not: an error that is
    near its limit in *every* element (hidden lower precision) fails here.
    """
    if not dtype.is_float:
        return 0.0
    y = np.asarray(oracle, dtype=np.float64)
    good = np.isfinite(y)
    runs = [decode(run, dtype).astype(np.float64) for run in sound]
    for run in runs:
        good &= np.isfinite(run)
    size = _norm(y[good])
    worst = max((_norm(run[good] - y[good]) for run in runs), default=dtype.unit_roundoff * size)
    budget = factor * (worst + 4 * EPS32 * size) + smallest_step(dtype) * np.sqrt(y.size)
    if terms is not None:
        budget += EPS32 * _norm(np.asarray(terms, dtype=np.float64)[good])
    return float(budget)


def distribution_usable(oracle: Array, float32_run: Array, limit: float = 0.01) -> bool:
    """Whether float32 can represent the computation on these inputs at all.

    False when the float32 run is off by more than `limit` in norm, or in more than `limit` of the
    elements (a few elements may cross zero, where relative errors are large). Underflow is not
    counted: values below the smallest normal float32 may become zero.
    """
    y = np.asarray(oracle)
    run = np.asarray(float32_run)
    if y.dtype.kind in "iub":
        return not y.size or int(np.count_nonzero(run != y)) <= limit * y.size
    same = _kind(y) == _kind(run)
    good = same & np.isfinite(y)
    error = np.abs(run[good].astype(np.float64) - y[good])
    underflow = smallest_step(Dtype.F32)
    off = int((~same).sum()) + int((error > limit * np.abs(y[good]) + underflow).sum())
    return off <= limit * y.size and _norm(error) <= limit * _norm(y[good].astype(np.float64))


def smooth(error: Float64) -> Float64:
    """Least over the axes of the greatest along each axis: lines share a scale.

    Axes with fewer than 32 elements give no line of their own unless there is nothing longer;
    then trailing axes are joined until they hold 32. One axis: windows of 256.
    """
    shape = error.shape
    packed = error.reshape([n for n in shape if n != 1])
    if packed.size == 0 or packed.ndim == 0:
        return error.copy()
    if packed.ndim == 1:
        return _windows(packed).reshape(shape)
    long: list[int] = [axis for axis, n in enumerate(packed.shape) if n >= _LINE]
    if not long:
        count, first = 1, packed.ndim
        while first > 0 and count < _LINE:
            first -= 1
            count *= packed.shape[first]
        joined = packed.max(axis=tuple(range(first, packed.ndim)), keepdims=True)
        return np.broadcast_to(joined, packed.shape).reshape(shape)
    result = np.broadcast_to(packed.max(axis=long[0], keepdims=True), packed.shape)
    for axis in long[1:]:
        result = np.minimum(result, packed.max(axis=axis, keepdims=True))
    return result.reshape(shape)


def _windows(error: Float64) -> Float64:
    """Greatest in each run of 256; a short last run joins the one before it."""
    starts = np.arange(0, max(error.size - _LINE, 1), _WINDOW)
    lengths = np.diff(np.append(starts, error.size))
    return np.repeat(np.maximum.reduceat(error, starts), lengths)


def _kind(values: Array) -> NDArray[np.int8]:
    """0 finite, 1 +infinity, -1 -infinity, 2 NaN."""
    kind = np.zeros(values.shape, dtype=np.int8)
    if not np.isfinite(values).all():
        kind[np.isposinf(values)] = 1
        kind[np.isneginf(values)] = -1
        kind[np.isnan(values)] = 2
    return kind


def _norm(values: Float64) -> float:
    """Euclidean norm that does not overflow."""
    top = float(np.max(np.abs(values), initial=0.0))
    return top * float(np.sqrt(np.sum(np.square(values / top)))) if top > 0 else 0.0
