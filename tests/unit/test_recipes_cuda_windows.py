"""Sums over windows in CUDA on the simulated GPU against the interpreter."""

import numpy as np
import pytest
import rowwise_programs as programs
import simulated
from test_codegen_windows import CASES, program_of

from kernelwright.expr.evaluate import evaluate
from kernelwright.model import Dtype
from kernelwright.recipes import cuda as recipes

F32, BF16 = Dtype.F32, Dtype.BF16
TILES = [
    {"ROWS": 2, "PLANES": 3, "THREADS": 32, "TALL": 4, "WIDE": 8},
    {"ROWS": 4, "PLANES": 1, "THREADS": 64, "TALL": 16, "WIDE": 16},
]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("dtype", "tile"), [(F32, TILES[0]), (BF16, TILES[1])])
def test_sums_over_windows(name, dtype, tile):
    program = program_of(name)
    found = recipes.families(program, dtype, {}, "kernel")
    (family,) = [family for family in found if family.name == "windows"]
    library = simulated.binary(family, tile)
    for n, c, height, width in [(1, 1, 1, 1), (2, 2, 5, 9), (1, 2, 21, 33)]:
        known = dict(N=n, C=c, H=height, W=width)
        sizes = {key: known[key] for key in program.signature.dimensions}
        inputs = programs.make_inputs(program, sizes, dtype)
        scalars = {s.name: s.default for s in program.signature.scalars}
        exact = {key: values for key, (_, values) in inputs.items()}
        want = evaluate(program, exact, scalars, sizes, dtype)
        got = programs.call(library, program, sizes, dtype, inputs)
        for key, values in want.items():
            scale = np.abs(values).max(initial=1.0)
            np.testing.assert_allclose(
                got[key], values, rtol=2 * dtype.unit_roundoff, atol=1e-5 * scale
            )


def test_windows_beyond_shared_memory_are_summed_plainly():
    program = program_of("two_branches")
    found = recipes.families(program, F32, {}, "kernel")
    (family,) = [family for family in found if family.name == "windows"]
    source = family.source.replace("224 * 1024", "0")
    assert source != family.source
    library = simulated._binary(source, tuple(sorted(TILES[0].items())))
    sizes = dict(N=1, C=2, H=9, W=13)
    inputs = programs.make_inputs(program, sizes, F32)
    want = evaluate(program, {k: v for k, (_, v) in inputs.items()}, {}, sizes, F32)
    got = programs.call(library, program, sizes, F32, inputs)
    np.testing.assert_allclose(got["taps"], want["taps"], rtol=1e-5, atol=1e-3)
