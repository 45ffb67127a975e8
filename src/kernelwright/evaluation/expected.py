"""Expected values of one secret input set, and what came of checking a call against them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernelwright.evaluation.layout import Bytes, Place
from kernelwright.model import Dtype, Reason, Workload
from kernelwright.numerics import POISONS, Band, Comparison, compare

Equivalence = Callable[[], dict[str, Comparison]]
"""Asks the problem's own notion of equivalence; answers for the outputs that it judges."""


@dataclass(frozen=True, slots=True)
class Expected:
    """One output: the oracle's values and how far from them is right."""

    name: str
    dtype: Dtype
    oracle: NDArray[Any]
    """float64, or int64 for integers; in the output's shape."""
    tolerance: NDArray[Any]
    norm_tolerance: float
    band: Band

    def wrong_patterns(self) -> list[int]:
        """Poisons that are right for no element that is judged; all, where none is such."""
        found = [byte for byte in POISONS if not self._accepts_anywhere(byte)]
        return found or list(POISONS)

    def _accepts_anywhere(self, byte: int) -> bool:
        word = np.full(self.dtype.itemsize, byte, np.uint8)
        return self.band.accepts_anywhere(word)


@dataclass(frozen=True, slots=True)
class Case:
    """One workload with one secret input set."""

    workload: Workload
    inputs: tuple[Bytes, ...]
    """The judge's own copies, in the order of the prototype."""
    expected: tuple[Expected, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a call was wrong."""

    reason: Reason
    diagnostic: str
    partial: bool = False
    """Some elements were right: the place of the wrong ones tells more."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of checking one call completely."""

    fault: Fault | None
    error: float
    """Largest error in units of the tolerance."""


def check_fully(
    case: Case, places: Sequence[Place], arena: Bytes, equivalence: Equivalence | None
) -> Checked:
    """Compare every element of every output, elementwise and in norm.

    Args:
        case: what was computed.
        places: where the outputs are.
        arena: view of the outputs' arena.
        equivalence: asked when plain comparison fails; None when the problem has none.
    """
    results = {
        expected.name: compare(
            place.array_in(arena),
            expected.oracle,
            expected.tolerance,
            expected.dtype,
            expected.norm_tolerance,
        )
        for expected, place in zip(case.expected, places, strict=True)
    }
    if equivalence is not None and not all(result.ok for result in results.values()):
        results |= equivalence()
    return checked(results, case.workload)


def checked(results: Mapping[str, Comparison], workload: Workload) -> Checked:
    """What comparisons of all outputs come to.

    Args:
        results: by output.
        workload: what was computed.
    """
    error = max((result.max_error for result in results.values()), default=0.0)
    for name, result in results.items():
        if not result.ok:
            return Checked(_fault(name, result, workload), error)
    return Checked(None, error)


def check_fast(case: Case, places: Sequence[Place], arena: Bytes) -> bool:
    """Whether every element is inside its band; False needs a full check before it is a verdict."""
    pairs = zip(case.expected, places, strict=True)
    return all(expected.band.hold(place.array_in(arena)) for expected, place in pairs)


def check_sample(
    case: Case, places: Sequence[Place], arena: Bytes, chosen: Sequence[list[slice]]
) -> bool:
    """Whether the chosen parts are inside their bands."""
    triples = zip(case.expected, places, chosen, strict=True)
    return all(
        expected.band.hold_in(place.array_in(arena), parts) for expected, place, parts in triples
    )


def _fault(name: str, result: Comparison, workload: Workload) -> Fault:
    unwritten = 2 * result.unwritten > result.wrong_count > 0
    reason = Reason.NOT_WRITTEN if unwritten else Reason.WRONG_RESULT
    partial = result.wrong_count < 0.9 * result.total
    return Fault(reason, f"{result.describe(name)}; on {describe(workload)}", partial)


def describe(workload: Workload) -> str:
    """The input that something happened under. Held-out sizes may be named: they are used once."""
    scalars = ", ".join(f"{name}={value!r}" for name, value in workload.scalars.items())
    text = f"{workload.label()} inputs" + (f" ({scalars})" if scalars else "")
    return f"the held-out {text}" if workload.tier == "heldout" else text
