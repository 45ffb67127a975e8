"""Nearest-centre kernels against exact distances, near ties and far offsets included."""

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

from kernelwright import recipes
from kernelwright.expr import unit_of
from kernelwright.expr.pairwise import match
from kernelwright.model import Dtype, Signature, TensorArgument
from kernelwright.problems.trace import trace

FAST = {"FLAGS": "-O1 -march=native"}
SIGNATURE = Signature(
    (TensorArgument("x", ("N", "D")), TensorArgument("c", ("K", "D"))),
    (TensorArgument("label", ("N",), Dtype.I32), TensorArgument("least", ("N",), Dtype.F32)),
)


def plain(x, c):
    found = (x[:, None] - c[None]).square().sum(-1).min(-1)
    return found.indices.to(torch.int32), found.values


def expanded(x, c):
    square = x.square().sum(-1, keepdim=True) - 2 * (x @ c.t()) + c.square().sum(-1)
    return square.argmin(-1).to(torch.int32), square.min(-1).values


def rooted(x, c):
    distance = (x[:, None, :] - c[None, :, :]).pow(2).sum(-1).clamp_min(0).sqrt()
    return distance.argmin(-1).to(torch.int32), distance.amin(-1)


FORMS = {"plain": plain, "expanded": expanded, "rooted": rooted}


UNIT = "pairwise on the matrix unit"
needs_matrix_unit = pytest.mark.skipif(
    "amx_bf16" not in this_machine().isa, reason="this processor has no matrix unit"
)


def family_of(form, dtype, wanted="pairwise"):
    program = trace(FORMS[form], SIGNATURE, {})
    found = recipes.families(program, dtype, this_machine(), {}, "kernel")
    (family,) = [family for family in found if family.name == wanted]
    return family


def check(library, x, c, dtype, root=False):
    """Labels are nearest up to 1e-6 of the distance, ties go down; distances are exact."""
    sizes = {"N": len(x), "D": x.shape[1], "K": len(c)}
    found = call(library, SIGNATURE, dtype, {"x": x, "c": c}, sizes)
    points, centres = widen(x, dtype), widen(c, dtype)
    square = ((points[:, None] - centres[None]) ** 2).sum(-1)
    label, least = found["label"], found["least"]
    chosen = np.take_along_axis(square, label[:, None].astype(int), 1)[:, 0]
    assert np.all(chosen <= square.min(1) * (1 + 1e-6))
    assert np.all(label <= np.where(chosen == square.min(1), square.argmin(1), label))
    want = np.sqrt(chosen) if root else chosen
    assert np.allclose(least, want, rtol=3e-6, atol=1e-30)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("dtype", "wanted"), [
    (Dtype.F32, "pairwise"), (Dtype.BF16, "pairwise"),
    pytest.param(Dtype.BF16, UNIT, marks=needs_matrix_unit),
])  # fmt: skip
def test_forms_at_odd_sizes(form, dtype, wanted):
    library = build(family_of(form, dtype, wanted), FAST)
    draw = np.random.default_rng(0)
    for n, d, k in ((1, 1, 1), (13, 17, 1), (37, 5, 33), (100, 64, 129), (29, 130, 65)):
        x, c = (narrow(draw.standard_normal(shape), dtype) for shape in ((n, d), (k, d)))
        check(library, x, c, dtype, form == "rooted")


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("changes", [{}, {"LANES": 8, "MR": 6, "NV": 3}, {"MR": 4, "NV": 1}])
def test_hard_values(compiler, changes):
    library = build(family_of("plain", Dtype.F32), FAST | changes, compiler)
    draw = np.random.default_rng(1)
    x = draw.standard_normal((200, 20)).astype(np.float32)
    c = draw.standard_normal((70, 20)).astype(np.float32)
    c[50:] = c[:20]
    check(library, x, c, Dtype.F32)  # equal centres: the lower index
    check(library, c[::-1].copy(), c, Dtype.F32)  # points on centres: distance 0
    offset = np.float32(1000.0)
    check(library, x + offset, c + offset, Dtype.F32)  # scores lose all their digits
    check(library, x * np.float32(1e18), c * np.float32(1e18), Dtype.F32)


@needs_matrix_unit
@pytest.mark.parametrize("compiler", COMPILERS)
def test_hard_values_on_the_matrix_unit(compiler):
    library = build(family_of("plain", Dtype.BF16, UNIT), FAST, compiler)
    draw = np.random.default_rng(1)
    x, c = draw.standard_normal((200, 20)), draw.standard_normal((70, 20))
    c[50:] = c[:20]
    for points, centres in (
        (x, c), (c[::-1], c), (x + 100, c + 100), (x * 1e18, c * 1e18),
        (x * 1e18, c * 1e-39), (x * 1e-39, c * 1e18),  # the unit takes the small ones for zeros
    ):  # fmt: skip
        check(library, narrow(points, Dtype.BF16), narrow(centres, Dtype.BF16), Dtype.BF16)


def test_nan_and_infinity():
    library = build(family_of("plain", Dtype.F32), FAST)
    x = np.ones((4, 3), np.float32)
    c = np.zeros((40, 3), np.float32)
    x[1, 2], x[2, 0] = np.nan, np.inf
    sizes = {"N": 4, "D": 3, "K": 40}
    found = call(library, SIGNATURE, Dtype.F32, {"x": x, "c": c}, sizes)
    assert found["label"].tolist() == [0, 0, 0, 0]
    assert found["least"][[0, 3]].tolist() == [3.0, 3.0]
    assert np.isnan(found["least"][1])
    assert np.isposinf(found["least"][2])
    c[7, 0] = np.nan
    found = call(library, SIGNATURE, Dtype.F32, {"x": x, "c": c}, sizes)
    assert found["label"].tolist() == [7, 0, 7, 7]


def test_every_tunable_changes_the_binary():
    family = family_of("plain", Dtype.F32)
    assert_every_tunable_changes_the_binary(family, {"MR": 4})


@pytest.mark.parametrize(
    "function",
    [
        lambda x, c: (
            ((x[:, None] - c[None]).abs().sum(-1).argmin(-1).to(torch.int32),) * 1
            + ((x[:, None] - c[None]).abs().sum(-1).amin(-1),)
        ),
        lambda x, c: ((x @ c.t()).argmin(-1).to(torch.int32), (x @ c.t()).amin(-1)),
        lambda x, c: (
            (x[:, None] - c[None]).square().sum(-1).argmax(-1).to(torch.int32),
            (x[:, None] - c[None]).square().sum(-1).amin(-1),
        ),
    ],
)
def test_other_programs_do_not_match(function):
    assert match(trace(function, SIGNATURE, {})) is None


def test_what_bounds_it():
    for form, function in FORMS.items():
        program = trace(function, SIGNATURE, {})
        assert unit_of(program, Dtype.BF16) == "bf16 products", form
        assert unit_of(program, Dtype.F32) == "6 bf16 products"
