"""Coverage by simulation of the intervals for a fixed number of samples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelwright.numerics import half_width, median_estimate, paired_ratio


def skewed(rng, n):
    """Times like those of a shared machine: a lognormal body and a few large outliers."""
    return np.exp(0.05 * rng.standard_normal(n)) + (rng.random(n) < 0.1) * rng.exponential(2, n)


@pytest.mark.parametrize("n", [6, 7, 10, 30, 100])
def test_interval_covers_the_true_median(n):
    rng = np.random.default_rng(n)
    truth = float(np.median(skewed(rng, 400_000)))
    inside = 0
    for _ in range(1500):
        e = median_estimate(list(skewed(rng, n)))
        inside += e.low <= truth <= e.high
    assert 0.94 <= inside / 1500 <= 0.995


def test_interval_is_not_needlessly_wide():
    rng = np.random.default_rng(3)
    widths = [half_width(median_estimate(list(rng.normal(1, 0.03, 100)))) for _ in range(50)]
    assert np.median(widths) < 0.0105


def test_same_distribution_gives_ratio_one():
    rng = np.random.default_rng(7)
    inside = within = 0
    for _ in range(400):
        drift = np.exp(np.cumsum(0.05 * rng.standard_normal(100)))  # the machine changes speed
        a, b = drift * skewed(rng, 100), drift * skewed(rng, 100)
        e = paired_ratio(list(a), list(b))
        inside += e.low <= 1 <= e.high
        within += abs(e.median - 1) < 0.03
    assert inside / 400 >= 0.93
    assert within / 400 >= 0.95


@given(st.lists(st.floats(0.5, 2.0), min_size=1, max_size=40), st.floats(0.25, 4))
def test_ratio_is_scale_invariant_and_ordered(a, factor):
    b = [1.0] * len(a)
    e, f = paired_ratio(a, b), paired_ratio([x * factor for x in a], [factor] * len(a))
    assert e.low <= e.median <= e.high
    assert f.median == pytest.approx(e.median)
    assert (f.low, f.high) == pytest.approx((e.low, e.high))


def test_large_samples_do_not_overflow():
    e = median_estimate(list(np.linspace(0, 1, 5001)))
    assert e.low == pytest.approx(0.5 - 0.98 / np.sqrt(5001), abs=1e-3)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="not pairs"):
        paired_ratio([1.0], [])
    with pytest.raises(ValueError, match="at least one"):
        median_estimate([])
