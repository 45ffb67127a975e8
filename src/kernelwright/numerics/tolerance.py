"""The error budget: how far from the oracle a sound implementation may be.

A sound implementation computes with float32 inside, in some order, and rounds once to the output's
dtype. With `y` the float64 oracle, `u` the unit roundoff of the output and `eps` = 2^-23:

    tolerance = 2 u |y|  +  (1 + o) (factor (e + 4 eps |y|)  +  eps terms)  +  smallest step

`e` is the error of actual sound runs before their outputs are rounded, beyond one rounding to
float32, the worst over several summation orders, smoothed over lines of the array, because one
element's error is a random draw while its line shares a scale. `terms` is the sum of the absolute
terms of a reduction or scan, where the problem states it. `o` = 2^-20 is for the rounding of
the oracle itself. `docs/numerics.md` derives the constants.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernelwright.model import Dtype
from kernelwright.numerics.formats import Array, Float64, decode, largest, smallest_step

EPS32 = 2.0**-23
ORACLE_SHARE = 2.0**-20
"""What the float64 oracle may err, as a share of what a kernel may: 2^-29 to first order."""
FACTOR = 4.0
LINE = 32
"""A line of fewer elements is too small a sample of the error."""
WINDOW = 256
ROUNDING = 1.5
"""In unit roundoffs of the output: rounding to nearest gives an error of 0.35 to 0.4 in norm,
truncation 1.2."""
UNUSABLE = 0.01
"""How far off float32 itself may be before a distribution is refused."""
_BLOCK = 1 << 16


@dataclass(frozen=True, slots=True)
class Budget:
    """What is right for one output."""

    tolerance: Float64
    """Absolute, per element, in the oracle's shape: 0 where the oracle is not finite (the value
    must match), infinity where a sound run disagrees with it about being finite."""
    norm_tolerance: float
    """Of the Euclidean norm of the whole error."""
    usable: bool
    """Whether float32 stands these inputs at all."""


def budget(
    oracle: Array,
    sound: Sequence[Array],
    dtype: Dtype,
    terms: Array | None = None,
    factor: float = FACTOR,
) -> Budget:
    """The whole budget of one output, in one pass over the data.

    Args:
        oracle: float64 values, or integers (tolerance 0).
        sound: outputs of sound runs as they were computed, in float32 (float64 for f64), or in
            `dtype`'s storage. In a narrow storage the rounding of the output hides their error
            wherever it is larger, which is nearly everywhere.
            The first is the one that decides whether the distribution is usable.
        dtype: element type of the output.
        terms: sum of absolute terms behind every element, or None.
        factor: how much worse than the worst sound run is still sound.
    """
    if not dtype.is_float:
        usable = all(distribution_usable(oracle, run) for run in sound[:1])
        return Budget(np.zeros(oracle.shape), 0.0, usable)
    y = np.asarray(oracle, dtype=np.float64)
    survey = _survey(y.reshape(-1), [run.reshape(-1) for run in sound], dtype)
    allowed = smooth(survey.excess.reshape(y.shape)).reshape(-1)
    flat, stated = y.reshape(-1), None if terms is None else np.abs(terms).reshape(-1)
    factor *= 1 + ORACLE_SHARE
    stated_eps = (1 + ORACLE_SHARE) * EPS32
    result = np.empty(flat.size)
    for part in _parts(flat.size):
        size = np.abs(flat[part])
        result[part] = (2 * dtype.unit_roundoff + factor * 4 * EPS32) * size
        result[part] += factor * allowed[part] + smallest_step(dtype)
        if stated is not None:
            result[part] += stated_eps * np.nan_to_num(stated[part], posinf=0.0)
    if survey.special.size:
        at = survey.special
        result[at] = np.where(
            survey.disagree, np.inf, np.where(np.isfinite(flat[at]), result[at], 0)
        )
    norm = factor * (survey.worst_norm + 4 * EPS32 * survey.norm)
    norm += survey.rounding * survey.norm
    norm += smallest_step(dtype) * float(np.sqrt(flat.size))
    if stated is not None:
        norm += stated_eps * _norm(np.nan_to_num(stated.astype(np.float64), posinf=0.0))
    return Budget(result.reshape(y.shape), norm, survey.usable)


def tolerance(
    oracle: Array,
    sound: Sequence[Array],
    dtype: Dtype,
    terms: Array | None = None,
    factor: float = FACTOR,
) -> Float64:
    """Absolute tolerance of every element, in the oracle's shape; see `Budget` and `budget`."""
    return budget(oracle, sound, dtype, terms, factor).tolerance


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
    return budget(oracle, sound, dtype, terms, factor).norm_tolerance


def distribution_usable(oracle: Array, float32_run: Array) -> bool:
    """Whether float32 can represent the computation on these inputs at all.

    False when the float32 run is off by more than 1 % in norm, or in more than 1 % of the
    elements (a few elements may cross zero, where relative errors are large). Underflow is not
    counted: what is smaller than the smallest normal float32 may become zero.
    """
    y, run = np.asarray(oracle).reshape(-1), np.asarray(float32_run).reshape(-1)
    if y.dtype.kind in "iub":
        return int(np.count_nonzero(run != y)) <= UNUSABLE * y.size
    return _survey(y.astype(np.float64), [run], Dtype.F32).usable


@dataclass(frozen=True, slots=True)
class _Survey:
    excess: Float64
    """Worst error of the runs beyond one output rounding; 0 where not finite."""
    special: NDArray[np.intp]
    """Elements where the oracle or a run is not finite."""
    disagree: NDArray[np.bool_]
    """For each of these, whether a run and the oracle are of different kinds."""
    norm: float
    """Of the oracle, where everything is finite."""
    worst_norm: float
    """Of the worst run's error there."""
    rounding: float
    """What rounding to the output's dtype adds to the norm, relative, where runs are without it."""
    usable: bool


def _survey(y: Float64, runs: Sequence[Array], dtype: Dtype) -> _Survey:
    """One pass in blocks that stay in the cache; `y` and runs are flat."""
    excess = np.zeros(y.size)
    special: list[NDArray[np.intp]] = []
    disagree: list[NDArray[np.bool_]] = []
    squares, errors, off = 0.0, np.zeros(max(len(runs), 1)), 0
    top = float(np.max(np.abs(y), initial=0.0, where=np.isfinite(y))) or 1.0
    wide = [run.dtype.itemsize >= 4 for run in runs]
    units = [min(dtype.unit_roundoff, EPS32 / 2) if w else dtype.unit_roundoff for w in wide]
    narrow = dtype.unit_roundoff > EPS32 and any(wide)
    for part in _parts(y.size):
        exact = y[part]
        values = [_overflown(decode(run[part], dtype).astype(np.float64), dtype) for run in runs]
        good = np.isfinite(exact)
        for value in values:
            good &= np.isfinite(value)
        whole = bool(good.all())
        if not whole:
            at = np.flatnonzero(~good)
            kind = _kind(exact[at])
            other = np.zeros(at.size, dtype=bool)
            for number, value in enumerate(values):
                differs = _kind(value[at]) != kind
                off += int(np.count_nonzero(differs)) if number == 0 else 0
                other |= differs
            special.append(at + part.start)
            disagree.append(other)
            exact = np.where(good, exact, 0.0)
        size = np.abs(exact)
        for number, value in enumerate(values):
            error = np.abs((value if whole else np.where(good, value, 0.0)) - exact)
            if number == 0:
                off += int(np.count_nonzero(error > UNUSABLE * size + smallest_step(dtype)))
            errors[number] += _squares(error, top)
            error -= units[number] * size
            np.maximum(excess[part], error, out=excess[part])
        squares += _squares(exact, top)
    norm = top * float(np.sqrt(squares))
    norms = top * np.sqrt(errors)
    worst = float(norms.max()) if runs else dtype.unit_roundoff * norm
    usable = off <= UNUSABLE * y.size and float(norms[0]) <= UNUSABLE * norm
    nothing = np.zeros(0, dtype=np.intp)
    return _Survey(
        excess,
        np.concatenate(special) if special else nothing,
        np.concatenate(disagree) if disagree else nothing.astype(bool),
        norm,
        worst,
        ROUNDING * dtype.unit_roundoff if narrow else 0.0,
        usable,
    )


def _overflown(values: Float64, dtype: Dtype) -> Float64:
    """What a narrower dtype cannot hold becomes infinite, as its rounding makes it."""
    if dtype is not Dtype.F16 and dtype is not Dtype.BF16:
        return values
    limit = largest(dtype) * (1 + dtype.unit_roundoff / 2)
    beyond = np.abs(values) > limit
    return np.where(beyond, np.copysign(np.inf, values), values) if beyond.any() else values


def _parts(size: int) -> list[slice]:
    return [slice(start, min(start + _BLOCK, size)) for start in range(0, size, _BLOCK)]


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
    long: list[int] = [axis for axis, n in enumerate(packed.shape) if n >= LINE]
    if not long:
        count, first = 1, packed.ndim
        while first > 0 and count < LINE:
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
    starts = np.arange(0, max(error.size - LINE, 1), WINDOW)
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


def _squares(values: Float64, unit: float) -> float:
    """Sum of squares in a unit that keeps them from overflowing; no BLAS, hence no thread pool."""
    scaled = values / unit
    scaled *= scaled
    return float(scaled.sum())


def _norm(values: Float64) -> float:
    """Euclidean norm that does not overflow."""
    top = float(np.max(np.abs(values), initial=0.0))
    return top * float(np.sqrt(np.sum(np.square(values / top)))) if top > 0 else 0.0
