"""Properties of the error budget and of the comparison."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernelwright.model import Dtype
from kernelwright.numerics import (
    band,
    compare,
    decode,
    distribution_usable,
    encode,
    norm_tolerance,
    tolerance,
)

FLOATS = st.sampled_from([Dtype.F32, Dtype.BF16, Dtype.F16])
SHAPES = st.sampled_from([(1,), (7,), (300,), (1000,), (3, 5), (33, 65), (64, 1), (2, 40, 50)])
SEEDS = st.integers(0, 2**32 - 1)


def example(seed, shape, dtype, scale=1.0):
    """A rows-scaled oracle and two sound runs of it."""
    rng = np.random.default_rng(seed)
    y = rng.standard_normal(shape) * scale
    if len(shape) > 1:
        y = y * 10.0 ** rng.uniform(-2, 2, (shape[0],) + (1,) * (len(shape) - 1))
    runs = [encode(y * (1 + rng.uniform(-1, 1, shape) * 2.0**-22), dtype) for _ in range(2)]
    return rng, y, runs


@settings(deadline=None, max_examples=60)
@given(SEEDS, SHAPES, FLOATS)
def test_rounded_once_passes_and_zeros_fail(seed, shape, dtype):
    _, y, runs = example(seed, shape, dtype)
    allowed, norm = tolerance(y, runs, dtype), norm_tolerance(y, runs, dtype)
    right = compare(encode(y, dtype), y, allowed, dtype, norm)
    assert right.ok
    assert right.max_error <= 1
    assert band(y, allowed, dtype).hold(encode(y, dtype))
    zeros = compare(encode(np.zeros_like(y), dtype), y, allowed, dtype, norm)
    assert not zeros.ok
    assert "all zeros" in zeros.pattern
    assert not band(y, allowed, dtype).hold(encode(np.zeros_like(y), dtype))


@settings(deadline=None, max_examples=60)
@given(SEEDS, SHAPES, FLOATS, st.data())
def test_one_element_beyond_its_tolerance_is_caught(seed, shape, dtype, data):
    _, y, runs = example(seed, shape, dtype)
    allowed = tolerance(y, runs, dtype)
    at = data.draw(st.integers(0, y.size - 1))
    values = y.copy().reshape(-1)
    values[at] += 1.5 * allowed.reshape(-1)[at] + 2.0**-10 * abs(values[at])
    result = compare(encode(values.reshape(shape), dtype), y, allowed, dtype)
    if dtype is Dtype.F32:
        assert result.wrong_count == 1
        assert result.index == tuple(np.unravel_index(at, shape))
        assert result.expected == y.reshape(-1)[at]
    assert not compare(encode(values.reshape(shape) * 1.1, dtype), y, allowed, dtype).ok


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.sampled_from([(33, 65), (40, 64)]), FLOATS)
def test_permuting_rows_permutes_the_tolerance(seed, shape, dtype):
    rng, y, runs = example(seed, shape, dtype)
    order = rng.permutation(shape[0])
    allowed = tolerance(y, runs, dtype)
    permuted = tolerance(y[order], [run[order] for run in runs], dtype)
    np.testing.assert_array_equal(permuted, allowed[order])


@settings(deadline=None, max_examples=40)
@given(SEEDS, SHAPES, FLOATS)
def test_fast_limits_agree_with_the_full_comparison(seed, shape, dtype):
    rng, y, runs = example(seed, shape, dtype)
    allowed = tolerance(y, runs, dtype)
    for size in (0.2, 3.0):
        actual = encode(y + size * allowed * rng.choice([-1, 1], shape), dtype)
        fast, full = band(y, allowed, dtype).hold(actual), compare(actual, y, allowed, dtype)
        assert fast == full.ok or abs(full.max_error - 1) < 1e-2


@settings(deadline=None, max_examples=200)
@given(st.floats(width=64, allow_nan=False))
def test_bf16_rounding_is_to_nearest_even_in_one_step(x):
    word = encode(np.array([x]), Dtype.BF16)
    value = float(decode(word, Dtype.BF16)[0])
    if abs(x) >= 2.0**128:
        assert value == np.copysign(np.inf, x)
        return
    around = [float(decode(np.array([(int(word[0]) + d) & 0xFFFF], np.uint16), Dtype.BF16)[0])
              for d in (-1, 1)]  # fmt: skip
    near = [v for v in around if np.isfinite(v) and np.isfinite(value)]
    for other in near:
        assert abs(value - x) <= abs(other - x)
        if abs(value - x) == abs(other - x) and other != value:
            assert int(word[0]) % 2 == 0


def test_bf16_double_rounding_and_special_values():
    tricky = 1.0 + 2.0**-8 + 2.0**-40  # through float32 this would be a tie and round to 1
    assert decode(encode(np.array([tricky]), Dtype.BF16), Dtype.BF16)[0] == 1.0 + 2.0**-7
    special = decode(encode(np.array([np.nan, np.inf, -np.inf, -0.0]), Dtype.BF16), Dtype.BF16)
    assert np.isnan(special[0])
    assert list(special[1:3]) == [np.inf, -np.inf]
    assert np.signbit(special[3])


def test_masks_of_non_finite_values_must_match():
    y = np.array([1.0, np.inf, np.nan, -np.inf, 2.0])
    run = y.astype(np.float32)
    allowed = tolerance(y, [run], Dtype.F32)
    assert compare(run, y, allowed, Dtype.F32).ok
    for at in range(5):
        for wrong in (np.nan, np.inf, -np.inf, 0.0):
            bad = run.copy()
            bad[at] = wrong
            same = (np.isnan(wrong) and np.isnan(y[at])) or wrong == y[at]
            assert compare(bad, y, allowed, Dtype.F32).ok == same


def test_overflow_of_float32_itself_is_forgiven():
    y = np.array([1.0, 1e39])
    run = np.array([1.0, np.inf], np.float32)
    allowed = tolerance(y, [run], Dtype.F32)
    assert compare(run, y, allowed, Dtype.F32).ok
    assert not compare(np.array([np.nan, np.inf], np.float32), y, allowed, Dtype.F32).ok


def test_integers_must_be_equal():
    y = np.arange(100)
    allowed = tolerance(y, [], Dtype.I64)
    assert compare(y, y, allowed, Dtype.I64).ok
    bad = y.copy()
    bad[17] += 1
    result = compare(bad, y, allowed, Dtype.I64)
    assert (result.wrong_count, result.index, result.got) == (1, (17,), 18)


def test_hidden_lower_precision_fails_in_norm_though_elements_pass():
    rng = np.random.default_rng(5)
    y = rng.standard_normal((64, 512))
    runs = [encode(y * (1 + rng.standard_normal(y.shape) * 2.0**-21), Dtype.F32)]
    allowed, norm = tolerance(y, runs, Dtype.F32), norm_tolerance(y, runs, Dtype.F32)
    inside = encode(y + 0.9 * allowed, Dtype.F32)
    result = compare(inside, y, allowed, Dtype.F32, norm)
    assert result.wrong_count == 0
    assert not result.ok
    assert "norm" in result.describe("out")


def test_terms_widen_the_budget_of_a_cancelling_scan():
    x = np.tile([1.0, -1.0], 5000)
    y = np.cumsum(x)
    allowed = tolerance(y, [y.astype(np.float32)], Dtype.F32, terms=np.cumsum(np.abs(x)))
    off = y + 0.5 * 2.0**-23 * np.cumsum(np.abs(x))
    assert compare(off.astype(np.float32), y, allowed, Dtype.F32).ok
    assert not compare(off.astype(np.float32), y, tolerance(y, [y], Dtype.F32), Dtype.F32).ok


def test_unusable_distributions():
    y = np.random.default_rng(0).standard_normal((40, 50))
    assert distribution_usable(y, y.astype(np.float32))
    assert not distribution_usable(y, np.zeros_like(y))
    assert not distribution_usable(y, y * 1.02)
    underflow = y.copy()
    underflow[:, :2] = 0
    assert not distribution_usable(y, underflow)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a.__setitem__((3, slice(None)), 0), ("only in row 3", "all zeros")),
        (lambda a: a.__setitem__((slice(None), slice(-5, None)), 9), ("last 5 of 64 columns",)),
        (lambda a: a.__setitem__((slice(None), slice(1, None, 4)), 9), ("every 4th column",)),
        (lambda a: a.__setitem__((slice(8, 16), slice(16, 32)), 9), ("a tile", "[8, 15]")),
        (lambda a: a.__imul__(-1), ("every element", "sign")),
        (lambda a: a.__imul__(0.5), ("every element", "scaled by 0.5")),
        (lambda a: a.__iadd__(3), ("shifted by 3",)),
        (lambda a: a.__setitem__((5, 6), np.nan), ("a single element", "NaN")),
        (lambda a: a.__setitem__(slice(None), a[::-1].copy()), ("wrong places",)),
        (lambda a: a.reshape(-1).__setitem__(slice(-70, None), 9), ("last 70 of 2048",)),
    ],
)
def test_patterns(change, words):
    y = np.random.default_rng(1).uniform(1, 2, (32, 64))
    actual = y.astype(np.float32)
    change(actual)
    result = compare(actual, y, tolerance(y, [y.astype(np.float32)], Dtype.F32), Dtype.F32)
    assert not result.ok
    for word in words:
        assert word in result.pattern, result.pattern


def test_poison_is_told_from_wrong_values():
    y = np.ones((4, 8))
    raw = np.full(y.size * 2, 0xFF, np.uint8)
    raw[:16] = encode(np.ones(8), Dtype.BF16).view(np.uint8)
    result = compare(raw, y, tolerance(y, [y], Dtype.BF16), Dtype.BF16)
    assert result.unwritten == 24
    assert "never written" in result.pattern


def _differences(seed, error, size=400):
    """x - w for values that nearly cancel now and then: exact, and with a relative error."""
    rng = np.random.default_rng(seed)
    x, w = rng.standard_normal((2, size, size))
    w[rng.random(w.shape) < 1e-4] = 0.0
    near = rng.random(w.shape) < 1e-3
    w[near] = x[near] * (1 + 1e-7 * rng.standard_normal(int(near.sum())))

    def run():
        noise = 1 + error * rng.uniform(-1, 1, (2, *x.shape))
        return x * noise[0] - w * noise[1]

    return x - w, run


@pytest.mark.parametrize("dtype", [Dtype.F32, Dtype.BF16])
def test_where_terms_cancel_the_error_of_float32_is_seen_under_the_rounding(dtype):
    for seed in range(8):
        y, run = _differences(seed, 2.0**-22)
        runs = [run().astype(np.float32) for _ in range(3)]
        allowed, norm = tolerance(y, runs, dtype), norm_tolerance(y, runs, dtype)
        honest = compare(encode(run(), dtype), y, allowed, dtype, norm)
        assert honest.ok, honest.describe("out")
        _, coarse = _differences(seed, 2.0**-10)  # products rounded to 11 bits before they cancel
        assert not compare(encode(coarse(), dtype), y, allowed, dtype, norm).ok


def test_rounding_counts_in_the_norm_once():
    rng = np.random.default_rng(0)
    y = rng.standard_normal((64, 1024))
    runs = [y.astype(np.float32)]
    allowed = tolerance(y, runs, Dtype.BF16)
    norm = norm_tolerance(y, runs, Dtype.BF16)
    assert compare(encode(y, Dtype.BF16), y, allowed, Dtype.BF16, norm).ok
    truncated = (y.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    assert compare(truncated, y, allowed, Dtype.BF16, norm).ok
    off = y * (1 + 1.8 * 2.0**-8 * np.where(rng.random(y.shape) < 0.5, 1, -1))
    assert not compare(encode(off, Dtype.BF16), y, allowed, Dtype.BF16, norm).ok


def test_what_the_output_cannot_hold_is_infinite_in_a_sound_run_too():
    y = np.full((2, 40), 1e3)
    y[0, 0] = 7e4  # beyond float16
    allowed = tolerance(y, [y.astype(np.float32)], Dtype.F16)
    assert np.isinf(allowed[0, 0])
    assert np.isfinite(allowed).sum() == y.size - 1


@settings(deadline=None, max_examples=30)
@given(SEEDS, SHAPES, FLOATS)
def test_the_term_for_the_oracle_hides_nothing(seed, shape, dtype):
    """A share of 2^-20, a millionth of what was allowed before."""
    _, y, runs = example(seed, shape, dtype)
    allowed = tolerance(y, runs, dtype)
    without = tolerance(y, runs, dtype, factor=4.0 / (1 + 2.0**-20))
    assert (allowed >= without).all()
    assert (allowed - without <= 2.0**-20 * allowed).all()
    planted = y + np.where(y < 0, -1.001, 1.001) * allowed
    found = compare(encode(planted, Dtype.F64), y, allowed, Dtype.F64)
    assert found.wrong_count == y.size
