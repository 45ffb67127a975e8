"""What kind of wrong: where the wrong elements lie, and how their values relate to the right ones.

The text helps whoever mends the kernel: a wrong tail points to a loop bound, every eighth element
to a vector lane, a constant scale to a forgotten factor.
"""

import numpy as np
from numpy.typing import NDArray

from kernelwright.numerics.formats import Array

_SAMPLE = 1 << 20
Mask = NDArray[np.bool_]


def diagnose(
    got: Array, expected: Array, wrong: Mask, unwritten: Mask, shape: tuple[int, ...]
) -> str:
    """One line: the place and the nature of the error.

    Args:
        got: decoded values, flat.
        expected: oracle values, flat.
        wrong: which elements are wrong, flat; at least one.
        unwritten: which of them still hold the poison, flat.
        shape: shape of the output.
    """
    return f"{_where(wrong, shape)}: {_what(got, expected, wrong, unwritten)}"


def _what(got: Array, expected: Array, wrong: Mask, unwritten: Mask) -> str:
    """How wrong values relate to the right ones."""
    count = int(wrong.sum())
    left = int(unwritten.sum())
    if left == count:
        return "never written (they still hold the poison)"
    if left:
        return f"{left} of them never written (they still hold the poison)"
    at = np.flatnonzero(wrong)[:_SAMPLE]
    a, y = got[at].astype(np.float64), expected[at].astype(np.float64)
    if np.isnan(a).all():
        return "NaN"
    if np.isinf(a).all():
        return "infinite"
    if not np.isfinite(a).all():
        bad = int((~np.isfinite(a)).sum())
        return f"{bad} of {at.size} not finite"
    if (a == 0).all():
        return "all zeros"
    if at.size > 1 and (a == a[0]).all():
        return f"all equal to {a[0]:.6g}"
    return _relation(a, y)


def _relation(a: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    """Sign, scale, offset, displacement, or nothing that can be named."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = a / y
        ratio = ratio[np.isfinite(ratio) & (np.abs(y) > 1e-3 * np.nanmedian(np.abs(y)))]
        shift = a - y
        if np.allclose(a, -y, rtol=1e-2):
            return "the sign is flipped"
        if a.size > 3 and ratio.size > 3 and np.ptp(ratio) <= 0.02 * abs(np.median(ratio)):
            return f"scaled by {np.median(ratio):.6g}"
        if a.size > 3 and np.ptp(shift) <= 0.02 * abs(np.median(shift)):
            return f"shifted by {np.median(shift):.6g}"
        if a.size > 3 and np.allclose(np.sort(a), np.sort(y), rtol=1e-2):
            return "the right values in the wrong places"
        relative = np.abs(shift) / np.maximum(np.abs(y), 1e-300)
    return f"off by {np.median(relative):.3g} of the value in the median"


def _where(wrong: Mask, shape: tuple[int, ...]) -> str:
    """Where wrong elements lie: all, one, tail, rows, a tile, every k-th, or scattered."""
    total, count = wrong.size, int(wrong.sum())
    if count == total:
        return "every element"
    at = np.flatnonzero(wrong)
    if at[0] == total - count:
        return f"a wrong tail, the last {count} of {total} elements"
    if count == 1:
        return "a single element"
    if len(shape) > 1:
        found = _lines(wrong.reshape(shape))
        if found:
            return found
    stride = int(np.gcd.reduce(np.diff(at)))
    if stride > 1 and count >= 3 and count >= 0.5 * (total // stride):
        return f"every {stride}th element, from {at[0]}"
    if at[-1] - at[0] + 1 == count:
        return f"elements {at[0]} to {at[-1]}, a run of {count}"
    return f"scattered, {100.0 * count / total:.3g} % of the elements"


def _lines(wrong: NDArray[np.bool_]) -> str:
    """Whole rows or columns, column tails, tiles and strided columns of an array."""
    hit: list[NDArray[np.intp]] = []
    for axis in range(wrong.ndim):
        others = tuple(i for i in range(wrong.ndim) if i != axis)
        hit.append(np.flatnonzero(wrong.any(axis=others)))
    dense = int(np.prod([h.size for h in hit])) == int(wrong.sum())
    partial = [axis for axis in range(wrong.ndim) if hit[axis].size < wrong.shape[axis]]
    if len(partial) == 1:
        return _one_axis(hit[partial[0]], wrong.shape[partial[0]], partial[0], wrong.ndim)
    if partial and dense and all(np.ptp(h) + 1 == h.size for h in hit):
        ranges = " x ".join(f"[{h[0]}, {h[-1]}]" for h in hit)
        return f"a tile, indices {ranges}"
    for axis in partial:
        if hit[axis].size == 1:
            return f"only in {_name(axis, wrong.ndim)} {hit[axis][0]}"
    return ""


def _one_axis(hit: NDArray[np.intp], extent: int, axis: int, ndim: int) -> str:
    """Wrong indices along the only axis that tells right from wrong."""
    name = _name(axis, ndim)
    if hit.size == 1:
        return f"only in {name} {hit[0]}"
    if hit[0] == extent - hit.size:
        return f"a wrong tail, the last {hit.size} of {extent} {name}s"
    stride = int(np.gcd.reduce(np.diff(hit)))
    if stride > 1 and hit.size >= 3:
        return f"every {stride}th {name}, from {hit[0]}"
    if hit[-1] - hit[0] + 1 == hit.size:
        return f"{name}s {hit[0]} to {hit[-1]}"
    return f"{hit.size} of {extent} {name}s"


def _name(axis: int, ndim: int) -> str:
    if axis == ndim - 1:
        return "column"
    return "row" if ndim == 2 else f"index of axis {axis}"
