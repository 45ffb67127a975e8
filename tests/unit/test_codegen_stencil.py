"""Generated stencils against the interpreter: borders exact, at awkward sizes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from compiled_kernel import (
    COMPILERS,
    assert_every_tunable_changes_the_binary,
    build,
    call,
    narrow,
    this_machine,
    widen,
)

from kernelwright import codegen
from kernelwright.codegen import stencil
from kernelwright.expr import evaluate, skeleton
from kernelwright.expr.nodes import Apply, walk
from kernelwright.expr.stencil import Margin, match
from kernelwright.model import Dtype, ScalarArgument, Signature, TensorArgument
from kernelwright.problems.trace import trace

FAST = {"FLAGS": "-O1 -march=native"}
F32, BF16 = Dtype.F32, Dtype.BF16
SIZES = [(3, 3), (3, 4), (5, 33), (37, 64), (64, 130), (9, 1000)]


def tensor(name, *dims, dtype=None):
    return TensorArgument(name, dims, dtype)


def heat(u, r):
    around = u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:]
    return u + F.pad(r * (around - 4 * u[1:-1, 1:-1]), (1, 1, 1, 1))


def periodic(u, r):
    """Wraps around, and reaches two cells on one side only."""
    return u + r * (u.roll(2, 0) + u.roll(-1, 1) + u.roll(1, 1) - 3 * u)


def shifted(u, v):
    """Two outputs: differences, zero at one end; the other clamped at the border."""
    right = F.pad(u[:, 1:] - u[:, :-1], (0, 1))
    below = torch.cat([v[1:], v[-1:]]) * v
    return right, below


def smooth(u):
    return F.pad((u[2:] + u[:-2]) / 2, (3, 0))[:-1]


def marked(u):
    """Single columns, near both ends, and strict comparisons."""
    at, width = torch.arange(u.shape[1]), u.shape[1]
    signed = torch.where(at > 1, u, -u) + torch.where(at >= width - 2, 3.0, 0.0)
    return torch.where(at == 2, 0.0, torch.where(at + 1 <= width - 3, signed, signed * u))


GRID, RATE = (tensor("u", "H", "W"),), (ScalarArgument("r", "float", 0.2),)
CASES = {
    "heat": (heat, Signature(GRID, (tensor("out", "H", "W"),), RATE)),
    "periodic": (periodic, Signature(GRID, (tensor("row", "H", "W"),), RATE)),
    "shifted": (shifted, Signature((*GRID, tensor("v", "H", "W")),
                                   (tensor("right", "H", "W"), tensor("below", "H", "W")))),
    "marked": (marked, Signature(GRID, (tensor("out", "H", "W"),))),
    "smooth": (smooth, Signature((tensor("u", "W"),), (tensor("out", "W"),))),
}  # fmt: skip


def program_of(name):
    function, signature = CASES[name]
    return trace(function, signature, dict(H=(3, 4096), W=(3, 4096)))


def family_of(program, dtype=F32):
    (family,) = stencil.families(program, dtype, this_machine(), {}, "kernel")
    return family


def check(library, program, dtype, sizes):
    signature = program.signature
    sizes = {name: sizes[name] for name in signature.dimensions}
    draw = np.random.default_rng(0)
    inputs = {t.name: narrow(draw.standard_normal(t.shape(sizes)), dtype) for t in signature.inputs}
    scalars = {s.name: s.default for s in signature.scalars}
    exact = {name: widen(array, dtype) for name, array in inputs.items()}
    expected = evaluate(program, exact, scalars, sizes, dtype)
    found = call(library, signature, dtype, inputs, sizes, scalars)
    for t in signature.outputs:
        roundoff = t.resolve(dtype).unit_roundoff
        np.testing.assert_allclose(
            found[t.name], expected[t.name], rtol=2 * roundoff, atol=4e-6, err_msg=str(sizes)
        )


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [F32, BF16])
@pytest.mark.parametrize("changes", [{"ROWS": 1, "STREAM": 0}, {"ROWS": 4, "STREAM": 1}])
def test_agrees_with_the_interpreter_at_odd_sizes(name, dtype, changes):
    program = program_of(name)
    library = build(family_of(program, dtype), FAST | changes)
    for height, width in SIZES:
        check(library, program, dtype, dict(H=height, W=width))


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("changes", [{"LANES": 8, "ROWS": 2}, {"UNROLL": 4, "PREFETCH": 0}])
def test_tunables_keep_the_result(compiler, changes):
    program = program_of("heat")
    library = build(family_of(program), FAST | changes, compiler)
    check(library, program, F32, dict(H=131, W=257))
    check(library, program, F32, dict(H=131, W=256))


def test_every_tunable_changes_the_binary():
    family = family_of(program_of("heat"))
    assert_every_tunable_changes_the_binary(family)


def test_margins():
    assert match(program_of("heat")).margins == (Margin(1, 1), Margin(1, 1))
    assert match(program_of("periodic")).margins == (Margin(2, 0), Margin(1, 1))
    assert match(program_of("marked")).margins == (Margin(), Margin(3, 3))
    assert match(program_of("smooth")).margins == (Margin(3, 0),)


def test_no_conditions_are_left_inside():
    for name in CASES:
        for cell in match(program_of(name)).cells:
            assert not {"where", "mod", "max", "min"} & _operations(cell.inside), name


def _operations(body):
    return {node.op for node in walk(body) if isinstance(node, Apply)}


def test_the_skeleton_and_what_is_no_stencil():
    assert skeleton(program_of("heat")) == "stencil"
    two = (tensor("a", "H", "W"), tensor("b", "H", "K"))
    signature = Signature(two, (tensor("out", "H", "W+K"),))
    joined = trace(lambda a, b: torch.cat([a, b], 1), signature, {})
    names = [
        f.name for f in codegen.families(joined, F32, this_machine(), dict(H=9, W=9, K=3), "kernel")
    ]
    assert names == ["pointwise"]
