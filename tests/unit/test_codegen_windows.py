"""Generated sums over windows against the interpreter, at awkward sizes."""

import numpy as np
import pytest
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

from kernelwright.codegen import windows
from kernelwright.expr import evaluate, skeleton
from kernelwright.expr.windows import match
from kernelwright.model import Dtype, ScalarArgument, Signature, TensorArgument
from kernelwright.problems.trace import trace

FAST = {"FLAGS": "-O1 -march=native"}
F32, BF16 = Dtype.F32, Dtype.BF16
SIZES = [(1, 1, 1, 1), (2, 3, 5, 2), (1, 2, 9, 33), (3, 1, 17, 64), (1, 1, 40, 700)]


def tensor(name, *dims):
    return TensorArgument(name, dims)


def two_branches(x, large, small):
    groups = x.shape[1]
    wide = F.conv2d(x, large[:, None], padding=(3, 4), groups=groups)
    return wide + F.conv2d(x, small[:, None], padding=1, groups=groups)


def with_epilogue(x, w, b):
    """Padding on one side, a signal that is computed, a bias and an activation."""
    y = F.conv1d(F.pad(x.abs(), (4, 0)), w[:, None], b, groups=x.shape[1])
    return F.relu(y)


def shifted(x, w, scale):
    """Written out as shifted sums over an unfolded view, without padding."""
    return scale * (x.unfold(0, 3, 1) * w).sum(-1)


CASES = {
    "two_branches": (two_branches, Signature(
        (tensor("x", "N", "C", "H", "W"), tensor("large", "C", "7", "9"),
         tensor("small", "C", "3", "3")), (tensor("taps", "N", "C", "H", "W"),))),
    "with_epilogue": (with_epilogue, Signature(
        (tensor("x", "N", "C", "W"), tensor("w", "C", "5"), tensor("b", "C")),
        (tensor("out", "N", "C", "W"),))),
    "shifted": (shifted, Signature(
        (tensor("x", "W+2"), tensor("w", "3")), (tensor("out", "W"),),
        (ScalarArgument("scale", "float", 0.5),))),
}  # fmt: skip


def program_of(name):
    function, signature = CASES[name]
    return trace(function, signature, {})


def family_of(program, dtype=F32):
    (family,) = windows.families(program, dtype, this_machine(), {}, "kernel")
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
            found[t.name], expected[t.name], rtol=2 * roundoff, atol=2e-5, err_msg=str(sizes)
        )


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [F32, BF16])
def test_agrees_with_the_interpreter_at_odd_sizes(name, dtype):
    program = program_of(name)
    assert skeleton(program) == "stencil"
    library = build(family_of(program, dtype), FAST)
    for n, c, height, width in SIZES:
        check(library, program, dtype, dict(N=n, C=c, H=height, W=width))


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("changes", [
    {"LANES": 8, "ROWS": 2, "VECTORS": 3, "TAPS": 4}, {"ROWS": 7, "VECTORS": 2, "COLUMNS": 512},
    {"ROWS": 8, "VECTORS": 1},
])  # fmt: skip
def test_tunables_keep_the_result(compiler, changes):
    program = program_of("two_branches")
    library = build(family_of(program), FAST | changes, compiler)
    check(library, program, F32, dict(N=1, C=2, H=23, W=601))
    check(library, program, F32, dict(N=1, C=1, H=6, W=9))


def test_every_tunable_changes_the_binary():
    family = family_of(program_of("two_branches"))
    assert_every_tunable_changes_the_binary(family)


def test_a_window_inside_of_another_is_folded():
    plan = match(program_of("two_branches"))
    assert [(w.top, w.left, w.rows, w.columns) for w in plan.windows] == [
        (3, 4, "7", "9"), (1, 1, "3", "3"),
    ]  # fmt: skip
    assert (plan.height, plan.width) == ("H", "W")


@pytest.mark.parametrize("function", [
    lambda x, w: F.conv2d(x, w[:, None], padding=3, dilation=3, groups=x.shape[1]),
    lambda x, w: F.conv2d(F.pad(x, (1, 1, 1, 1), value=1.0), w[:, None], groups=x.shape[1]),
    lambda x, w: F.conv2d(x, w[:, None], padding=1, groups=x.shape[1]) ** 2
    + F.conv2d(x, w[:, None], padding=1, groups=x.shape[1]).abs() * x,
], ids=["dilated", "padded with ones", "twice"])  # fmt: skip
def test_other_forms_are_right_or_left_alone(function):
    signature = Signature(
        (tensor("x", "N", "C", "H", "W"), tensor("w", "C", "3", "3")),
        (tensor("out", "N", "C", "H", "W"),),
    )
    program = trace(function, signature, {})
    families = windows.families(program, F32, this_machine(), {}, "kernel")
    for family in families:
        check(build(family, FAST), program, F32, dict(N=2, C=2, H=7, W=19))


def test_zero_windows_are_no_windows():
    signature = Signature((tensor("x", "N", "M"),), (tensor("out", "N"),))
    program = trace(lambda x: (x * x).sum(-1), signature, {})
    assert match(program) is None
