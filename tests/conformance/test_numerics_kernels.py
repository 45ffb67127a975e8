"""Honest plain kernels pass the real check on hard values; ones with a usual mistake do not."""

import re
from dataclasses import replace

import pytest

from kernelwright.build import Builders
from kernelwright.build.cache import user_cache_folder
from kernelwright.errors import ProblemError
from kernelwright.evaluation import Judge, JudgeSettings
from kernelwright.evaluation.screening import check_workloads
from kernelwright.machine import probe
from kernelwright.model import Candidate, Dtype, FrozenMap, Rejected
from kernelwright.problems import load_problem, parse_reference

HEAD = """
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from kernelwright.problems import problem

def declared(*distributions):
    return problem(
        dtypes=("f32",), sizes={"cpu": [dict(T=33, H=65)]}, ranges=dict(T=(1, 3000), H=(1, 3000)),
        distributions=distributions,
    )

def planted(sizes, generator, values):
    x = torch.randn((sizes["T"], sizes["H"]), generator=generator)
    for value in values:
        x[torch.rand(x.shape, generator=generator) < 0.05] = value
    return x
"""
ROWS = """
#include "kernelwright.h"
#include <cfloat>
#include <cmath>
extern "C" int kernel(const float* x, OUT* out, int64_t T, int64_t H,
                      const void*, void*, int64_t, void*) {
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < T; ++t) {
        const float* row = x + t * H;
        OUT* to = out + t * H;
        @BODY@
    }
    return 0;
}
"""
LOG_SOFTMAX = (
    """
@declared("normal", "huge", "outliers")
def hard(x: Float[Tensor, "T H"]) -> Float[Tensor, "T H"]:
    return x - torch.logsumexp(x, -1, keepdim=True)

@hard.inputs("minus infinity")
def minus_infinity(sizes, scalars, generator):
    x = planted(sizes, generator, [float("-inf")])
    x[:, 0] = 1
    return {"x": x}
""",
    """
        float most = -INFINITY;
        for (int64_t h = 0; h < H; ++h) most = std::fmax(most, row[h]);
        double sum = 0;
        for (int64_t h = 0; h < H; ++h) sum += std::exp(double(row[h] - most));
        for (int64_t h = 0; h < H; ++h) to[h] = float(row[h] - (most + std::log(sum)));
""",
    {
        "no maximum": ("most = std::fmax(most, row[h]);", "most = 0;"),
        "finite start of the maximum": ("float most = -INFINITY;", "float most = 0;"),
        "last element dropped": ("h = 0; h < H; ++h) sum", "h = 0; h < H - (H > 1); ++h) sum"),
    },
)
CENTRED = (
    """
@declared("normal", "offset", "mixed_rows", "cancelling")
def hard(x: Float[Tensor, "T H"]) -> Float[Tensor, "T H"]:
    c = x - x.mean(-1, keepdim=True)
    return c * torch.rsqrt(c.square().mean(-1, keepdim=True) + 1e-6)
""",
    """
        double sum = 0, squares = 0;
        for (int64_t h = 0; h < H; ++h) sum += row[h];
        const float mean = float(sum / H);
        for (int64_t h = 0; h < H; ++h) squares += (row[h] - mean) * (row[h] - mean);
        const float scale = 1 / std::sqrt(float(squares / H) + 1e-6f);
        for (int64_t h = 0; h < H; ++h) to[h] = (row[h] - mean) * scale;
""",
    {
        "squares less the mean's": (
            "squares += (row[h] - mean) * (row[h] - mean);",
            "squares += row[h] * row[h]; squares -= H * mean * mean;",
        ),
        "one row less": ("squares / H", "squares / (H > 1 ? H - 1 : 1)"),
        "a guard that hides small rows": ("1e-6f", "1e-5f"),
    },
)
DENORMAL = (
    """
@declared("normal")
def hard(x: Float[Tensor, "T H"]) -> Float[Tensor, "T H"]:
    return x * 1e20 + x * 1e19

@hard.inputs("denormal")
def denormal(sizes, scalars, generator):
    return {"x": planted(sizes, generator, []) * 1e-39}
""",
    "for (int64_t h = 0; h < H; ++h) to[h] = row[h] * 1e20f + row[h] * 1e19f;",
    {
        "denormal inputs are zeros": (
            "to[h] = row[h] * 1e20f + row[h] * 1e19f;",
            "to[h] = std::fabs(row[h]) < FLT_MIN ? 0 : row[h] * 1e20f + row[h] * 1e19f;",
        ),
        "few bits are left": ("row[h] * 1e20f + row[h] * 1e19f", "row[h] * 1e-4f * 1.1e24f"),
    },
)
CLAMPED = (
    """
@declared("normal", "huge")
def hard(x: Float[Tensor, "T H"]) -> Float[Tensor, "T H"]:
    return torch.clamp(x, min=0.0) + x * 0.5

@hard.inputs("not finite")
def not_finite(sizes, scalars, generator):
    return {"x": planted(sizes, generator, [float("nan"), float("inf"), float("-inf"), -0.0])}
""",
    """for (int64_t h = 0; h < H; ++h)
            to[h] = (std::isnan(row[h]) ? row[h] : row[h] > 0 ? row[h] : 0) + row[h] * 0.5f;""",
    {
        "NaN is ignored": (
            "std::isnan(row[h]) ? row[h] : row[h] > 0 ? row[h] : 0) + row[h] * 0.5f",
            "row[h] > 0 ? row[h] * 1.5f : row[h] < 0 ? row[h] * 0.5f : 0)",
        ),
        "infinities saturate": (
            "row[h] > 0 ? row[h] : 0) + row[h] * 0.5f",
            "row[h] > 0 ? std::fmin(row[h] * 1.5f, FLT_MAX) : row[h] * 0.5f)",
        ),
        "minus infinity is finite": ("+ row[h] * 0.5f", "+ std::fmax(row[h] * 0.5f, -FLT_MAX)"),
    },
)
FIRST_GREATEST = (
    """
@declared("normal", "outliers")
def hard(x: Float[Tensor, "T H"]) -> Int64[Tensor, "T"]:
    return x.argmax(-1)

@hard.inputs("ties")
def ties(sizes, scalars, generator):
    return {"x": torch.randint(0, 3, (sizes["T"], sizes["H"]), generator=generator).float()}
""",
    """
        int64_t best = 0;
        for (int64_t h = 1; h < H; ++h)
            if (row[h] > row[best]) best = h;
        out[t] = best;
        (void)to;
""",
    {
        "the last of ties": ("row[h] > row[best]", "row[h] >= row[best]"),
        "the last element dropped": ("h < H", "h < H - 1"),
        "a second element taken for granted": (
            "int64_t best = 0;", "int64_t best = H == 1 ? 1 : 0;"
        ),
    },
)  # fmt: skip
PROBLEMS = {
    "log_softmax": LOG_SOFTMAX,
    "centred": CENTRED,
    "denormal": DENORMAL,
    "clamped": CLAMPED,
    "first_greatest": FIRST_GREATEST,
}


@pytest.fixture(scope="module", params=PROBLEMS)
def opened(request, tmp_path_factory):
    """A judge of one problem; how a changed kernel ends; its mistakes by name."""
    problem, body, mistakes = PROBLEMS[request.param]
    path = tmp_path_factory.mktemp("numerics") / f"{request.param}.py"
    path.write_text(HEAD + problem)
    machine = probe()
    builder = Builders(machine.toolchains, user_cache_folder())
    settings = replace(JudgeSettings.quick(), baselines=(), secret_sets=2, flush_factor=0.02)
    reference = parse_reference(str(path))
    out = load_problem(reference).signature.outputs[0].resolve(Dtype.F32).c_type

    with Judge(reference, "f32", None, machine, builder, seed=3, settings=settings).open() as judge:

        def fault_of(change):
            assert change is None or change[0] in body
            text = body if change is None else body.replace(*change)
            source = re.sub(r"\bOUT\b", out, ROWS).replace("@BODY@", text)
            candidate = Candidate("cpp", "kernel", source, FrozenMap({"FLAGS": "-O1"}))
            artifact = builder.build(candidate)
            assert not isinstance(artifact, Rejected), artifact.diagnostic
            session = judge.session(candidate, artifact)
            assert not isinstance(session, Rejected), session.diagnostic
            try:
                return check_workloads(judge, session)[0]
            finally:
                session.close()

        yield judge, fault_of, mistakes


def test_plain_kernels_pass_and_usual_mistakes_are_found(opened):
    judge, fault_of, mistakes = opened
    assert not judge.checks.refused, judge.checks.refused
    fault = fault_of(None)
    assert fault is None, fault.diagnostic
    for name, change in mistakes.items():
        found = fault_of(change)
        assert found is not None, name
        assert found.reason in ("wrong_result", "not_written"), (name, found)


def test_every_size_is_checked_as_1_and_none_as_0(opened):
    judge, _, _ = opened
    sizes = [dict(workload.sizes) for workload in judge.checks.workloads]
    for name in ("T", "H"):
        assert min(size[name] for size in sizes) == 1
        assert any(size[name] == 1 and max(size.values()) > 1 for size in sizes)
    assert {"T": 1, "H": 1} in sizes


def test_a_size_of_0_cannot_be_declared(tmp_path):
    path = tmp_path / "empty.py"
    path.write_text((HEAD + LOG_SOFTMAX[0]).replace("T=(1, 3000)", "T=(0, 3000)"))
    with pytest.raises(ProblemError, match="1 <= least"):
        load_problem(parse_reference(str(path)))
