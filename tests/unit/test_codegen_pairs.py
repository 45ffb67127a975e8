"""Generated kernels over all pairs against the interpreter, at awkward sizes."""

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

from kernelwright import codegen
from kernelwright.codegen import pairs
from kernelwright.expr import evaluate, skeleton
from kernelwright.expr.nodes import Apply, Constant, Load, Parameter, walk
from kernelwright.expr.powers import inverse_roots
from kernelwright.model import Dtype, ScalarArgument, Signature, TensorArgument
from kernelwright.problems.trace import trace

FAST = {"FLAGS": "-O1 -march=native"}
F32, BF16 = Dtype.F32, Dtype.BF16
SIZES = [dict(N=1, M=1, B=1), dict(N=3, M=17, B=2), dict(N=130, M=33, B=3), dict(N=37, M=700, B=1)]


def tensor(name, *dims, dtype=None):
    return TensorArgument(name, dims, dtype)


def forces(x, m, eps):
    d = x[None] - x[:, None]
    r2 = d.square().sum(-1) + eps * eps
    return (m[None, :, None] * d / r2.pow(1.5)[..., None]).sum(1)


def kernel_density(x, y, w):
    gap = (x[:, :, None] - y[:, None]).square().sum(-1)
    return (torch.exp(-gap) * w[:, None]).sum(-1)


def nearest(x, y):
    found = (x[:, None] - y[None]).square().sum(-1).min(-1)
    return found.values.sqrt(), found.indices


def neighbours(x, y, radius):
    """How many are near, and the greatest gap but for equal numbers."""
    gap = (x[:, None] - y[None]).abs().sum(-1)
    same = torch.arange(x.shape[0])[:, None] == torch.arange(y.shape[0])
    return (gap < radius).sum(-1), torch.where(same, 0.0, gap).amax(-1)


CASES = {
    "forces": (forces, Signature(
        (tensor("x", "N", "3"), tensor("m", "N")), (tensor("out", "N", "3"),),
        (ScalarArgument("eps", "float", 0.05),))),
    "kernel_density": (kernel_density, Signature(
        (tensor("x", "B", "N", "2"), tensor("y", "B", "M", "2"), tensor("w", "B", "M")),
        (tensor("lanes", "B", "N"),))),
    "nearest": (nearest, Signature(
        (tensor("x", "N", "5"), tensor("y", "M", "5")),
        (tensor("gap", "N"), tensor("index", "N", dtype=Dtype.I64)))),
    "neighbours": (neighbours, Signature(
        (tensor("x", "N", "3"), tensor("y", "M", "3")),
        (tensor("count", "N", dtype=Dtype.I64), tensor("far", "N")),
        (ScalarArgument("radius", "float", 2.0),))),
}  # fmt: skip


def program_of(name):
    function, signature = CASES[name]
    return trace(function, signature, {})


def family_of(program, dtype=F32):
    (family,) = pairs.families(program, dtype, this_machine(), {}, "kernel")
    return family


def check(library, program, dtype, inputs, sizes):
    signature = program.signature
    scalars = {s.name: s.default for s in signature.scalars}
    exact = {name: widen(array, dtype) for name, array in inputs.items()}
    with np.errstate(all="ignore"):
        expected = evaluate(program, exact, scalars, sizes, dtype)
    found = call(library, signature, dtype, inputs, sizes, scalars)
    for t in signature.outputs:
        own = t.resolve(dtype)
        if not own.is_float:
            np.testing.assert_array_equal(found[t.name], expected[t.name])
            continue
        scale = np.abs(expected[t.name]).max() if np.isfinite(expected[t.name]).all() else 1.0
        np.testing.assert_allclose(
            found[t.name], expected[t.name], rtol=2 * own.unit_roundoff + 2e-6, atol=2e-6 * scale
        )


def draw(program, sizes, dtype, seed=0):
    generator = np.random.default_rng(seed)
    return {t.name: narrow(generator.standard_normal(t.shape(sizes)), dtype)
            for t in program.signature.inputs}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [F32, BF16])
def test_agrees_with_the_interpreter_at_odd_sizes(name, dtype):
    program = program_of(name)
    assert skeleton(program) == "pairwise reduce"
    library = build(family_of(program, dtype), FAST)
    for sizes in SIZES:
        sizes = {k: v for k, v in sizes.items() if k in program.signature.dimensions}
        check(library, program, dtype, draw(program, sizes, dtype), sizes)


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("changes", [
    {"LANES": 8, "VECTORS": 3}, {"VECTORS": 6, "UNROLL": 4, "TILE": 128}, {"VECTORS": 1},
])  # fmt: skip
def test_tunables_keep_the_result(compiler, changes):
    program, sizes = program_of("forces"), dict(N=301)
    library = build(family_of(program), FAST | changes, compiler)
    check(library, program, F32, draw(program, sizes, F32), sizes)


def test_every_tunable_changes_the_binary():
    family = family_of(program_of("forces"))
    assert_every_tunable_changes_the_binary(family)


def test_ties_go_to_the_first_and_not_a_number_wins():
    program, sizes = program_of("nearest"), dict(N=40, M=90)
    library = build(family_of(program), FAST)
    inputs = draw(program, sizes, F32)
    inputs["y"][45:] = inputs["y"][:45]
    inputs["x"][:20] = inputs["y"][30:50]
    check(library, program, F32, inputs, sizes)
    inputs["y"][7, 2] = np.nan
    found = call(library, program.signature, F32, inputs, sizes, {})
    assert np.isnan(found["gap"]).all()
    assert (found["index"] == 7).all()


def test_equal_and_far_points_have_finite_forces():
    """Inverse roots of 0 and of infinity are infinity and 0, not NaN."""
    program, sizes = program_of("forces"), dict(N=50)
    library = build(family_of(program), FAST)
    inputs = draw(program, sizes, F32)
    inputs["x"][10:20] = inputs["x"][:10]
    inputs["x"][3] = 3e19
    found = call(library, program.signature, F32, inputs, sizes, {"eps": 0.05})["out"]
    assert np.isfinite(found).all()
    check(library, program, F32, draw(program, sizes, F32, 1), sizes)


def test_half_powers_become_inverse_roots():
    x, a = Load("x", ()), Parameter("a", "float")
    root = Apply("sqrt", (x,))
    for body in (
        Apply("div", (a, Apply("pow", (x, Constant(1.5))))),
        Apply("div", (a, Apply("mul", (x, root)))),
        Apply("div", (a, Apply("mul", (root, Apply("mul", (root, root)))))),
        Apply("div", (a, Apply("pow", (root, Constant(3))))),
        Apply("mul", (a, Apply("pow", (x, Constant(-1.5))))),
        Apply("mul", (a, Apply("pow", (Apply("rsqrt", (x,)), Constant(3.0))))),
    ):
        operations = [n.op for n in walk(inverse_roots(body)) if isinstance(n, Apply)]
        assert set(operations) == {"mul", "rsqrt"}, body
    # even powers need no root: |x| must not become x
    for body in (Apply("div", (a, Apply("pow", (x, Constant(2.0))))),
                 Apply("pow", (Apply("pow", (x, Constant(2.0))), Constant(0.5)))):  # fmt: skip
        operations = [n.op for n in walk(inverse_roots(body)) if isinstance(n, Apply)]
        assert "rsqrt" not in operations


@pytest.mark.parametrize("function", [
    lambda x, y: x @ y,  # an operand of both
    lambda x, y: x.sum(-1) + y[0],  # one side
    lambda x, y: (x[:, :1] * y).softmax(-1)[:, 0],  # levels
])  # fmt: skip
def test_other_forms_are_left_to_others(function):
    signature = Signature((tensor("x", "N", "M"), tensor("y", "M")), (tensor("out", "N"),))
    program = trace(function, signature, {})
    names = [f.name for f in codegen.families(program, F32, this_machine(), {}, "kernel")]
    assert "pairs" not in names
