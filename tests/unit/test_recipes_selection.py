"""Selection kernels against a stable sort."""

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

from kernelwright import codegen, recipes
from kernelwright.codegen.plain import plain_kernel
from kernelwright.expr import skeleton
from kernelwright.expr.selection import match
from kernelwright.model import Dtype, Family, Lineage, ScalarArgument, Signature, TensorArgument
from kernelwright.problems.trace import trace

FAST = {"FLAGS": "-O1 -march=native"}
SIGNATURE = Signature(
    (TensorArgument("x", ("T", "N")),),
    (TensorArgument("values", ("T", "k")), TensorArgument("at", ("T", "k"), Dtype.I32)),
    (ScalarArgument("k", "int"),),
)
SIZES = (
    (1, 1, 1), (3, 33, 33), (2, 127, 5), (5, 1000, 64), (3, 3001, 32), (2, 999, 150),
    (1, 2100, 700),
)  # fmt: skip
RANGES = {"N": (32, 4096), "k": (1, 30)}


def sorted_first(x, k, largest=True):
    values, indices = torch.sort(x, dim=-1, descending=largest, stable=True)
    return values[:, :k].clone(), indices[:, :k].clone()


def traced(function=sorted_first, signature=SIGNATURE):
    return trace(function, signature, RANGES)


def family_of(program, dtype):
    (family,) = recipes.families(program, dtype, this_machine(), {}, "kernel")
    return family


def draws(T, N):
    """Rows of every kind: random, tied, sorted both ways, masked, with NaN, of both zeros."""
    draw = np.random.default_rng(T * N)
    x = draw.standard_normal((T, N))
    yield x
    yield draw.integers(-2, 3, (T, N)).astype(float)
    yield np.sort(x)
    yield -np.sort(x)
    yield np.where(draw.random((T, N)) < 0.95, -np.inf, x)
    yield np.where(draw.random((T, N)) < 0.3, np.nan, np.where(x > 1, np.inf, x))
    yield np.full((T, N), np.nan)
    yield np.where(x > 0, 0.0, -0.0)


def agrees(library, program, dtype, k, stored, largest=True):
    T, N = stored.shape
    got = call(library, program.signature, dtype, {"x": stored}, {"T": T, "N": N, "k": k}, {"k": k})
    values, indices = sorted_first(torch.from_numpy(widen(stored, dtype)), k, largest)
    return np.array_equal(got["at"], indices.numpy()) and np.array_equal(
        got["values"], values.numpy(), equal_nan=True
    )


@pytest.mark.parametrize("dtype", [Dtype.F32, Dtype.BF16])
@pytest.mark.parametrize("compiler", COMPILERS)
def test_largest(dtype, compiler):
    program = traced()
    library = build(family_of(program, dtype), FAST, compiler)
    for T, N, k in SIZES:
        for x in draws(T, N):
            assert agrees(library, program, dtype, k, narrow(x, dtype)), (T, N, k)


def test_smallest():
    program = traced(lambda x, k: sorted_first(x, k, largest=False))
    library = build(family_of(program, Dtype.F32), FAST)
    for T, N, k in ((3, 33, 33), (2, 127, 5), (3, 3001, 32)):
        for x in draws(T, N):
            assert agrees(library, program, Dtype.F32, k, narrow(x, Dtype.F32), largest=False)


@pytest.mark.parametrize(
    "changes", [{"GROUP_VECTORS": 2, "UNROLL": 1, "LANES": 8}, {"GROUP_VECTORS": 8, "UNROLL": 8}]
)
def test_tunables_keep_it_right(changes):
    program = traced()
    library = build(family_of(program, Dtype.F32), FAST | changes)
    for x in draws(2, 2999):
        assert agrees(library, program, Dtype.F32, 40, narrow(x, Dtype.F32))


def test_without_vector_instructions():
    """The same source for the oldest processor of this architecture."""
    program = traced()
    library = build(family_of(program, Dtype.F32), {"FLAGS": "-O1", "LANES": 4})
    for x in draws(2, 1111):
        assert agrees(library, program, Dtype.F32, 12, narrow(x, Dtype.F32))


def test_of_computed_values_with_a_result_of_its_own():
    """Positions in a table of the elements that are nearest to a number."""
    signature = Signature(
        (TensorArgument("x", ("B", "T", "N")), TensorArgument("names", ("N",), Dtype.I32)),
        (TensorArgument("out", ("B", "T", "k"), Dtype.I64),),
        (ScalarArgument("k", "int"), ScalarArgument("to", "float", 0.5)),
    )
    program = traced(
        lambda x, names, k, to: names[(x - to).abs().topk(k, largest=False).indices].long(),
        signature,
    )
    library = build(family_of(program, Dtype.F32), FAST)
    draw = np.random.default_rng(0)
    x, names = draw.standard_normal((2, 3, 500)).astype(np.float32), draw.permutation(500)
    sizes, scalars = {"B": 2, "T": 3, "N": 500, "k": 7}, {"k": 7, "to": 0.25}
    got = call(library, program.signature, Dtype.F32, {"x": x, "names": names.astype(np.int32)},
               sizes, scalars)["out"]  # fmt: skip
    want = names[np.argsort(np.abs(x - np.float32(0.25)), -1, kind="stable")[..., :7]]
    assert np.array_equal(got, want)


def test_topk_is_the_same_program_as_the_sort():
    program = traced(lambda x, k: tuple(torch.topk(x, k, -1)))
    assert program == traced()
    assert skeleton(program) == "sort/select"
    assert codegen.families(program, Dtype.F32, this_machine(), {}, "kernel") == ()


def test_the_plain_kernel_is_right():
    program = traced()
    source = plain_kernel(SIGNATURE, program, Dtype.F32)
    family = Family("plain", "cpp", "kernel", source, Lineage("own"), ({},))
    library = build(family, {"FLAGS": "-O1"})
    for x in draws(2, 37):
        assert agrees(library, program, Dtype.F32, 9, narrow(x, Dtype.F32))


@pytest.mark.parametrize(
    "function",
    [
        lambda x, k: (x.sort(0).values[:, :k], x.sort(0).indices[:, :k]),  # along columns
        lambda x, k: (x.topk(k).values, x.topk(k, largest=False).indices),  # two selections
        lambda x, k: (x.cumsum(1).topk(k).values, x.cumsum(1).topk(k).indices),  # of sums
    ],
)
def test_other_programs_do_not_match(function):
    program = traced(function)
    assert match(program) is None
    assert recipes.families(program, Dtype.F32, this_machine(), {}, "kernel") == ()


def test_every_tunable_changes_the_binary():
    family = family_of(traced(), Dtype.F32)
    assert_every_tunable_changes_the_binary(family)
