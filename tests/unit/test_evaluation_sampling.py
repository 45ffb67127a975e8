"""How likely a sampled check finds one wrong element, and that a full check finds every one."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernelwright.evaluation import JudgeSettings
from kernelwright.evaluation.expected import (
    Case,
    Expected,
    check_fast,
    check_fully,
    check_sample,
)
from kernelwright.evaluation.layout import pack, sample
from kernelwright.model import Dtype, FrozenMap, TensorArgument, Workload
from kernelwright.numerics import band

TENSORS = (TensorArgument("y", ("N",), Dtype.F32), TensorArgument("s", (), Dtype.F32))


def right(n):
    """A case of two outputs, and an arena that holds its right values."""
    sizes = FrozenMap({"N": n})
    places, end = pack(TENSORS, sizes, Dtype.F32, 0)
    arena, rng, expected = np.zeros(end, np.uint8), np.random.default_rng(n), []
    for place in places:
        values = rng.standard_normal(place.shape).astype(np.float32)
        place.array_in(arena)[:] = values.reshape(-1)
        oracle, limit = values.astype(np.float64), np.full(values.shape, 1e-6, np.float32)
        norm = 1e-6 * sqrt(values.size)
        bounds = band(oracle, limit, Dtype.F32)
        expected.append(Expected(place.name, Dtype.F32, oracle, limit, norm, bounds))
    workload = Workload("p", Dtype.F32, sizes, FrozenMap(), "normal", "bench")
    return Case(workload, (), tuple(expected), 0), places, arena


def plant(places, arena, at):
    """Make one element a little wrong."""
    values = places[0].array_in(arena)
    before = values[at].copy()
    values[at] += np.float32(1e-4)
    return before


def chance(n, blocks, elements):
    """Of finding a wrong element that is in no end: what docs/numerics.md states."""
    return 1 - (1 - elements / (n - elements)) ** blocks


@pytest.mark.parametrize(
    ("n", "blocks", "elements"),
    [(1 << 16, 24, 256), (1 << 18, JudgeSettings().sample_blocks, JudgeSettings().sample_elements)],
)
def test_a_sample_finds_one_wrong_element_as_often_as_stated(n, blocks, elements):
    case, places, arena = right(n)
    rng = np.random.default_rng(5)
    trials, found = 3000, 0
    for _ in range(trials):
        at = int(rng.integers(elements, n - elements))
        before = plant(places, arena, at)
        found += not check_sample(case, places, arena, sample(places, blocks, elements, rng))
        places[0].array_in(arena)[at] = before
    stated = chance(n, blocks, elements)
    assert 0.05 < stated < 0.95
    slack = 4.5 * sqrt(stated * (1 - stated) / trials)  # of a binomial: one run in 100 000 beyond
    assert abs(found / trials - stated) < slack, (found / trials, stated)
    assert check_sample(case, places, arena, sample(places, blocks, elements, rng))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 20_000), st.integers(0, 400), st.booleans())
def test_a_sample_always_holds_both_ends_and_all_of_what_is_small(n, distance, last):
    case, places, arena = right(n)
    at = min(distance, n - 1)
    plant(places, arena, n - 1 - at if last else at)
    rng = np.random.default_rng()
    assert not check_sample(case, places, arena, sample(places, 4, 512, rng))


def test_the_numbers_in_the_documents_are_these():
    quick = JudgeSettings()
    once = chance(4096 * 1024, quick.sample_blocks, quick.sample_elements)
    assert once == pytest.approx(0.0117, rel=0.01)
    assert 1 - (1 - once) ** quick.screen.first == pytest.approx(0.068, rel=0.01)
    assert 1 - (1 - once) ** quick.screen.most == pytest.approx(0.297, rel=0.01)


def test_a_full_check_finds_every_wrong_element():
    case, places, arena = right(2311)
    assert check_fully(case, places, arena, None).fault is None
    assert check_fast(case, places, arena)
    for at in range(2311):
        before = plant(places, arena, at)
        assert not check_fast(case, places, arena), at
        fault = check_fully(case, places, arena, None).fault
        assert fault is not None, at
        assert f"[{at}]" in fault.diagnostic
        places[0].array_in(arena)[at] = before
    places[1].array_in(arena)[:] += 1
    assert not check_fast(case, places, arena)
    assert check_fully(case, places, arena, None).fault is not None
