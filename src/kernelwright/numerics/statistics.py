"""Medians with distribution-free intervals, for a number of samples fixed beforehand.

Times on a shared machine are skewed, drift and jump; nothing here assumes a distribution. The
interval of a median comes from order statistics (Conover, "Practical Nonparametric Statistics",
section 3.2): the number of samples below the true median is binomial(n, 1/2). Where the data decide
when measuring ends, `kernelwright.numerics.sequential` has the intervals.
"""

from collections.abc import Sequence
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
    if len(samples) == 0:
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
