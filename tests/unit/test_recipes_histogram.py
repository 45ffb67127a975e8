"""Histogram kernels against NumPy's counts."""

import numpy as np
import pytest
import torch
from compiled_kernel import (
    COMPILERS,
    assert_every_tunable_changes_the_binary,
    build,
    call,
    this_machine,
)

from kernelwright import codegen, recipes
from kernelwright.expr import operations, skeleton
from kernelwright.expr.scatter import match, scatters
from kernelwright.model import Dtype, ScalarArgument, Signature, TensorArgument
from kernelwright.problems.trace import trace

FAST = {"FLAGS": "-O1 -march=native"}
BINS = ScalarArgument("bins", "int")


def keys(sizes, scalars, generator):
    return {"x": torch.randint(sizes["bins"], (sizes["N"],), generator=generator)}


def traced(function, dtype, out=Dtype.I64, dims=("N",)):
    signature = Signature(
        (TensorArgument("x", dims, dtype),), (TensorArgument("y", ("bins",), out),), (BINS,)
    )
    return trace(function, signature, {}, keys if dims == ("N",) else None)


def family_of(program, dtype=Dtype.F32):
    (family,) = recipes.families(program, dtype, this_machine(), {"bins": 256}, "kernel")
    return family


def of_scatter(x, bins):
    one = torch.ones(x.shape[0], dtype=torch.int64)
    return torch.zeros(bins, dtype=torch.int64).scatter_add_(0, x.long(), one)


FORMS = {
    "bincount": lambda x, bins: torch.bincount(x, minlength=bins),
    "scatter_add": of_scatter,
    "index_add": lambda x, bins: torch.zeros(bins, dtype=torch.int64).index_add(
        0, x, torch.ones_like(x, dtype=torch.int64)
    ),
    "compare": lambda x, bins: (x[:, None] == torch.arange(bins)).sum(0),
}


def draws(bins):
    """Keys of every size and kind: even, all the same, skewed, sorted."""
    draw = np.random.default_rng(bins)
    for size in (1, 2, 15, 17, 63, 65, 511, 32769, 100003):
        yield draw.integers(0, bins, size)
        yield np.full(size, draw.integers(0, bins))
        yield np.where(draw.random(size) < 0.9, bins - 1, draw.integers(0, bins, size))
        yield np.sort(draw.integers(0, bins, size))


@pytest.mark.parametrize("form", FORMS)
def test_every_way_to_write_it_is_the_same(form):
    assert match(traced(FORMS[form], Dtype.I32)) is not None


@pytest.mark.parametrize("dtype", [Dtype.U8, Dtype.I32, Dtype.I64])
@pytest.mark.parametrize("compiler", COMPILERS)
def test_counts(dtype, compiler):
    program = traced(FORMS["bincount"], dtype)
    library = build(family_of(program), FAST, compiler)
    for bins in (1, 3, 255, 256, 1000):
        if dtype is Dtype.U8 and bins > 256:
            continue
        for x in draws(bins):
            sizes = {"N": x.size, "bins": bins}
            stored = {"x": x.astype({"u8": "u1", "i32": "i4", "i64": "i8"}[dtype])}
            got = call(library, program.signature, Dtype.F32, stored, sizes, {"bins": bins})
            assert np.array_equal(got["y"], np.bincount(x, minlength=bins)), sizes


@pytest.mark.parametrize("changes", [{"COPIES": 1}, {"COPIES": 8, "RUNS": 0, "PREFETCH": 1024}])
@pytest.mark.parametrize("dtype", [Dtype.U8, Dtype.I32])
def test_tunables_keep_it_right(changes, dtype):
    program = traced(FORMS["bincount"], dtype)
    library = build(family_of(program), FAST | changes)
    x = np.random.default_rng(0).integers(0, 200, 70001)
    stored = {"x": x.astype("u1" if dtype is Dtype.U8 else "i4")}
    sizes = {"N": x.size, "bins": 200}
    got = call(library, program.signature, Dtype.F32, stored, sizes, {"bins": 200})
    assert np.array_equal(got["y"], np.bincount(x, minlength=200))


def test_keys_beyond_the_bins_count_nowhere():
    program = traced(FORMS["compare"], Dtype.I32)
    library = build(family_of(program), FAST)
    x = np.random.default_rng(0).integers(-500, 500, 5000).astype(np.int32)
    got = call(library, program.signature, Dtype.F32, {"x": x}, {"N": x.size, "bins": 37},
               {"bins": 37})["y"]  # fmt: skip
    assert np.array_equal(got, np.bincount(x[(x >= 0) & (x < 37)], minlength=37))


def test_computed_keys_and_shares():
    """Of a function of the keys, flattened, as parts of the whole."""

    def shares(x, bins):
        key = (x.flatten() * 3 + 1) % bins
        return torch.bincount(key, minlength=bins).float() / x.numel()

    program = traced(shares, Dtype.I32, None, ("M", "N"))
    library = build(family_of(program), FAST)
    x = np.random.default_rng(1).integers(0, 99, (31, 77)).astype(np.int32)
    sizes = {"M": 31, "N": 77, "bins": 53}
    got = call(library, program.signature, Dtype.F32, {"x": x}, sizes, {"bins": 53})["y"]
    want = np.bincount((x.ravel() * 3 + 1) % 53, minlength=53) / x.size
    assert np.allclose(got, want, rtol=1e-6)


def test_every_tunable_changes_the_binary():
    family = family_of(traced(FORMS["bincount"], Dtype.I32))
    assert_every_tunable_changes_the_binary(family)


def test_a_scattered_sum_is_counted_by_its_sources():
    signature = Signature(
        (TensorArgument("x", ("N",), Dtype.I32), TensorArgument("w", ("N",))),
        (TensorArgument("y", ("bins",)),), (BINS,),
    )  # fmt: skip
    program = trace(
        lambda x, w, bins: w.new_zeros(bins).index_add(0, x, w * w), signature, {}, keys
    )
    assert operations(program, {"N": 1000, "bins": 50}) == 2000
    assert scatters(program)
    assert skeleton(program) == "histogram/scatter"
    assert match(program) is None
    assert codegen.families(program, Dtype.F32, this_machine(), {}, "kernel") == ()
    counts = traced(FORMS["bincount"], Dtype.I32)
    assert operations(counts, {"N": 1000, "bins": 50}) == 0


def test_diagonals_are_no_scatter():
    signature = Signature((TensorArgument("x", ("N",)),), (TensorArgument("y", ("N",)),))
    program = trace(lambda x: torch.diag(x).sum(1), signature, {})
    assert not scatters(program)
