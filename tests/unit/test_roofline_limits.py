"""Bound and floor."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelwright.roofline import Rates, bound, floor_us, fraction_of_bound


def test_memory_and_compute_bound():
    rates = Rates("triad", gbs=50.0, gflops=200.0)
    memory = bound(50_000_000, 1e6, rates)
    assert (memory.median_us, memory.limiter, memory.roof) == (1000.0, "memory", "triad")
    compute = bound(1_000_000, 2e9, rates)
    assert (compute.median_us, compute.limiter, compute.roof_rate) == (10_000.0, "compute", 200.0)
    assert bound(1_000_000, 2e9, Rates("read", 50.0)).limiter == "memory"


@given(st.integers(1, 10**10), st.integers(0, 10**10), st.floats(1, 1000))
def test_the_floor_is_far_below_the_bound(read, written, gbs):
    assert (
        floor_us(read, written, gbs, 1 << 25)
        <= bound(read + written, 0, Rates("r", gbs)).median_us / 3
    )


def test_outputs_that_fit_in_the_cache_are_free():
    assert floor_us(0, 1 << 20, 50.0, 1 << 25) == 0
    assert floor_us(0, 1 << 26, 50.0, 1 << 25) > 0


def test_fraction_is_paired_by_round():
    assert fraction_of_bound([1, 2, 4], [2, 4, 8]) == 0.5
    with pytest.raises(ValueError, match="not pairs"):
        fraction_of_bound([1.0], [])
