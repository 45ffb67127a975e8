"""Sums over segments against NumPy."""

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
from kernelwright.expr import skeleton
from kernelwright.expr.segments import match
from kernelwright.model import Dtype, Signature, TensorArgument
from kernelwright.problems.trace import trace

FAST = {"FLAGS": "-O1 -march=native"}
SIGNATURE = Signature(
    (
        TensorArgument("rows", ("M+1",), Dtype.I32), TensorArgument("columns", ("Z",), Dtype.I32),
        TensorArgument("values", ("Z",)), TensorArgument("x", ("N",)),
    ),
    (TensorArgument("y", ("M",)),),
)  # fmt: skip


def offsets(M, Z, draw, kind="even"):
    """Row pointers of even, skewed, mostly empty rows, or of one that holds everything."""
    weights = {
        "even": np.ones(M), "skewed": draw.random(M) ** -0.9, "empty": draw.random(M) < 0.05,
        "one": np.arange(M) == M // 2,
    }[kind] + 1e-12  # fmt: skip
    ends = np.floor(np.cumsum(weights) / weights.sum() * Z + 0.5).astype(np.int32)
    return np.concatenate([[0], np.minimum(ends[:-1], Z), [Z]]).astype(np.int32)


def matrix(sizes, scalars, generator):
    draw = np.random.default_rng(0)
    rows = torch.from_numpy(offsets(sizes["M"], sizes["Z"], draw))
    return {"rows": rows, "columns": torch.randint(sizes["N"], (sizes["Z"],), generator=generator)}


def product(rows, columns, values, x):
    row = torch.repeat_interleave(rows.diff())
    return x.new_zeros(rows.shape[0] - 1).index_add(0, row, values * x[columns])


def by_numbers(rows, columns, values, x):
    """The same in other words, with the rows' numbers repeated, and an epilogue."""
    M = rows.shape[0] - 1
    row = torch.arange(M).repeat_interleave(rows[1:] - rows[:-1])
    terms = values.exp() * x.index_select(0, columns)
    return values.new_zeros(M).scatter_add(0, row, terms) * 2 + 1


def traced(function=product):
    return trace(function, SIGNATURE, {}, matrix)


def family_of(program, dtype):
    (family,) = recipes.families(program, dtype, this_machine(), {}, "kernel")
    return family


def agrees(library, program, dtype, sizes, kind):
    M, Z, N = sizes
    draw = np.random.default_rng(M + Z)
    rows = offsets(M, Z, draw, kind)
    columns = draw.integers(0, N, Z).astype(np.int32)
    values, x = (narrow(draw.standard_normal(n), dtype) for n in (Z, N))
    inputs = {"rows": rows, "columns": columns, "values": values, "x": x}
    got = call(library, program.signature, dtype, inputs, {"M": M, "Z": Z, "N": N})["y"]
    terms = widen(values, dtype).astype(float) * widen(x, dtype)[columns]
    row = np.repeat(np.arange(M), np.diff(rows))
    want = np.bincount(row, terms, minlength=M)
    bound = 2e-6 * np.bincount(row, np.abs(terms), minlength=M) + 1e-30
    return np.all(np.abs(got - want) <= bound + 2 * dtype.unit_roundoff * np.abs(want))


SIZES = (
    (1, 1, 1), (1, 70001, 9), (90001, 3000, 50), (33, 1, 5), (1000, 15000, 313), (7, 2049, 100),
)  # fmt: skip


@pytest.mark.parametrize("dtype", [Dtype.F32, Dtype.BF16])
@pytest.mark.parametrize("compiler", COMPILERS)
def test_sparse_products(dtype, compiler):
    program = traced()
    library = build(family_of(program, dtype), FAST | {"CHUNK": 256}, compiler)
    for sizes in SIZES:
        for kind in ("even", "skewed", "empty", "one"):
            assert agrees(library, program, dtype, sizes, kind), (sizes, kind)


@pytest.mark.parametrize("changes", [{"GATHER": 0}, {"LANES": 8, "UNROLL": 1, "CHUNK": 512}])
@pytest.mark.parametrize("dtype", [Dtype.F32, Dtype.BF16])
def test_tunables_keep_it_right(changes, dtype):
    program = traced()
    library = build(family_of(program, dtype), FAST | changes)
    assert agrees(library, program, dtype, (3000, 40001, 313), "skewed")


def test_without_vector_instructions():
    program = traced()
    library = build(family_of(program, Dtype.F32), {"FLAGS": "-O1", "LANES": 4})
    assert agrees(library, program, Dtype.F32, (300, 4001, 313), "skewed")


def test_other_words_and_an_epilogue():
    program = traced(by_numbers)
    library = build(family_of(program, Dtype.F32), FAST)
    draw = np.random.default_rng(3)
    rows, columns = offsets(50, 700, draw, "skewed"), draw.integers(0, 31, 700).astype(np.int32)
    values, x = (draw.standard_normal(n).astype(np.float32) for n in (700, 31))
    inputs = {"rows": rows, "columns": columns, "values": values, "x": x}
    got = call(library, program.signature, Dtype.F32, inputs, {"M": 50, "Z": 700, "N": 31})["y"]
    rows, columns, values, x = (torch.from_numpy(value) for value in inputs.values())
    want = by_numbers(rows, columns, values.double(), x.double())
    assert np.allclose(got, want.numpy(), rtol=1e-4, atol=1e-4)


def test_a_scatter_without_order_does_not_match():
    program = traced(lambda rows, columns, values, x: x.new_zeros(rows.shape[0] - 1).index_add(
        0, columns % 2, values))  # fmt: skip
    assert skeleton(program) == "histogram/scatter"
    assert match(program) is None
    assert recipes.families(program, Dtype.F32, this_machine(), {}, "kernel") == ()
    assert codegen.families(program, Dtype.F32, this_machine(), {}, "kernel") == ()


def test_every_tunable_changes_the_binary():
    family = family_of(traced(), Dtype.F32)
    assert_every_tunable_changes_the_binary(family)
