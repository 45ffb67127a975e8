"""Scan kernels against exact running sums."""

import numpy as np
import pytest
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
from kernelwright.expr import Apply, Axis, Constant, Load, Output, Parameter, Program, Scan
from kernelwright.expr.scan import match
from kernelwright.model import Dtype, ScalarArgument, Signature, TensorArgument

FAST = {"FLAGS": "-O1 -march=native"}


def vector_program():
    signature = Signature((TensorArgument("x", ("N",)),), (TensorArgument("y", ("N",)),))
    scan = Scan("j", "N", Axis("i"), Load("x", (Axis("j"),)))
    return Program(signature, (Output("y", ("i",), ("N",), scan),))


def rows_program():
    """Of 0.5 * x[t, j] + shift, so that zero padding would show."""
    x, row = TensorArgument("x", ("B", "T", "N")), TensorArgument("row", ("B", "T", "N"))
    signature = Signature((x,), (row,), (ScalarArgument("shift", "float", 1.0),))
    load = Load("x", (Axis("b"), Axis("t"), Axis("j")))
    body = Apply("add", (Apply("mul", (load, Constant(0.5))), Parameter("shift", "float")))
    scan = Scan("j", "N", Axis("i"), body)
    return Program(signature, (Output("row", ("b", "t", "i"), ("B", "T", "N"), scan),))


def family_of(program, dtype):
    (family,) = recipes.families(program, dtype, this_machine(), {}, "kernel")
    return family


def close(got, values, dtype, output):
    """Within one rounding of the output and 8 roundings in float32 of the sum of magnitudes."""
    want, terms = np.cumsum(values, -1), np.cumsum(np.abs(values), -1)
    bound = 2 * output.unit_roundoff * np.abs(want) + 8 * 2.0**-24 * terms
    return np.all(np.abs(got - want) <= bound)


@pytest.mark.parametrize("dtype", [Dtype.F32, Dtype.BF16])
@pytest.mark.parametrize("compiler", COMPILERS)
def test_vector(dtype, compiler):
    program = vector_program()
    library = build(family_of(program, dtype), FAST | {"TILE": 8192}, compiler)
    draw = np.random.default_rng(0)
    for size in (1, 2, 15, 16, 17, 511, 513, 8191, 40000, 8192 * 9 + 5, 250001):
        stored = narrow(draw.standard_normal(size) + 0.25, dtype)
        got = call(library, program.signature, dtype, {"x": stored}, {"N": size})["y"]
        assert close(got, widen(stored, dtype), dtype, dtype), size


@pytest.mark.parametrize("changes", [{}, {"STREAM": 0, "PREFETCH": 0}, {"UNROLL": 1, "LANES": 8}])
def test_rows(changes):
    program = rows_program()
    library = build(family_of(program, Dtype.F32), FAST | {"TILE": 8192} | changes)
    draw = np.random.default_rng(1)
    for b, t, n in ((1, 1, 1), (3, 5, 1), (2, 3, 33), (1, 1, 65537), (7, 2, 4097)):
        stored = narrow(draw.standard_normal((b, t, n)), Dtype.F32)
        sizes = {"B": b, "T": t, "N": n}
        got = call(library, program.signature, Dtype.F32, {"x": stored}, sizes, {"shift": 0.75})
        assert close(got["row"], 0.5 * stored.astype(float) + 0.75, Dtype.F32, Dtype.F32), sizes


def test_infinity_and_nan_stay_behind_their_place():
    program = vector_program()
    library = build(family_of(program, Dtype.F32), FAST | {"TILE": 8192})
    x = np.ones(100000, np.float32)
    x[70000], x[80000] = np.inf, np.nan
    y = call(library, program.signature, Dtype.F32, {"x": x}, {"N": x.size})["y"]
    assert np.array_equal(y[:70000], np.arange(1, 70001))
    assert np.all(np.isposinf(y[70000:80000]))
    assert np.all(np.isnan(y[80000:]))


def test_every_tunable_changes_the_binary():
    family = family_of(vector_program(), Dtype.F32)
    assert_every_tunable_changes_the_binary(family)


def test_other_programs_do_not_match():
    signature = vector_program().signature
    scan = Scan("j", "N", Constant(0), Load("x", (Axis("j"),)))
    assert match(Program(signature, (Output("y", ("i",), ("N",), scan),))) is None
    plain = Program(signature, (Output("y", ("i",), ("N",), Load("x", (Axis("i"),))),))
    assert recipes.families(plain, Dtype.F32, this_machine(), {}, "kernel") == ()
