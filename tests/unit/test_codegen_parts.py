"""Float32 products on the matrix unit: as right as float32 arithmetic, wherever operands lie."""

from dataclasses import replace

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
from test_codegen_contraction import CASES, SIZES, check, family_of, sig

from kernelwright.codegen import contraction
from kernelwright.expr import unit_of
from kernelwright.model import Dtype, fastest_unit
from kernelwright.problems.trace import trace
from kernelwright.space import parse_declarations

SMALL = {"KC": 64, "MC": 32, "NC": 64, "FLAGS": "-O1 -march=native"}
MACHINE = this_machine()
needs_matrix_unit = pytest.mark.skipif(
    "amx_bf16" not in MACHINE.isa, reason="this processor has no matrix unit"
)


def in_parts(name, dtype=Dtype.F32):
    return family_of(name, dtype, wanted=contraction.PARTS)


@needs_matrix_unit
@pytest.mark.parametrize(
    ("name", "compiler", "changes"),
    [
        *((name, "g++", {}) for name in ("both_transposed", "swiglu", "operands", "axes")),
        *(("linear", compiler, {"ORDER": 0, "PACK_B": 2}) for compiler in COMPILERS),
        ("batched", "g++", {"PARTITION": 1}),
    ],
)
def test_every_form_at_odd_sizes(name, compiler, changes):
    program, family = in_parts(name)
    library = build(family, SMALL | changes, compiler)
    for sizes in SIZES:
        check(program, library, Dtype.F32, sizes)


def product(a, b, changes=SMALL, wanted=contraction.PARTS):
    program, family = family_of("matmul", Dtype.F32, wanted=wanted)
    library = build(family, changes)
    sizes = {"M": a.shape[0], "K": a.shape[1], "N": b.shape[1]}
    stored = {"A": a.astype(np.float32), "B": b.astype(np.float32)}
    return call(library, program.signature, Dtype.F32, stored, sizes)["C"]


def error(a, b, found):
    """The greatest error, the least normal number aside, in units of the sum of magnitudes."""
    a, b = a.astype(np.float32).astype(np.float64), b.astype(np.float32).astype(np.float64)
    wrong = np.maximum(np.abs(found - a @ b) - 2.0**-126, 0)
    return (wrong / (np.abs(a) @ np.abs(b))).max()


def draws(rows=45, depth=700, columns=40):
    draw = np.random.default_rng(3)
    return draw.standard_normal((rows, depth)), draw.standard_normal((depth, columns))


def cancelling():
    a, b = draws()
    a[:, 350:] = a[:, :350] + a[:, 350:] / 128
    b[350:] = -b[:350]
    return a, b


def of_one_sign():
    a, b = draws()
    return np.abs(a) + 1, np.abs(b) + 1


@needs_matrix_unit
@pytest.mark.parametrize("make", [draws, cancelling, of_one_sign])
def test_no_less_accurate_than_multiply_adds(make):
    a, b = make()
    plain = {"LANES": 16, "MR": 4, "NV": 2, "UNROLL_K": 1, "FLAGS": "-O1 -march=native"}
    in_vectors = error(a, b, product(a, b, plain, "contraction"))
    assert error(a, b, product(a, b)) <= 0.8 * in_vectors < 4e-6


@needs_matrix_unit
@pytest.mark.parametrize(
    ("left", "right"),
    [
        (1e-30, 1.0),  # parts that the unit would take for zero
        (1e-41, 1e30),  # subnormal
        (1e-16, 1e-17),  # products of parts that the unit would take for zero
        (1e35, 1e-20),
        (1e16, 1e16),
    ],
)
def test_tiny_and_huge_rows_and_columns(left, right):
    a, b = draws()
    a, b = np.clip(a, -3, 3), np.clip(b, -3, 3)
    a[::3] *= left  # other rows are ordinary
    b[:, ::5] *= right
    assert error(a, b, product(a, b)) < 5e-7


@needs_matrix_unit
def test_the_range_of_float32_to_its_ends():
    greatest = np.finfo(np.float32).max
    a, b = np.zeros((33, 40)), np.zeros((40, 33))
    a[0, 0], a[1, 1], a[2, :2] = greatest, greatest, (1e-38, 3e-45)
    b[0, 0], b[1, 1], b[1, 2] = 1.0, -0.75, 2.0**100
    a32, b32 = a.astype(np.float32), b.astype(np.float32)
    with np.errstate(over="ignore"):
        expected = a32 @ b32
    found = product(a, b)
    assert np.isinf(expected).any()
    np.testing.assert_array_equal(found.astype(np.float32), expected)


@needs_matrix_unit
def test_what_is_not_finite_stays_in_its_rows_and_columns():
    a, b = draws()
    a[1, 5], a[2, 650], a[3, 7], a[3, 8] = np.inf, np.nan, np.inf, -np.inf
    b[6, 9], b[5, 10] = -np.inf, 0.0
    with np.errstate(invalid="ignore"):
        expected = a @ b
    found = product(a, b)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_array_equal(found[np.isinf(expected)], expected[np.isinf(expected)])
    rows, columns = np.isfinite(expected).any(1), np.isfinite(expected).any(0)
    assert (rows.sum(), columns.sum()) == (42, 39)
    assert error(a[rows], b[:, columns], found[rows][:, columns]) < 5e-7


@needs_matrix_unit
def test_every_tunable_changes_the_binary():
    _, family = in_parts("matmul")
    assert_every_tunable_changes_the_binary(family, {"PACK_B": 1, "ORDER": 0})


@needs_matrix_unit
def test_defaults_obey_their_constraints():
    _, family = in_parts("linear")
    declared = parse_declarations(family.source)
    for values in family.defaults:
        assert all(constraint.holds(values) for constraint in declared.constraints), values


def names(machine, sizes, name="matmul"):
    function, signature = CASES[name]
    program = trace(function, signature, {})
    return [f.name for f in contraction.families(program, Dtype.F32, machine, sizes, "kernel")]


def test_only_where_there_is_a_unit_and_a_tile_to_fill():
    without = replace(MACHINE, isa=tuple(i for i in MACHINE.isa if not i.startswith("amx")))
    lent = replace(MACHINE, isa=(*without.isa, "amx_bf16", "amx_tile"))
    sizes = {"M": 33, "K": 50, "N": 47}
    assert names(without, sizes) == ["contraction"]
    assert names(lent, sizes) == [contraction.PARTS, "contraction"]
    for name in sizes:
        assert names(lent, {**sizes, name: 8}) == ["contraction"]


def test_the_bound_is_by_the_products_that_the_operands_need():
    def unit(function, signature, dtype):
        return unit_of(trace(function, signature, {}), dtype)

    plain, mixed = sig("A:M,K B:K,N", "C:M,N"), sig("A:M,K B:K,N:f32", "C:M,N")
    dtypes = (Dtype.BF16, Dtype.F16, Dtype.F32)
    found = [unit(lambda A, B: A @ B, plain, dtype) for dtype in dtypes]
    assert found == ["bf16 products", "3 bf16 products", "6 bf16 products"]
    found = [unit(lambda A, B: torch.tanh(A) @ B, mixed, dtype) for dtype in dtypes]
    assert found == ["3 bf16 products", "5 bf16 products", "6 bf16 products"]
    masked = sig("A:M,K keep:M,K:b B:K,N", "C:M,N")
    found = unit(lambda A, keep, B: torch.where(keep, A, 0.0) @ B, masked, Dtype.F32)
    assert found == "6 bf16 products"
    assert unit(lambda A, B: A @ B, plain, Dtype.F64) == "fma"
    assert unit(lambda A, B: A + B, sig("A:M B:M", "C:M"), Dtype.F32) == "fma"
    # a kernel in three parts would beat a bound by multiply-adds
    assert fastest_unit("6 bf16 products", 510.0, 6900.0) == ("6 bf16 products", 1150.0)
    assert fastest_unit("6 bf16 products", 510.0, 1000.0) == ("fma", 510.0)
    assert fastest_unit("bf16 products", 510.0, 0.0) == ("fma", 510.0)
    assert fastest_unit("fma", 510.0, 6900.0) == ("fma", 510.0)
