"""Comparison of a candidate's bytes with the oracle's values."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernelwright.model import Dtype
from kernelwright.numerics.formats import Array, decode, storage
from kernelwright.numerics.patterns import diagnose

_BLOCK = 1 << 17
POISONS = (0xFF, 0x7B, 0xFB)
"""Bytes that outputs are filled with before a call: NaN, or huge in every dtype."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of comparing one output."""

    ok: bool
    max_error: float
    """Greatest error in units of its tolerance; at most 1 when every element is right."""
    wrong_count: int = 0
    total: int = 0
    index: tuple[int, ...] = ()
    """First wrong element."""
    expected: float = 0.0
    got: float = 0.0
    worst_index: tuple[int, ...] = ()
    norm_error: float = 0.0
    """Norm of the error in units of its tolerance."""
    unwritten: int = 0
    """Wrong elements that still hold the poison."""
    pattern: str = ""

    def describe(self, name: str) -> str:
        """What is wrong, for a person or a model: first index, values, count, pattern."""
        if self.ok:
            return f"{name} is right (largest error {self.max_error:.3g} of the tolerance)"
        if not self.wrong_count:
            return (
                f"{name}: every element is within its own tolerance, but the error as a whole "
                f"is {self.norm_error:.3g} times its tolerance in norm; precision was lost "
                "throughout (lower-precision accumulation?)"
            )
        place = ", ".join(map(str, self.index))
        return (
            f"{name}[{place}]: expected {self.expected:.9g}, got {self.got:.9g}; "
            f"{self.wrong_count} of {self.total} elements are wrong, "
            f"largest error {self.max_error:.3g} times the tolerance; {self.pattern}"
        )


def compare(
    actual: Array,
    oracle: Array,
    tolerance: Array,
    dtype: Dtype,
    norm_tolerance: float | None = None,
) -> Comparison:
    """Compare every element; integers must be equal, NaN and infinities must match.

    Args:
        actual: elements in `storage(dtype)`, or their bytes (uint8), of as many elements as
            `oracle`.
        oracle: expected values, float64 or integers; its shape is used for indices.
        tolerance: absolute, per element; infinity forgives anything.
        dtype: element type of `actual`.
        norm_tolerance: limit of the Euclidean norm of the error, or None.
    """
    raw = _as_storage(actual, dtype).reshape(-1)
    expected, allowed = oracle.reshape(-1), tolerance.reshape(-1)
    wrong = np.zeros(raw.size, dtype=bool)
    worst, worst_at, squares = 0.0, 0, 0.0
    for start in range(0, raw.size, _BLOCK):
        part = slice(start, min(start + _BLOCK, raw.size))
        units, error = _units(raw[part], expected[part], allowed[part], dtype)
        wrong[part] = units > 1.0
        squares += float(np.square(error).sum())  # no BLAS, hence no thread pool
        at = int(np.argmax(units))
        if units[at] > worst:
            worst, worst_at = float(units[at]), start + at
    count = int(wrong.sum())
    norm_error = float(np.sqrt(squares)) / norm_tolerance if norm_tolerance else 0.0
    shape = oracle.shape
    if count == 0:
        ok = norm_error <= 1.0
        return Comparison(ok, worst, total=raw.size, norm_error=norm_error)
    first = int(np.argmax(wrong))
    got = decode(raw, dtype)
    still = _poisoned(raw) & wrong
    return Comparison(
        ok=False,
        max_error=worst,
        wrong_count=count,
        total=raw.size,
        index=_index(first, shape),
        expected=float(expected[first]),
        got=float(got[first]) + 0.0,  # -0 reads as 0
        worst_index=_index(worst_at, shape),
        norm_error=norm_error,
        unwritten=int(still.sum()),
        pattern=diagnose(got, expected, wrong, still, shape),
    )


@dataclass(frozen=True, slots=True)
class Band:
    """Least and greatest value of every element, flat, in a type that compares fast."""

    low: Array
    high: Array
    dtype: Dtype
    nan: NDArray[np.bool_] | None = None
    """Where NaN is right; None: nowhere."""
    free: NDArray[np.bool_] | None = None
    """Where anything is right; None: nowhere."""

    def hold(self, actual: Array) -> bool:
        """Whether every element (storage form or bytes) is right."""
        raw = _as_storage(actual, self.dtype).reshape(-1)
        blocks = [slice(start, start + _BLOCK) for start in range(0, raw.size, _BLOCK)]
        return self.hold_in(raw, blocks)

    def accepts_anywhere(self, one: Array) -> bool:
        """Whether this one element (storage form or bytes) is right for any element.

        Where anything is right it does not count.
        """
        value = decode(_as_storage(one, self.dtype).reshape(-1), self.dtype)[0]
        if np.isnan(value):
            return self.nan is not None
        with np.errstate(invalid="ignore"):
            inside = self.low <= value
            inside &= value <= self.high
        if self.free is not None:
            inside &= ~self.free
        return bool(inside.any())

    def hold_in(self, actual: Array, parts: Sequence[slice]) -> bool:
        """Whether every element of these parts is right."""
        raw = _as_storage(actual, self.dtype).reshape(-1)
        for part in parts:
            value = decode(raw[part], self.dtype)
            inside = self.low[part] <= value
            inside &= value <= self.high[part]
            if inside.all():
                continue
            if self.nan is not None:
                inside |= self.nan[part] & np.isnan(value)
            if self.free is not None:
                inside |= self.free[part]
            if not inside.all():
                return False
        return True


def band(oracle: Array, tolerance: Array, dtype: Dtype) -> Band:
    """Precompute what `compare` accepts elementwise, for a fast check of many outputs."""
    expected, allowed = oracle.reshape(-1), tolerance.reshape(-1)
    if not dtype.is_float:
        exact = expected.astype(storage(dtype))
        return Band(exact, exact, dtype)
    kind = np.float64 if dtype is Dtype.F64 else np.float32
    nan, free = np.isnan(expected), np.isinf(allowed)
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = (expected - allowed).astype(kind), (expected + allowed).astype(kind)
    return Band(low, high, dtype, nan if nan.any() else None, free if free.any() else None)


def _units(
    raw: Array, expected: Array, allowed: Array, dtype: Dtype
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Error of each element in units of its tolerance, and finite absolute errors for the norm."""
    if not dtype.is_float:
        return np.where(raw != expected, np.inf, 0.0), np.zeros(raw.size)
    value = decode(raw, dtype).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        error = np.abs(value - expected)
        units = error / allowed
        equal = (value == expected) | (np.isnan(value) & np.isnan(expected)) | np.isinf(allowed)
        units[equal] = 0.0
        units[np.isnan(units)] = np.inf
        error[~np.isfinite(error) | equal] = 0.0
    return units, error


def _as_storage(actual: Array, dtype: Dtype) -> Array:
    """View bytes as elements."""
    kind = storage(dtype)
    return actual.view(kind) if actual.dtype == np.uint8 and kind != np.uint8 else actual


def _poisoned(raw: Array) -> NDArray[np.bool_]:
    """Elements whose bytes are all one of `POISONS`, what outputs are filled with before a call."""
    word = raw.view(f"u{raw.dtype.itemsize}")
    words = np.array([[byte] * raw.dtype.itemsize for byte in POISONS], np.uint8)
    return np.isin(word, words.view(word.dtype))


def _index(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(flat, shape)) if shape else ()
