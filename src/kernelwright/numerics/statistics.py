"""Medians with distribution-free intervals, and rules for when to stop measuring.

Times on a shared machine are skewed, drift and jump; nothing here assumes a distribution. The
interval of a median comes from order statistics (Conover, "Practical Nonparametric Statistics",
section 3.2): the number of samples below the true median is binomial(n, 1/2).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from math import comb

import numpy as np

from kernelwright.model import Estimate

CONFIDENCE = 0.95


def median_estimate(samples: Sequence[float]) -> Estimate:
    """Median with a 95 % interval; below 6 samples the interval is their whole range.

    Raises:
        ValueError: no sample.
    """
    if not samples:
        raise ValueError("a median needs at least one sample")
    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    rank = _rank(len(ordered))
    middle = float(np.median(ordered))
    return Estimate(middle, float(ordered[rank]), float(ordered[-1 - rank]))


def paired_ratio(a_us: Sequence[float], b_us: Sequence[float]) -> Estimate:
    """Median of `a / b` over pairs measured in the same rounds, with a 95 % interval.

    With `a` a baseline and `b` a candidate this is the candidate's speed-up.

    Raises:
        ValueError: the lengths differ, or there is no pair.
    """
    if len(a_us) != len(b_us):
        raise ValueError(f"{len(a_us)} and {len(b_us)} samples are not pairs")
    return median_estimate([a / b for a, b in zip(a_us, b_us, strict=True)])


@lru_cache(maxsize=4096)
def _rank(n: int) -> int:
    """Greatest r such that the r-th from both ends (from 0) covers the median at 95 %."""
    tail, rank = 1, 0
    # P(outside) = 2 * sum_{i <= r} C(n, i) / 2^n
    while rank < n // 2:
        tail += comb(n, rank + 1)
        if 2 * tail / 2**n > 1 - CONFIDENCE:
            break
        rank += 1
    return rank


def half_width(estimate: Estimate) -> float:
    """The wider side of the interval, relative to the median."""
    return max(estimate.high - estimate.median, estimate.median - estimate.low) / estimate.median


class Decision(StrEnum):
    """What a sequential rule says after another round."""

    CONTINUE = "continue"
    STOP = "stop"
    HOPELESS = "hopeless"


@dataclass(frozen=True, slots=True)
class ScreenRule:
    """When to stop ranking a candidate against the champion."""

    first: int = 6
    """Rounds before anything is decided; 6 pairs are the fewest that give a 95 % interval."""
    most: int = 30
    margin: float = 0.02
    """Slower by more than this, surely, is hopeless."""

    def decide(self, speedup: Sequence[float]) -> Decision:
        """Look at champion over candidate, one ratio a round.

        The interval is looked at repeatedly, so it must clear 1 by a margin, not merely exclude it.
        """
        if len(speedup) < self.first:
            return Decision.CONTINUE
        if median_estimate(speedup).high < 1.0 - self.margin:
            return Decision.HOPELESS
        return Decision.STOP if len(speedup) >= self.most else Decision.CONTINUE


@dataclass(frozen=True, slots=True)
class AcceptRule:
    """When acceptance has measured enough."""

    least: int = 30
    most: int = 400
    target: float = 0.01
    """Relative half-width of the interval of the median ratio."""

    def precise(self, speedup: Sequence[float]) -> bool:
        """Whether enough rounds were made and the interval is within the target."""
        if len(speedup) < self.least:
            return False
        return half_width(median_estimate(speedup)) <= self.target

    def done(self, speedup: Sequence[float]) -> bool:
        """Whether to stop: precise, or as many rounds as allowed."""
        return len(speedup) >= self.most or self.precise(speedup)
