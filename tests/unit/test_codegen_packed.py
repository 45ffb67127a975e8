"""Contractions whose right operand is a weight: packed before the call, by default."""

import ctypes
from dataclasses import replace

import numpy as np
import pytest
from compiled_kernel import COMPILERS, build, call, narrow, this_machine, widen

from kernelwright import codegen
from kernelwright.expr import Program
from kernelwright.model import Dtype
from kernelwright.problems import load_problem, trace_program
from kernelwright.space import parse_declarations
from kernelwright.suite import find

FAST = {"FLAGS": "-O1 -march=native"}
SIZES = {"M": 384, "K": 1024, "N": 640, "G": 16}
SHAPES = ((1, 1, 1), (3, 300, 65), (70, 513, 200))


def program_of(name):
    return trace_program(load_problem(find(name)))


def families_of(program, dtype):
    return codegen.families(program, dtype, this_machine(), SIZES, "kernel")


def close(got, x, weights, dtype):
    terms = np.abs(x) @ np.abs(weights)
    want = x @ weights
    return np.all(np.abs(got - want) <= dtype.unit_roundoff * np.abs(want) + 1e-6 * terms)


@pytest.mark.parametrize("partition", [0, 1])
@pytest.mark.parametrize("dtype", [Dtype.F32, Dtype.BF16])
def test_a_packed_weight(dtype, partition):
    program = program_of("packed_matrix_mul")
    draw = np.random.default_rng(0)
    for family in families_of(program, dtype):
        assert family.defaults[0]["PACK_B"] == 3
        library = build(family, FAST | {"PARTITION": partition, "KC": 256})
        for m, k, n in SHAPES:
            a = narrow(draw.standard_normal((m, k)), dtype)
            b = narrow(draw.standard_normal((k, n)), dtype)
            sizes = {"M": m, "K": k, "N": n}
            got = call(library, program.signature, dtype, {"A": a, "B": b}, sizes)["out"]
            assert close(got, widen(a, dtype), widen(b, dtype), dtype), (family.name, sizes)


@pytest.mark.parametrize("compiler", COMPILERS)
def test_a_weight_that_is_computed_from_others(compiler):
    """As dequantised weights are: what is packed are their values."""
    program, dtype = program_of("w4a16_gemm"), Dtype.F32
    for family in families_of(program, dtype):
        library = build(family, FAST, compiler)
        draw = np.random.default_rng(1)
        for m, g, n in ((1, 1, 1), (7, 3, 70)):
            inputs = {
                "x": narrow(draw.standard_normal((m, 128 * g)), dtype),
                "q": draw.integers(0, 256, (n, 64 * g), np.uint8),
                "s": narrow(draw.random((n, g)), dtype),
                "z": draw.integers(0, 16, (n, g), np.uint8),
            }
            got = call(library, program.signature, dtype, inputs, {"M": m, "G": g, "N": n})["out"]
            codes = np.stack((inputs["q"] & 15, inputs["q"] >> 4), -1).reshape(n, g, 128)
            weights = (codes - inputs["z"][..., None].astype(float)) * inputs["s"][..., None]
            assert close(got, inputs["x"].astype(float), weights.reshape(n, -1).T, dtype)


def test_other_schedules_pack_in_the_call_and_export_nothing():
    program = program_of("packed_matrix_mul")
    for family in families_of(program, Dtype.F32):
        library = build(family, FAST | {"PACK_B": 1})
        assert isinstance(library, ctypes.CDLL)
        assert not hasattr(library, "kernel_prepare")
        assert not hasattr(library, "kernel_prepared")
        a, b = np.ones((5, 33), np.float32), np.ones((33, 70), np.float32)
        sizes = {"M": 5, "K": 33, "N": 70}
        got = call(library, program.signature, Dtype.F32, {"A": a, "B": b}, sizes)["out"]
        assert np.all(got == 33)


@pytest.mark.parametrize("static", [(), ("A",)])
def test_what_is_no_weight_is_packed_in_the_call(static):
    program = program_of("packed_matrix_mul")
    signature = program.signature
    inputs = tuple(replace(tensor, static=tensor.name in static) for tensor in signature.inputs)
    changed = Program(replace(signature, inputs=inputs), program.outputs)
    for family in families_of(changed, Dtype.F32):
        (packing,) = (t for t in parse_declarations(family.source).tunables if t.name == "PACK_B")
        assert 3 not in packing.values
