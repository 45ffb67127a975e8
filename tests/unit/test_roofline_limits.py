"""Bound and floor."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelwright.roofline import Rates, bound, floor_us, fraction_of_bound, memory_rate


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


PROBES = {"read": 32.0, "triad": 42.0, "copy": 50.0, "write": 40.0}


@pytest.mark.parametrize("name", PROBES)
@given(st.integers(1, 10**9))
def test_at_a_probes_own_mix_its_rate_counts_unless_others_do_better_together(name, size):
    read, written = {"read": (6, 0), "triad": (4, 2), "copy": (3, 3), "write": (0, 6)}[name]
    rates = memory_rate(read * size, written * size, PROBES)
    assert rates.gbs >= PROBES[name] * (1 - 1e-12)
    if name != "triad":  # a copy and a read move its mix a little faster here
        assert rates.roof == name


def test_between_probes_both_take_their_part_of_the_time():
    rates = memory_rate(3, 1, {"read": 30.0, "copy": 60.0})  # half read, half copied
    assert rates == Rates("read and copy", pytest.approx(1 / (0.5 / 30 + 0.5 / 60)))


@given(st.integers(0, 10**9), st.integers(1, 10**9))
def test_no_mix_is_faster_than_the_fastest_or_slower_than_the_slowest_probe(read, written):
    assert 32 <= memory_rate(read, written, PROBES).gbs * (1 + 1e-12) <= 50 * (1 + 2e-12)


def test_what_no_probes_enclose_has_no_rate():
    with pytest.raises(ValueError, match="no probes among read, copy enclose 25% reads"):
        memory_rate(1, 3, {"read": 30.0, "copy": 60.0})
    with pytest.raises(ValueError, match="moves nothing"):
        memory_rate(0, 0, PROBES)
