"""Turned tiles against NumPy."""

import numpy as np
import pytest
import torch
from compiled_kernel import (
    COMPILERS,
    assert_every_tunable_changes_the_binary,
    build,
    call,
    narrow,
    this_machine,
    widen,
)

from kernelwright import recipes
from kernelwright.expr.turned import match
from kernelwright.model import Dtype, ScalarArgument, Signature, TensorArgument
from kernelwright.problems.trace import trace

FAST = {"FLAGS": "-O1 -march=native"}
ONE = Signature((TensorArgument("x", ("M", "N")),), (TensorArgument("y", ("N", "M")),))
SIZES = ((1, 1), (1, 33), (16, 16), (33, 1), (47, 65), (64, 96), (130, 2049), (512, 64))


def turn(x):
    return x.t().contiguous()


def family_of(program, dtype):
    (family,) = recipes.families(program, dtype, this_machine(), {}, "kernel")
    return family


def turns(library, dtype, sizes):
    M, N = sizes
    x = narrow(np.random.default_rng(M + N).standard_normal((M, N)), dtype)
    x[0, 0] = narrow(np.nan, dtype)
    got = call(library, ONE, dtype, {"x": x}, {"M": M, "N": N})["y"]
    return np.array_equal(got, widen(x, dtype).T, equal_nan=True)


@pytest.mark.parametrize("dtype", [Dtype.F32, Dtype.BF16])
@pytest.mark.parametrize("compiler", COMPILERS)
def test_transpositions(dtype, compiler):
    library = build(family_of(trace(turn, ONE, {}), dtype), FAST, compiler)
    for sizes in SIZES:
        assert turns(library, dtype, sizes), sizes


@pytest.mark.parametrize(
    "changes",
    [
        {"SPAN": 1, "PREFETCH": 64}, {"STREAM": 0, "PART": 256},
        {"LANES": 8, "SPAN": 2, "STRIP": 64},
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [Dtype.F32, Dtype.BF16])
def test_tunables_keep_it_right(changes, dtype):
    library = build(family_of(trace(turn, ONE, {}), dtype), FAST | changes)
    for sizes in ((96, 320), (131, 77)):
        assert turns(library, dtype, sizes), sizes


@pytest.mark.parametrize("dtype", [Dtype.F32, Dtype.BF16])
def test_without_vector_instructions(dtype):
    library = build(family_of(trace(turn, ONE, {}), dtype), {"FLAGS": "-O1", "LANES": 4})
    assert turns(library, dtype, (96, 320))


def test_work_along_with_it():
    """Two tensors that are turned, one that is not, a value for each row, three batches."""
    signature = Signature(
        (
            TensorArgument("x", ("B", "M", "N")), TensorArgument("w", ("M", "N")),
            TensorArgument("z", ("B", "N", "M")), TensorArgument("bias", ("N",)),
        ),
        (TensorArgument("y", ("B", "N", "M")),), (ScalarArgument("scale", "float", 0.5),),
    )  # fmt: skip

    def function(x, w, z, bias, scale=0.5):
        return (x * w).transpose(1, 2).tanh() * scale + z + bias[:, None]

    program = trace(function, signature, {})
    library = build(family_of(program, Dtype.F32), FAST)
    draw = np.random.default_rng(0)
    B, M, N = 3, 70, 45
    shapes = {"x": (B, M, N), "w": (M, N), "z": (B, N, M), "bias": (N,)}
    inputs = {n: draw.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    sizes = {"B": B, "M": M, "N": N}
    got = call(library, signature, Dtype.F32, inputs, sizes, {"scale": 0.25})["y"]
    want = function(**{n: torch.from_numpy(v).double() for n, v in inputs.items()}, scale=0.25)
    assert np.allclose(got, want.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.flip(0).t().flip(1) * 1.0,
        lambda x: x.permute(1, 0) + x.permute(1, 0).flip(1),
    ],
)
def test_other_ways_to_turn(function):
    program = trace(function, ONE, {})
    library = build(family_of(program, Dtype.F32), FAST)
    x = np.random.default_rng(0).standard_normal((70, 45)).astype(np.float32)
    got = call(library, ONE, Dtype.F32, {"x": x}, {"M": 70, "N": 45})["y"]
    assert np.allclose(got, function(torch.from_numpy(x)).numpy())


def test_other_programs_do_not_match():
    signature = Signature((TensorArgument("x", ("M", "N")),), (TensorArgument("y", ("M", "N")),))
    assert match(trace(lambda x: x * 2, signature, {})) is None
    assert match(trace(lambda x: x - x.mean(0), signature, {})) is None
    assert match(trace(lambda x: x.flip(1), signature, {})) is None


def test_every_tunable_changes_the_binary():
    family = family_of(trace(turn, ONE, {}), Dtype.F32)
    assert_every_tunable_changes_the_binary(family)
