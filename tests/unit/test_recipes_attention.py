"""Attention kernels against float64: forms of writing it, masks, groups, pages, odd sizes."""

from dataclasses import replace
from math import sqrt

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

from kernelwright import recipes, suite
from kernelwright.build import CppBuilder
from kernelwright.evaluation import Judge, JudgeSettings
from kernelwright.expr import skeleton, unit_of
from kernelwright.expr.attention import match
from kernelwright.machine import probe
from kernelwright.model import Candidate, Dtype, FrozenMap, Measured, Rejected, Signature
from kernelwright.model import TensorArgument as Tensor
from kernelwright.problems import load_problem, trace_program
from kernelwright.problems.trace import trace
from kernelwright.recipes.attention import MATRIX_UNIT, PARTS
from kernelwright.space import parse_declarations

FAST = {"FLAGS": "-O1 -march=native"}
SMALL = FAST | {"KEYS": 64, "PANELS": 2}
HEADS = Signature(
    (Tensor("q", ("H", "S", "D")), Tensor("k", ("H", "T", "D")), Tensor("v", ("H", "T", "E"))),
    (Tensor("out", ("H", "S", "E")),),
)


def plain(q, k, v):
    return torch.softmax(q @ k.mT / sqrt(q.shape[-1]), -1) @ v


def divided_last(q, k, v):
    scores = torch.einsum("hsd,htd->hst", q, k) * 0.125
    weights = torch.exp(scores - scores.amax(-1, keepdim=True))
    return weights @ v / weights.sum(-1, keepdim=True)


def sloped(q, k, v):
    """Causal, with a distance penalty that differs by head."""
    rows, keys = torch.arange(q.shape[1])[:, None], torch.arange(k.shape[1])
    slope = (1.0 + torch.arange(q.shape[0]))[:, None, None] / 8
    scores = q @ k.mT / sqrt(q.shape[-1]) - slope * (rows - keys).abs()
    return torch.softmax(torch.where(keys <= rows, scores, -torch.inf), -1) @ v


def local(q, k, v):
    """A band, of which only one side is an end, and values that are computed."""
    rows, keys = torch.arange(q.shape[1])[:, None], torch.arange(k.shape[1])
    scores = (q * 0.5) @ (k + 1.0).mT
    scores = scores.masked_fill(keys > rows + 2, -torch.inf)
    return torch.softmax(scores.masked_fill(keys < rows - 9, -torch.inf), -1) @ torch.tanh(v)


FORMS = {"plain": plain, "divided last": divided_last, "sloped": sloped, "local": local}


def family_of(function, dtype, wanted="attention"):
    program = trace(function, HEADS, {})
    found = recipes.families(program, dtype, this_machine(), {"S": 512}, "kernel")
    return next(f for f in found if f.name == wanted)


def check(library, function, dtype, sizes, seed=0, scale=1.0):
    """Outputs within rounding of the inputs' own dtype of the float64 reference."""
    draw = np.random.default_rng(seed)
    inputs = {t.name: narrow(draw.standard_normal(t.shape(sizes)), dtype) for t in HEADS.inputs}
    inputs["q"] = narrow(scale * widen(inputs["q"], dtype), dtype)
    found = call(library, HEADS, dtype, inputs, sizes)["out"]
    exact = function(*(torch.from_numpy(widen(x, dtype)) for x in inputs.values())).numpy()
    bound = 3e-5 if dtype is Dtype.F32 else 2e-2
    assert np.allclose(found, exact, rtol=bound, atol=bound), sizes


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [Dtype.F32, Dtype.BF16])
def test_forms_at_odd_sizes(form, dtype):
    library = build(family_of(FORMS[form], dtype), SMALL)
    for h, s, d, e in ((1, 1, 1, 1), (3, 13, 17, 5), (2, 70, 40, 33), (1, 130, 64, 64)):
        check(library, FORMS[form], dtype, {"H": h, "S": s, "T": s, "D": d, "E": e})
    if form == "plain":
        check(library, plain, dtype, {"H": 2, "S": 3, "T": 500, "D": 65, "E": 7})
        check(library, plain, dtype, {"H": 1, "S": 99, "T": 1, "D": 8, "E": 70})


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize(
    "changes",
    [
        {"MR": 4, "NV": 4, "SPLIT": 256},
        {"FLAGS": "-O1 -march=native -mno-avx512f", "LANES": 8, "MR": 4, "NV": 2},
        {"FLAGS": "-O1 -march=x86-64", "LANES": 4, "MR": 4, "NV": 2},
    ],
)
def test_narrower_processors(compiler, changes):
    changes = SMALL | {"DOT": 0} | changes
    for dtype in (Dtype.F32, Dtype.BF16):
        library = build(family_of(sloped, dtype), changes, compiler)
        check(library, sloped, dtype, {"H": 2, "S": 77, "T": 77, "D": 19, "E": 35})


@pytest.mark.skipif("avx512_bf16" not in this_machine().isa, reason="no vdpbf16ps")
@pytest.mark.parametrize("compiler", COMPILERS)
def test_pairs_of_bf16(compiler):
    library = build(family_of(sloped, Dtype.BF16), SMALL | {"DOT": 1}, compiler)
    for s, d, e in ((1, 1, 1), (13, 17, 5), (77, 70, 33)):
        check(library, sloped, Dtype.BF16, {"H": 2, "S": s, "T": s, "D": d, "E": e})


needs_matrix_unit = pytest.mark.skipif(
    "amx_bf16" not in this_machine().isa, reason="this processor has no matrix unit"
)


@needs_matrix_unit
@pytest.mark.parametrize(
    ("form", "compiler"), [("sloped", c) for c in COMPILERS] + [("local", "g++")]
)
def test_float32_in_three_parts(form, compiler):
    function = FORMS[form]
    library = build(family_of(function, Dtype.F32, PARTS), SMALL, compiler)
    for s, d, e in ((1, 1, 1), (13, 17, 5), (177, 70, 33)):
        check(library, function, Dtype.F32, {"H": 2, "S": s, "T": s, "D": d, "E": e})


@needs_matrix_unit
def test_hard_values_in_three_parts():
    sizes = {"H": 2, "S": 70, "T": 90, "D": 33, "E": 40}
    draw = np.random.default_rng(0)
    inputs = {t.name: draw.standard_normal(t.shape(sizes)) for t in HEADS.inputs}
    inputs["q"][0, 3] *= 1e-30
    inputs["k"][0] *= 1e6
    inputs["v"][0, :, :7] *= 1e-35
    inputs["v"][1, 80, 9], inputs["v"][1, 10, 11] = np.inf, np.nan
    inputs["q"][1, 20, 5] = np.nan
    stored = {name: values.astype(np.float32) for name, values in inputs.items()}
    exact = plain(*(torch.from_numpy(x.astype(np.float64)) for x in stored.values())).numpy()
    errors = []
    for wanted in ("attention", PARTS):
        library = build(family_of(plain, Dtype.F32, wanted), SMALL)
        found = call(library, HEADS, Dtype.F32, stored, sizes)["out"]
        assert (np.isnan(found) == np.isnan(exact)).all()
        assert (found[np.isinf(exact)] == exact[np.isinf(exact)]).all()
        found, exact_here = (np.where(np.isfinite(exact), x, 0) for x in (found, exact))
        scale = np.abs(exact_here).max(axis=1, keepdims=True) + 1e-30
        errors.append((np.abs(found - exact_here) / scale).max())
    assert errors[1] < 1.5 * errors[0]


@needs_matrix_unit
def test_every_tunable_of_three_parts_changes_the_binary():
    assert_every_tunable_changes_the_binary(family_of(plain, Dtype.F32, PARTS))


@needs_matrix_unit
@pytest.mark.parametrize("compiler", COMPILERS)
def test_the_matrix_unit(compiler):
    family = family_of(sloped, Dtype.BF16, MATRIX_UNIT)
    library = build(family, SMALL, compiler)
    for s, d, e in ((1, 1, 1), (13, 17, 5), (177, 70, 33)):
        check(library, sloped, Dtype.BF16, {"H": 2, "S": s, "T": s, "D": d, "E": e})


def test_rows_that_see_nothing_and_huge_scores():
    library = build(family_of(local, Dtype.F32), SMALL)
    sizes = {"H": 1, "S": 40, "T": 8, "D": 4, "E": 3}
    inputs = {t.name: np.ones(t.shape(sizes), np.float32) for t in HEADS.inputs}
    found = call(library, HEADS, Dtype.F32, inputs, sizes)["out"]
    assert np.isnan(found[0, 17:]).all()  # as a softmax of nothing is
    assert np.isfinite(found[0, :17]).all()
    library = build(family_of(plain, Dtype.F32), SMALL)
    check(library, plain, Dtype.F32, {"H": 1, "S": 20, "T": 200, "D": 16, "E": 16}, scale=1e4)


# -- the shipped problems -------------------------------------------------------------------------

SHIPPED = {
    "softmax_attention": dict(S=100, D=24, L=150, E=40),
    "attention_gqa_causal": dict(B=1, Hk=2, G=3, S=50, D=20),
    "paged_decode_attention": dict(B=3, Hk=2, G=4, D=24, P=64, L=20),
}


@pytest.mark.parametrize("name", SHIPPED)
def test_the_judge_finds_shipped_problems_right(name, tmp_path):
    """Every distribution and odd size of the check workloads, through the judge."""
    problem, sizes = load_problem(suite.find(name)), SHIPPED[name]
    program = trace_program(problem)
    assert skeleton(program) == "attention"
    assert [unit_of(program, d) for d in (Dtype.F32, Dtype.BF16)] == [
        "6 bf16 products",
        "bf16 products",
    ]
    machine = probe()
    builder = CppBuilder(machine.toolchains, tmp_path)
    settings = replace(JudgeSettings.quick(), baselines=(), flush_factor=0.02)
    families = recipes.families(program, Dtype.F32, machine, sizes, "kernel")
    family = next(f for f in families if f.name == "attention")
    values = FrozenMap({**family.defaults[0], **SMALL})
    artifact = builder.build(Candidate("cpp", "kernel", family.source, values))
    assert not isinstance(artifact, Rejected), artifact.diagnostic
    candidate = Candidate("cpp", "kernel", family.source, values)
    judge = Judge(suite.find(name), "f32", FrozenMap(sizes), machine, builder, seed=3,
                  settings=settings)  # fmt: skip
    with judge.open():
        verdict = judge.screen(candidate, artifact).verdict
    assert isinstance(verdict, Measured), verdict


def test_weights_of_few_rows_are_not_rounded():
    """Pages that repeat would add their rounding errors up."""
    program = trace_program(load_problem(suite.find("paged_decode_attention")))
    found = recipes.families(program, Dtype.BF16, this_machine(), {"G": 4}, "kernel")
    (family,) = (f for f in found if f.name.startswith("attention"))
    assert "DOT" not in {t.name for t in parse_declarations(family.source).tunables}


def test_heads_that_share_keys_become_rows():
    plan = match(trace_program(load_problem(suite.find("attention_gqa_causal"))))
    assert plan is not None
    assert [b.extent for b in plan.batch] == ["B", "Hk"]
    assert [b.extent for b in plan.rows] == ["S", "G"]
    assert plan.end is not None
    plan = match(trace_program(load_problem(suite.find("paged_decode_attention"))))
    assert plan is not None
    assert [b.extent for b in plan.rows] == ["G"]


def test_every_tunable_changes_the_binary():
    family = family_of(plain, Dtype.F32)
    assert_every_tunable_changes_the_binary(family, {"MR": 4})


OTHERS = {
    "not normalised by its own sum": lambda q, k, v: (
        torch.exp(q @ k.mT - (q @ k.mT).amax(-1, keepdim=True))
        @ v
        / torch.exp(2 * (q @ k.mT)).sum(-1, keepdim=True)
    ),
    "sigmoid": lambda q, k, v: torch.sigmoid(q @ k.mT) @ v,
    "over queries": lambda q, k, v: torch.softmax(q @ k.mT, 1) @ v,
    "weights squared": lambda q, k, v: torch.softmax(q @ k.mT, -1).square() @ v,
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_programs_do_not_match(name):
    assert match(trace(OTHERS[name], HEADS, {})) is None
