"""Budgets and comparisons on tensors are those of `numerics`, to the last index."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernelwright.evaluation import device_numerics
from kernelwright.evaluation.device_numerics import (
    compared,
    digest,
    smooth,
    write_budget,
    wrong_patterns,
)
from kernelwright.model import Dtype
from kernelwright.numerics import POISONS, band, budget, compare, encode, tolerance
from kernelwright.numerics.tolerance import smooth as smooth_array
from kernelwright.problems import from_storage, torch_dtype

SHAPES = st.sampled_from(
    [(), (1,), (33,), (300,), (1000,), (3, 5), (33, 65), (64, 1), (2, 40, 50), (0, 4)]
)
FLOATS = st.sampled_from([Dtype.F64, Dtype.F32, Dtype.BF16, Dtype.F16])
SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(device_numerics, "_CHUNK", 128)


def example(seed, shape, special):
    """An oracle of many magnitudes, two runs of it and absolute terms; some are not finite."""
    rng = np.random.default_rng(seed)
    y = np.asarray(rng.standard_normal(shape) * 10.0 ** rng.uniform(-6, 6, shape))
    runs = [
        np.asarray(y * (1 + rng.uniform(-1, 1, shape) * 2.0**-21)).astype(np.float32)
        for _ in range(2)
    ]
    terms = np.asarray(np.abs(y) * rng.uniform(1, 10, shape))
    if special and y.size:
        for array in (y, *runs, terms):
            at = rng.integers(0, y.size, max(y.size // 20, 1))
            array.reshape(-1)[at] = rng.choice([np.nan, np.inf, -np.inf], at.size)
        both = rng.integers(0, y.size, max(y.size // 20, 1))
        for array in (y, *runs):
            array.reshape(-1)[both] = np.inf
    return rng, y, runs, terms


@settings(deadline=None, max_examples=120)
@given(SEEDS, SHAPES, FLOATS, st.booleans(), st.booleans())
def test_budgets_are_the_same(seed, shape, dtype, special, stated):
    _, y, runs, terms = example(seed, shape, special)
    terms = terms if stated else None
    wanted = budget(y, runs, dtype, terms)
    kind = np.float64 if dtype is Dtype.F64 else np.float32
    place = torch.empty(y.size, dtype=torch.float64 if dtype is Dtype.F64 else torch.float32)
    found = write_budget(
        place,
        torch.from_numpy(y),
        [torch.from_numpy(run) for run in runs],
        dtype,
        None if terms is None else torch.from_numpy(terms),
    )
    with np.errstate(over="ignore"):
        expected = wanted.tolerance.reshape(-1).astype(kind)
    np.testing.assert_allclose(place.numpy(), expected, rtol=1e-6 if kind is np.float32 else 1e-12)
    assert found.usable == wanted.usable
    assert found.norm_tolerance == pytest.approx(wanted.norm_tolerance, rel=1e-12, nan_ok=True)


@settings(deadline=None, max_examples=60)
@given(SEEDS, SHAPES, FLOATS, st.sampled_from(["right", "some", "all", "poison"]), st.booleans())
def test_comparisons_are_the_same(seed, shape, dtype, kind, special):
    rng, y, runs, _ = example(seed, shape, special)
    allowed = tolerance(y, runs, dtype).astype(np.float64 if dtype is Dtype.F64 else np.float32)
    actual = np.array(encode(y, dtype)).reshape(-1)
    words = actual.view(f"u{dtype.itemsize}")
    if kind == "some" and y.size:
        words[rng.integers(0, y.size, max(y.size // 7, 1))] ^= 1 << (8 * dtype.itemsize - 2)
    elif kind == "all":
        words[:] = 0
    elif kind == "poison":
        actual.view(np.uint8)[:] = POISONS[1]
    norm = float(rng.choice([1e-30, 1e30]))
    wanted = compare(actual, y, allowed, dtype, norm)
    found = compared(
        from_storage(actual, dtype),
        torch.from_numpy(y),
        torch.from_numpy(allowed).reshape(-1),
        dtype,
        norm,
    )
    assert (found.ok, found.wrong_count, found.index) == (
        wanted.ok,
        wanted.wrong_count,
        wanted.index,
    )
    assert found.describe("y") == wanted.describe("y")
    assert found.max_error == wanted.max_error
    assert found.norm_error == pytest.approx(wanted.norm_error, rel=1e-9)


@pytest.mark.parametrize("dtype", [Dtype.U8, Dtype.I32, Dtype.I64, Dtype.BOOL])
def test_integers_must_be_equal(dtype):
    y = np.arange(400) % (2 if dtype is Dtype.BOOL else 100)
    actual = from_storage(encode(y, dtype), dtype).clone()
    oracle, allowed = torch.from_numpy(y), torch.empty(400)
    found = write_budget(allowed, oracle, [oracle.clone()], dtype)
    assert (found.usable, float(allowed.abs().sum())) == (True, 0)
    assert compared(actual, oracle, allowed, dtype, 0.0).ok
    actual[171] = ~actual[171] if dtype is Dtype.BOOL else 101
    wrong = compared(actual, oracle, allowed, dtype, 0.0)
    assert (wrong.ok, wrong.index, wrong.wrong_count) == (False, (171,), 1)
    assert not write_budget(allowed, oracle, [oracle + (oracle < 2)], dtype).usable


@settings(deadline=None, max_examples=60)
@given(SEEDS, SHAPES)
def test_errors_are_smoothed_alike(seed, shape):
    error = np.asarray(np.abs(np.random.default_rng(seed).standard_normal(shape)))
    np.testing.assert_array_equal(smooth(torch.from_numpy(error)).numpy(), smooth_array(error))


@settings(deadline=None, max_examples=40)
@given(SEEDS, FLOATS, st.booleans())
def test_poisons_that_are_right_somewhere_are_found(seed, dtype, special):
    _, y, runs, _ = example(seed, (300,), special)
    word = encode(np.array([0.0]), dtype)
    word.view(np.uint8)[:] = POISONS[1]
    y[7] = float(from_storage(word, dtype).double())  # one element is what a poison says
    allowed = tolerance(y, [*runs, y], dtype).astype(np.float64)
    limits = band(y, allowed, dtype)
    wanted = [
        byte
        for byte in POISONS
        if not limits.accepts_anywhere(np.full(dtype.itemsize, byte, np.uint8))
    ]
    found = wrong_patterns(
        torch.from_numpy(y), torch.from_numpy(allowed), dtype, torch_dtype(dtype)
    )
    assert found == (wanted or list(POISONS))


def test_a_digest_tells_bytes_apart():
    data = torch.randint(0, 256, (1003,), dtype=torch.uint8)
    first = digest([data[:800], data[800:]], 17)
    assert digest([data[:800].clone(), data[800:].clone()], 17) == first
    for at in (0, 799, 800, 1002):
        other = data.clone()
        other[at] ^= 1
        assert digest([other[:800], other[800:]], 17) != first
