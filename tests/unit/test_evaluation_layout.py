"""Where tensors lie, which parts are sampled, and how clocks are judged."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernelwright.evaluation.clocks import agreed_us
from kernelwright.evaluation.layout import PAGE, pack, sample
from kernelwright.evaluation.session import Session
from kernelwright.evaluation.wire import (
    comparison_from_json,
    comparison_to_json,
    workload_from_json,
    workload_to_json,
)
from kernelwright.execution import CallReport
from kernelwright.model import Dtype, FrozenMap, Reason, TensorArgument, Workload
from kernelwright.numerics import Comparison

TENSORS = (
    TensorArgument("x", ("T", "H")),
    TensorArgument("w", ("H",), Dtype.F32),
    TensorArgument("i", (), Dtype.U8),
)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 8), st.sampled_from(list(Dtype)))
def test_places_are_aligned_and_red_zones_belong_to_nobody(t, h, shift, dtype):
    places, end = pack(TENSORS, {"T": t, "H": h}, dtype, 0, shift)
    owner = np.zeros(end, dtype=np.int32)
    for place in places:
        assert place.offset % 64 == 0
        assert place.offset % 128 == 64  # no more aligned than promised
        place.bytes_in(owner)[:] += 1
    assert owner.max() == 1
    for place in places:
        for zone in place.red_zones(owner):
            assert zone.size == PAGE
            assert not zone.any()


def test_samples_hold_both_ends_and_fit():
    (place,), _ = pack(TENSORS[:1], {"T": 999, "H": 1001}, Dtype.F32, 0)
    (parts,) = sample([place], 8, 512, np.random.default_rng(0))
    assert parts[0] == slice(0, 512)
    assert parts[1] == slice(999 * 1001 - 512, 999 * 1001)
    assert len(parts) == 10
    assert all(0 <= part.start < part.stop <= place.elements for part in parts)
    short, _ = pack(TENSORS[1:2], {"H": 7}, Dtype.F32, 0)
    (small,) = sample(short, 8, 512, np.random.default_rng(0))
    assert small == [slice(0, 7)]


def session(elapsed, excess):
    made = object.__new__(Session)
    made.elapsed_us, made.excess_us = elapsed, excess
    return made


@pytest.mark.parametrize(
    ("elapsed", "excess", "reason"),
    [
        ([1000.0] * 8, [5.0] * 8, None),
        ([1000.0] * 8, [5.0] + [9000.0] * 7, None),  # a busy machine
        ([100.0] * 8, [900.0] * 8, Reason.CLOCK_DISAGREES),  # a forged clock
        ([3.0] * 8, [5.0] * 8, Reason.IMPOSSIBLE_TIME),
    ],
)
def test_clocks_and_physics(elapsed, excess, reason):
    fault = session(elapsed, excess).dishonest_clock(floor_us=10.0)
    assert (fault and fault.reason) == reason


def test_a_disagreeing_clock_gains_nothing():
    honest = CallReport(0, 1000.0, 1060.0, 0, 0, 2, 0, False)
    forged = CallReport(0, 100.0, 1060.0, 0, 0, 2, 0, False)
    assert agreed_us(honest, 50.0) == 1000.0
    assert agreed_us(forged, 50.0) == pytest.approx(1000 / 1.01)
    early = CallReport(0, 1000.0, 1060.0, 0, 0, 2, 0, False, threads=2, outside_us=700.0)
    assert agreed_us(early, 50.0) == 1500.0


def test_records_survive_the_wire():
    workload = Workload(
        "p",
        Dtype.BF16,
        FrozenMap({"T": 3}),
        FrozenMap({"eps": 1e-6, "flag": True}),
        "ties",
        "check",
    )
    assert workload_from_json(workload_to_json(workload)) == workload
    comparison = Comparison(False, float("inf"), 3, 9, (1, 2), 0.5, 0.0, (2, 2), 1.0, 0, "row")
    assert comparison_from_json(comparison_to_json(comparison)) == comparison
