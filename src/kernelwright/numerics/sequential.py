"""Tests of a median that stay valid however often they are looked at, and rules built on them.

Whoever looks after every round and stops when it suits him finds a difference sooner or later,
whatever interval he looks at, if that interval was made for a number of rounds fixed beforehand.
Here a sign test bets instead. If no more than half of the ratios lie above m, a bettor who puts his
money on "above" before every round can expect no gain, whatever he does; so his wealth passes
1/error with a chance of at most `error`, ever (Ville 1939). The bettor of this module averages over
all strengths of belief: his prior of the share above is Beta(3, 3), restricted to more than half.
All m that are not refuted make a confidence sequence for the median: Howard and Ramdas, "Sequential
estimation of quantiles with applications to A/B testing and best-arm identification", Bernoulli 28
(2022), section 3, on order statistics; restricted to one side, so that ties cost power only.
Nothing is assumed about the distribution of the ratios, nor that it stays the same; only that each
is above the median with a chance of at most a half, given those before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from math import comb

import numpy as np

from kernelwright.model import Estimate
from kernelwright.numerics.statistics import half_width

PRIOR, HASTY = 3, 1
"""Of the Beta distribution: 1 suits 6 to 30 rounds, 3 suits 30 to 200."""
ONE_SIDE = 0.025
"""Chance that a published interval ever lies above the truth, and that it ever lies below."""
FEWEST = 12
"""Rounds before anything is said: all of them agreeing prove a win at 1 % then."""


@lru_cache(maxsize=16384)
def evidence(agreeing: int, rounds: int, prior: int = PRIOR) -> float:
    """Wealth of a bettor who began with 1 and bet on the side that `agreeing` rounds were on.

    The integral of the likelihood ratio (2p)^k (2 - 2p)^(n - k) over the prior of p, exactly.

    Raises:
        ValueError: not `0 <= agreeing <= rounds`.
    """
    k, n, a = agreeing, rounds, prior
    if not 0 <= k <= n:
        raise ValueError(f"{k} of {n} rounds cannot agree")
    m = n + 2 * a - 1
    # P(Beta(a + k, a + n - k) > 1/2) is a binomial tail; 2^n and the 2^m below it nearly cancel
    tail = sum(comb(m, j) for j in range(a + k))
    scale = (2 * a - 1) * comb(2 * a - 2, a - 1)
    return scale * tail / (m * comb(m - 1, a + k - 1) * 2 ** (2 * a - 2))


@lru_cache(maxsize=4096)
def agreeing_needed(rounds: int, error: float) -> int:
    """The fewest rounds on one side that refute the other; more than `rounds` where none do."""
    low, high = rounds // 2, rounds + 1
    while low < high:
        middle = (low + high) // 2
        if evidence(middle, rounds) * error >= 1:
            high = middle
        else:
            low = middle + 1
    return low


def sequential_median(samples: Sequence[float], error: float = ONE_SIDE) -> Estimate:
    """Median with an interval that holds at every look at once, whatever ended the measuring.

    Args:
        samples: in the order of the rounds or any other.
        error: chance per side; 0.025 makes a 95 % interval.

    Raises:
        ValueError: too few samples for any interval (fewer than 10 at 95 %).
    """
    n = len(samples)
    needed = agreeing_needed(n, error)
    if n == 0 or needed > n:
        raise ValueError(f"{n} rounds are too few for an interval that holds at every look")
    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    return Estimate(
        float(np.median(ordered)), float(ordered[n - needed]), float(ordered[needed - 1])
    )


def sequential_ratio(a_us: Sequence[float], b_us: Sequence[float]) -> Estimate:
    """Median of `a / b` over pairs of the same rounds, with an interval that holds at every look.

    Raises:
        ValueError: the lengths differ, or there are too few pairs.
    """
    if len(a_us) != len(b_us):
        raise ValueError(f"{len(a_us)} and {len(b_us)} samples are not pairs")
    return sequential_median([a / b for a, b in zip(a_us, b_us, strict=True)])


def surely_above(
    samples: Sequence[float], threshold: float, error: float, prior: int = PRIOR
) -> bool:
    """Whether the median is proved to exceed a threshold, at an error over all looks."""
    above = sum(sample > threshold for sample in samples)
    return evidence(above, len(samples), prior) * error >= 1


def surely_below(
    samples: Sequence[float], threshold: float, error: float, prior: int = PRIOR
) -> bool:
    """Whether the median is proved to be less than a threshold, at an error over all looks."""
    return surely_above([-sample for sample in samples], -threshold, error, prior)


class Decision(StrEnum):
    """What a sequential rule says after another round."""

    CONTINUE = "continue"
    STOP = "stop"
    HOPELESS = "hopeless"
    CONFIRMED = "confirmed"


@dataclass(frozen=True, slots=True)
class ScreenRule:
    """When to stop ranking a candidate against the champion."""

    first: int = 6
    """Rounds before a ranking may be read."""
    most: int = 30
    margin: float = 0.02
    """Slower by more than this, surely, is hopeless."""
    error: float = 1 / 16
    """Chance that a candidate within the margin is ever called hopeless: 6 rounds can show it."""

    def decide(self, speedup: Sequence[float]) -> Decision:
        """Look at champion over candidate, one ratio a round."""
        if len(speedup) < self.first:
            return Decision.CONTINUE
        if surely_below(speedup, 1.0 - self.margin, self.error, HASTY):
            return Decision.HOPELESS
        return Decision.STOP if len(speedup) >= self.most else Decision.CONTINUE


@dataclass(frozen=True, slots=True)
class AcceptRule:
    """When acceptance has measured enough, and what it may claim."""

    least: int = 30
    most: int = 400
    target: float = 0.01
    """Relative half-width of the interval of the median ratio."""
    error: float = 0.01
    """Chance that a kernel which is no faster is ever found faster, over all looks."""

    def wins(self, speedup: Sequence[float]) -> bool:
        """Whether the candidate is proved faster: more than half of all ratios exceed 1."""
        return surely_above(speedup, 1.0, self.error)

    def precise(self, speedup: Sequence[float]) -> bool:
        """Whether enough rounds were made and the interval is within the target."""
        if len(speedup) < max(self.least, FEWEST):
            return False
        return half_width(sequential_median(speedup)) <= self.target

    def done(self, speedup: Sequence[float]) -> bool:
        """Whether to stop: as many rounds as allowed, or precise and not on the edge of a win."""
        if len(speedup) >= max(self.most, FEWEST):
            return True
        return self.precise(speedup) and (
            sequential_median(speedup).low <= 1.0 or self.wins(speedup)
        )


@dataclass(frozen=True, slots=True)
class ConfirmRule:
    """Whether a win is there again, in a fresh process on fresh values."""

    most: int = 40
    error: float = 0.1
    """Chance that a win by luck is confirmed: beside that of `AcceptRule`, not instead of it."""
    refuting_error: float = 0.025

    def decide(self, speedup: Sequence[float]) -> Decision:
        """Look at rival over candidate, one ratio a round."""
        if len(speedup) < FEWEST:
            return Decision.CONTINUE
        if surely_above(speedup, 1.0, self.error):
            return Decision.CONFIRMED
        if surely_below(speedup, 1.0, self.refuting_error):
            return Decision.HOPELESS
        return Decision.STOP if len(speedup) >= self.most else Decision.CONTINUE
