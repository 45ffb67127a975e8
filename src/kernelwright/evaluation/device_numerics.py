"""Budgets and comparison of `numerics` on tensors, wherever they lie: for outputs on a GPU.

The same definitions as `numerics.tolerance` and `numerics.compare` with the same constants, in
chunks, so that float64 intermediates stay small beside the outputs. Sums of squares are added up in
another order; nothing else differs.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kernelwright.model import Dtype
from kernelwright.numerics import EPS32, FACTOR, POISONS, Comparison, compare, largest
from kernelwright.numerics.formats import smallest_step
from kernelwright.numerics.tolerance import LINE, ORACLE_SHARE, ROUNDING, UNUSABLE, WINDOW
from kernelwright.problems import to_storage

_CHUNK = 1 << 26
"""Elements whose float64 intermediates (half a GiB each) are held at a time."""


@dataclass(frozen=True, slots=True)
class DeviceBudget:
    """What `numerics.Budget` says beside the tolerances, which are written to their place."""

    norm_tolerance: float
    usable: bool


def write_budget(
    place: Tensor,
    oracle: Tensor,
    sound: Sequence[Tensor],
    dtype: Dtype,
    terms: Tensor | None = None,
) -> DeviceBudget:
    """`numerics.budget`, its tolerances rounded into `place`.

    Args:
        place: of as many elements as `oracle`, in float32 (float64 for f64); flat.
        oracle: float64 values, or int64.
        sound: outputs of sound runs as computed, in the oracle's shape.
        dtype: element type of the output.
        terms: sum of absolute terms behind every element, or None.
    """
    y = oracle.reshape(-1)
    runs = [run.reshape(-1) for run in sound]
    if not dtype.is_float:
        place.zero_()
        off = sum(int((runs[0][part] != y[part]).sum()) for part in _parts(y.numel()))
        return DeviceBudget(0.0, off <= UNUSABLE * y.numel())
    survey = _survey(y, runs, dtype)
    allowed = smooth(survey.excess.reshape(oracle.shape)).reshape(-1)
    stated = None if terms is None else terms.reshape(-1)
    factor, stated_eps = FACTOR * (1 + ORACLE_SHARE), (1 + ORACLE_SHARE) * EPS32
    for part in _parts(y.numel()):
        result = (2 * dtype.unit_roundoff + factor * 4 * EPS32) * y[part].abs()
        result += factor * allowed[part] + smallest_step(dtype)
        if stated is not None:
            result += stated_eps * _stated(stated[part])
        place[part] = result
    at = survey.special
    if at.numel():
        kept = torch.where(y[at].isfinite(), place[at], 0)
        place[at] = torch.where(survey.disagree, torch.inf, kept)
    norm = factor * (survey.worst_norm + 4 * EPS32 * survey.norm) + survey.rounding * survey.norm
    norm += smallest_step(dtype) * math.sqrt(y.numel())
    if stated is not None:
        norm += stated_eps * _norm(stated)
    return DeviceBudget(norm, survey.usable)


@dataclass(frozen=True, slots=True)
class _Survey:
    """As in `numerics.tolerance`."""

    excess: Tensor
    special: Tensor
    disagree: Tensor
    norm: float
    worst_norm: float
    rounding: float
    usable: bool


def _survey(y: Tensor, runs: Sequence[Tensor], dtype: Dtype) -> _Survey:
    excess = torch.zeros_like(y)
    special, disagree = [y.new_zeros(0, dtype=torch.int64)], [y.new_zeros(0, dtype=torch.bool)]
    squares, off = 0.0, 0
    errors = [0.0] * max(len(runs), 1)
    top = _greatest(y) or 1.0
    wide = [run.element_size() >= 4 for run in runs]
    units = [min(dtype.unit_roundoff, EPS32 / 2) if w else dtype.unit_roundoff for w in wide]
    for part in _parts(y.numel()):
        exact = y[part]
        values = [_overflown(run[part].double(), dtype) for run in runs]
        good = exact.isfinite()
        for value in values:
            good = good & value.isfinite()
        at = (~good).nonzero().reshape(-1)
        if at.numel():
            kinds = [_kind(value[at]) != _kind(exact[at]) for value in values]
            off += int(kinds[0].sum()) if kinds else 0
            special.append(at + part.start)
            disagree.append(torch.stack(kinds).any(0))
            exact = torch.where(good, exact, 0.0)
            values = [torch.where(good, value, 0.0) for value in values]
        size = exact.abs()
        for number, value in enumerate(values):
            error = (value - exact).abs()
            if number == 0:
                off += int((error > UNUSABLE * size + smallest_step(dtype)).sum())
            errors[number] += _squares(error, top)
            error -= units[number] * size
            torch.maximum(excess[part], error, out=excess[part])
        squares += _squares(exact, top)
    norm, norms = top * math.sqrt(squares), [top * math.sqrt(error) for error in errors]
    narrow = dtype.unit_roundoff > EPS32 and any(wide)
    return _Survey(
        excess,
        torch.cat(special),
        torch.cat(disagree),
        norm,
        max(norms) if runs else dtype.unit_roundoff * norm,
        ROUNDING * dtype.unit_roundoff if narrow else 0.0,
        off <= UNUSABLE * y.numel() and norms[0] <= UNUSABLE * norm,
    )


def smooth(error: Tensor) -> Tensor:
    """`numerics.tolerance.smooth`: least over the axes of the greatest along each."""
    shape = error.shape
    packed = error.reshape([n for n in shape if n != 1])
    if packed.numel() == 0 or packed.ndim == 0:
        return error.clone()
    if packed.ndim == 1:
        return _windows(packed).reshape(shape)
    long = [axis for axis, n in enumerate(packed.shape) if n >= LINE]
    if not long:
        count, first = 1, packed.ndim
        while first > 0 and count < LINE:
            first -= 1
            count *= packed.shape[first]
        joined = packed.amax(list(range(first, packed.ndim)), keepdim=True)
        return joined.expand(packed.shape).reshape(shape)
    result = packed.amax(long[0], keepdim=True).expand(packed.shape)
    for axis in long[1:]:
        result = torch.minimum(result, packed.amax(axis, keepdim=True))
    return result.reshape(shape)


def _windows(error: Tensor) -> Tensor:
    """Greatest in each run of 256; a short last run joins the one before it."""
    whole = max(-(-max(error.numel() - LINE, 1) // WINDOW) - 1, 0) * WINDOW
    result = torch.empty_like(error)
    result[whole:] = error[whole:].amax()
    if whole:
        runs = error[:whole].reshape(-1, WINDOW)
        result[:whole].reshape(-1, WINDOW).copy_(runs.amax(-1, keepdim=True).expand(runs.shape))
    return result


def compared(
    actual: Tensor,
    oracle: Tensor,
    tolerance: Tensor,
    dtype: Dtype,
    norm_tolerance: float,
) -> Comparison:
    """`numerics.compare`; where something is wrong, that function itself says what.

    Args:
        actual: elements in the output's dtype, flat.
        oracle: float64 or int64, in the output's shape.
        tolerance: flat.
        dtype: of the output.
        norm_tolerance: limit of the Euclidean norm of the error; 0: none.
    """
    worst, wrong, norm_error = errors_of(actual, oracle, tolerance, dtype, norm_tolerance)
    if not wrong and norm_error <= 1:
        return Comparison(True, worst, total=actual.numel(), norm_error=norm_error)
    host = oracle.cpu().numpy(), tolerance.cpu().numpy()
    return compare(to_storage(actual.cpu()), *host, dtype, norm_tolerance)


def errors_of(
    actual: Tensor, oracle: Tensor, tolerance: Tensor, dtype: Dtype, norm_tolerance: float
) -> tuple[float, int, float]:
    """Greatest error in units of its tolerance, how many exceed it, and the norm in its own."""
    expected = oracle.reshape(-1)
    sums: list[Tensor] = [expected.new_zeros(3, dtype=torch.float64)]
    for part in _parts(actual.numel()):
        units, error = _units(actual[part], expected[part], tolerance[part], dtype)
        sums.append(torch.stack([units.amax(), (units > 1).sum(), error.square().sum()]))
    found = torch.stack(sums).cpu()  # once for all chunks
    norm_error = math.sqrt(float(found[:, 2].sum())) / norm_tolerance if norm_tolerance else 0.0
    return float(found[:, 0].amax()), int(found[:, 1].sum()), norm_error


def _units(raw: Tensor, expected: Tensor, allowed: Tensor, dtype: Dtype) -> tuple[Tensor, Tensor]:
    """As in `numerics.compare`, both float64."""
    if not dtype.is_float:
        units = torch.where(raw != expected, torch.inf, 0.0).double()
        return units, torch.zeros_like(units)
    value = raw.double()
    error = (value - expected).abs()
    units = error / allowed
    equal = (value == expected) | (value.isnan() & expected.isnan()) | allowed.isinf()
    units = torch.where(units.isnan(), torch.inf, units).masked_fill_(equal, 0.0)
    return units, error.masked_fill_(equal | ~error.isfinite(), 0.0)


def wrong_patterns(
    oracle: Tensor, tolerance: Tensor, dtype: Dtype, storage: torch.dtype
) -> list[int]:
    """Poisons that are right for no element that is judged; all, where none is such.

    Args:
        oracle: expected values.
        tolerance: flat.
        dtype: of the output.
        storage: the same in torch.
    """
    words = [
        torch.full((dtype.itemsize,), byte, dtype=torch.uint8, device=oracle.device).view(storage)
        for byte in POISONS
    ]
    expected, right = oracle.reshape(-1), [False] * len(words)
    for part in _parts(expected.numel()):
        y, free = expected[part], tolerance[part].isinf()
        for number, word in enumerate(words):
            units, _ = _units(word, y, tolerance[part], dtype)
            nan = y.isnan() if bool(word.isnan()) else torch.zeros_like(free)
            right[number] |= bool(((units <= 1) & ~free | nan).any())
    return [byte for byte, found in zip(POISONS, right, strict=True) if not found] or list(POISONS)


def digest(parts: Sequence[Tensor], key: int) -> str:
    """A hash of bytes: sums of 64-bit words times secret ones, modulo 2^64.

    Universal (Dietzfelbinger et al., 1997), so that different bytes give the same hash in one of
    2^50 keys or fewer; not for those who know the key.

    Args:
        parts: bytes; each starts at a multiple of 8.
        key: secret.
    """
    total = 0
    for number, data in enumerate(parts):
        draw = torch.Generator(data.device).manual_seed((key + number) % (1 << 63))
        tail = torch.zeros(8, dtype=torch.uint8, device=data.device)
        rest = data.numel() % 8
        tail[:rest] = data[data.numel() - rest :]
        for words in (data[: data.numel() - rest].view(torch.int64), tail.view(torch.int64)):
            for part in _parts(words.numel()):
                size = (words[part].numel(),)
                factors = torch.randint(
                    -(1 << 62), 1 << 62, size, generator=draw, device=data.device
                )
                total += int((words[part] * (2 * factors + 1)).sum())
    return f"{total % (1 << 64):016x}"


def _overflown(values: Tensor, dtype: Dtype) -> Tensor:
    """What a narrower dtype cannot hold becomes infinite, as its rounding makes it."""
    if dtype is not Dtype.F16 and dtype is not Dtype.BF16:
        return values
    limit = largest(dtype) * (1 + dtype.unit_roundoff / 2)
    infinite = torch.full_like(values, torch.inf).copysign_(values)
    return torch.where(values.abs() > limit, infinite, values)


def _kind(values: Tensor) -> Tensor:
    """0 finite, 1 +infinity, -1 -infinity, 2 NaN."""
    kind = values.isposinf().to(torch.int8) - values.isneginf().to(torch.int8)
    return kind + 2 * values.isnan().to(torch.int8)


def _greatest(y: Tensor) -> float:
    """The greatest finite magnitude."""
    found = [
        torch.where(y[part].isfinite(), y[part], 0.0).abs().amax() for part in _parts(y.numel())
    ]
    return float(torch.stack(found).amax()) if found else 0.0


def _squares(values: Tensor, unit: float) -> float:
    """Sum of squares in a unit that keeps them from overflowing."""
    return float((values / unit).square_().sum())


def _stated(terms: Tensor) -> Tensor:
    return terms.double().abs().nan_to_num_(nan=0.0, posinf=0.0)


def _norm(terms: Tensor) -> float:
    """Euclidean norm of what is stated, without overflow."""
    parts = _parts(terms.numel())
    top = max((float(_stated(terms[part]).amax()) for part in parts), default=0.0)
    if top == 0:
        return 0.0
    return top * math.sqrt(
        sum(_squares(_stated(terms[part]), top) for part in _parts(terms.numel()))
    )


def _parts(size: int) -> Iterator[slice]:
    return (slice(start, min(start + _CHUNK, size)) for start in range(0, size, _CHUNK))
