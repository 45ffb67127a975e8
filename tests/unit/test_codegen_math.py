"""Accuracy of the vector functions, in units in the last place, against float64."""

import ctypes
import math

import numpy as np
import pytest
import rowwise_programs as programs
from compiled_kernel import build, call, narrow, this_machine

from kernelwright.codegen import rowwise
from kernelwright.codegen.library import paste
from kernelwright.model import Dtype, Signature, TensorArgument
from kernelwright.problems.trace import trace

# function: (building block, exact value, allowed error in ulp)
FUNCTIONS = {
    "exp": ("exp", np.exp, 1.5), "exp2": ("exp2", np.exp2, 1.5), "expm1": ("expm1", np.expm1, 2.0),
    "log": ("log", np.log, 1.5), "log2": ("log2", np.log2, 2.0), "log1p": ("log1p", np.log1p, 2.0),
    "tanh": ("tanh", np.tanh, 2.0), "atan": ("atan", np.arctan, 2.5),
    "erf": ("erf", np.vectorize(math.erf), 2.0),
    "sigmoid": ("sigmoid", lambda x: 1 / (1 + np.exp(-x)), 3.0),
    "sin": ("sincos", np.sin, 2.0), "cos": ("sincos", np.cos, 2.0), "sqrt": ("sqrt", np.sqrt, 0.5),
    "floor": ("rounding", np.floor, 0), "ceil": ("rounding", np.ceil, 0),
    "trunc": ("rounding", np.trunc, 0), "round_even": ("rounding", np.rint, 0),
    "sign": ("sign", np.sign, 0), "rsqrt": ("rsqrt", lambda x: 1 / np.sqrt(x), 1.5),
}  # fmt: skip
INCLUDES = "\n".join(f"#include {h}" for h in (
    '"kernelwright.h"', "<algorithm>", "<cmath>", "<cstdint>", "<cstring>", "<utility>",
    "<omp.h>", "<immintrin.h>"))  # fmt: skip


def points():
    generator = np.random.default_rng(1)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 88.72, 88.73, 89, -87.4, -103.9, -104, 1e-40,
               -1e-40, 0.625, 1e10, -3e38, 0.5, 1.5, 2.5, 8388609, -126, -149, -151, 127.9,
               128]  # fmt: skip
    parts = [special, generator.standard_normal(20000) * 3, generator.uniform(-110, 110, 20000),
             np.exp(generator.uniform(-90, 88, 20000)) * generator.choice([-1, 1], 20000),
             ]  # fmt: skip
    values = np.concatenate(parts).astype(np.float32)
    return np.concatenate([values, np.zeros(-len(values) % 32, np.float32)])


@pytest.fixture(scope="module", params=[4, 16])
def library(request, tmp_path_factory):
    blocks = {block for block, _, _ in FUNCTIONS.values()} | {"load_floats", "store_floats"}
    source = INCLUDES + "\n" + paste(blocks)
    for name in FUNCTIONS:
        source += f"""
extern "C" void apply_{name}(const float* x, float* y, int64_t n) {{
    constexpr simd::all_lanes lanes{{}};
    for (int64_t i = 0; i < n; i += LANES)
        simd::store(y + i, simd::{name}(simd::load(x + i, lanes)), lanes);
}}"""
    folder = tmp_path_factory.mktemp("math")
    return ctypes.CDLL(str(programs.compile_source(source, folder, {"LANES": request.param})))


@pytest.mark.parametrize("lanes", [4, 16])
def test_the_rational_erf_errs_little_more_and_never_leaves_its_range(lanes, tmp_path):
    text = f"""{INCLUDES}
{paste({"erf", "load_floats", "store_floats"})}
extern "C" void apply(const float* x, float* y, int64_t n) {{
    constexpr simd::all_lanes lanes{{}};
    for (int64_t i = 0; i < n; i += LANES)
        simd::store(y + i, simd::erf(simd::load(x + i, lanes)), lanes);
}}"""
    values = {"LANES": lanes, "RATIONAL_ERF": 1}
    library = ctypes.CDLL(str(programs.compile_source(text, tmp_path, values)))
    x = points()
    y = np.empty_like(x)
    library.apply(*(ctypes.c_void_p(a.ctypes.data) for a in (x, y)), ctypes.c_int64(len(x)))
    exact = np.vectorize(math.erf)(x.astype(np.float64))
    np.testing.assert_array_equal(np.isnan(y), np.isnan(x))
    error = np.abs(y - exact) / np.maximum(np.spacing(np.abs(exact).astype(np.float32)), 2.0**-149)
    assert np.nanmax(error) <= 7
    assert np.nanmax(error[np.abs(x) < 1]) <= 3.5
    assert np.nanmax(np.abs(y)) == 1


@pytest.mark.parametrize("name", FUNCTIONS)
def test_error_in_ulp(library, name):
    x = points()
    y = np.empty_like(x)
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (x, y)]
    getattr(library, f"apply_{name}")(*pointers, ctypes.c_int64(len(x)))
    with np.errstate(all="ignore"):
        exact = FUNCTIONS[name][1](x.astype(np.float64))
        nearest = exact.astype(np.float32)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(exact))
    infinite = np.isinf(nearest)
    np.testing.assert_array_equal(y[infinite], nearest[infinite])
    finite = np.isfinite(nearest)
    # below the normal range the error counts in units of the least normal number
    unit = np.maximum(np.spacing(np.abs(nearest[finite])), 2.0**-149).astype(np.float64)
    if name == "sigmoid":
        unit = np.maximum(unit, 2.0**-127)
    error = np.abs(y[finite].astype(np.float64) - exact[finite]) / unit
    worst = error.argmax()
    assert error[worst] <= FUNCTIONS[name][2], f"{error[worst]} ulp at {x[finite][worst]!r}"


@pytest.mark.parametrize("lanes", [16, 8])
def test_every_kind_of_value_is_narrowed_to_bfloat16_bit_by_bit(lanes):
    """Subnormal numbers, infinities and NaN too, which instructions treat as they like."""
    signature = Signature(
        (TensorArgument("x", ("N",), Dtype.F32),), (TensorArgument("out", ("N",)),)
    )
    program = trace(lambda x: -x, signature, {})
    (family,) = rowwise.families(program, Dtype.BF16, this_machine(), {"N": 1 << 16}, "kernel")
    library = build(family, {"LANES": lanes, "FLAGS": "-O2 -march=native"})
    draw = np.random.default_rng(5)
    bits = draw.integers(0, 1 << 32, 1 << 16, dtype=np.uint64).astype(np.uint32)
    bits[::7] &= 0x807FFFFF  # subnormal
    bits[: 1 << 12] |= 0x7F800000  # infinities and NaN
    bits[1 << 13 : 1 << 14] = (bits[1 << 13 : 1 << 14] & 0xFFFF0000) | 0x8000  # ties
    ordinary = (bits & 0x7F800000 != 0) & (bits & 0x7F800000 != 0x7F800000)
    bits[1 << 15 :][~ordinary[1 << 15 :]] = 0x3F800001  # half of them without any such value
    values = bits.view(np.float32)
    out = call(library, signature, Dtype.BF16, {"x": values}, {"N": values.size})["out"]
    found, wanted = narrow(out, Dtype.BF16), narrow(-values, Dtype.BF16)
    numbers = ~np.isnan(values)
    np.testing.assert_array_equal(found[numbers], wanted[numbers])
    assert np.isnan(out[~numbers]).all()
