"""Products with weights of 4 bits: recognised by what they compute, right at any size."""

from dataclasses import replace

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
from kernelwright.expr import Apply, Constant, Program
from kernelwright.expr.nodes import transform
from kernelwright.model import Dtype
from kernelwright.problems import load_problem, trace_program
from kernelwright.recipes.nibbles import recognise
from kernelwright.space import parse_declarations
from kernelwright.suite import find

FAST = {"FLAGS": "-O1 -march=native"}
GROUP = 128


@pytest.fixture(scope="module")
def program():
    return trace_program(load_problem(find("w4a16_gemm")))


def family_of(program, dtype):
    found = recipes.families(program, dtype, this_machine(), {}, "kernel")
    if "avx512bw" not in this_machine().isa:
        pytest.skip("needs AVX-512")
    (family,) = (family for family in found if family.name == "nibbles")
    return family


def workload(m, g, n, dtype, seed=0):
    draw = np.random.default_rng(seed)
    inputs = {
        "x": narrow(2 + draw.standard_normal((m, GROUP * g)), dtype),
        "q": draw.integers(0, 256, (n, GROUP // 2 * g), np.uint8),
        "s": narrow(10 ** draw.uniform(-3, 0, (n, g)), dtype),
        "z": draw.integers(0, 256, (n, g), np.uint8),
    }
    codes = np.stack((inputs["q"] & 15, inputs["q"] >> 4), -1).reshape(n, g, GROUP)
    weights = (codes.astype(float) - inputs["z"][..., None]) * widen(inputs["s"], dtype)[..., None]
    return inputs, {"M": m, "G": g, "N": n}, weights.reshape(n, -1)


def check(program, library, m, g, n, dtype):
    inputs, sizes, weights = workload(m, g, n, dtype)
    got = call(library, program.signature, dtype, inputs, sizes)["out"]
    x = widen(inputs["x"], dtype)
    terms = np.abs(x) @ np.abs(weights).T
    bound = dtype.unit_roundoff * np.abs(x @ weights.T) + 64 * 2.0**-24 * terms
    assert np.all(np.abs(got - x @ weights.T) <= bound), (m, g, n)


SHAPES = ((1, 1, 1), (1, 3, 64), (3, 2, 65), (5, 1, 130), (9, 2, 15))


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("dtype", [Dtype.F32, Dtype.BF16])
def test_right_at_any_size(program, dtype, compiler):
    library = build(family_of(program, dtype), FAST, compiler)
    for shape in SHAPES:
        check(program, library, *shape, dtype)


@pytest.mark.parametrize(
    "changes", [{"NV": 1, "MR": 12, "AHEAD": 0}, {"NV": 8, "MR": 2}, {"DOT": 0}]
)
def test_right_with_any_tile(program, changes):
    family = family_of(program, Dtype.BF16)
    known = {n: v for n, v in changes.items() if n in parse_declarations(family.source).names}
    library = build(family, FAST | known)
    for shape in SHAPES:
        check(program, library, *shape, Dtype.BF16)


def test_it_is_told_by_what_is_computed(program):
    found = recognise(program)
    assert found is not None
    assert (found.input, found.codes, found.scales, found.zeros) == ("x", "q", "s", "z")
    assert found.group == GROUP

    def changed(change):
        outputs = [replace(o, body=transform(o.body, change)) for o in program.outputs]
        return Program(program.signature, tuple(outputs))

    sixteen = {"mod": "floordiv", "floordiv": "mod"}

    def halves_exchanged(node):
        if isinstance(node, Apply) and node.op in sixteen and node.args[1] == Constant(16):
            return Apply(sixteen[node.op], node.args)
        return node

    def zero_added(node):
        return Apply("add", node.args) if isinstance(node, Apply) and node.op == "sub" else node

    assert recognise(changed(lambda node: node)) is not None
    assert recognise(changed(halves_exchanged)) is None
    assert recognise(changed(zero_added)) is None


def test_weights_that_change_at_every_call_are_left_to_others(program):
    inputs = tuple(replace(tensor, static=False) for tensor in program.signature.inputs)
    assert recognise(Program(replace(program.signature, inputs=inputs), program.outputs)) is None


def test_every_tunable_changes_the_binary(program):
    family = family_of(program, Dtype.BF16)
    assert_every_tunable_changes_the_binary(family)
