"""Triton candidates on a GPU: right ones are measured, wrong ones rejected, faults stay theirs."""

from dataclasses import replace

import pytest
from test_cuda_judge import QUICK

from kernelwright import suite
from kernelwright.build import Artifact, Builders, user_cache_folder
from kernelwright.campaign.evaluate import at_defaults
from kernelwright.evaluation import Judge
from kernelwright.machine import probe
from kernelwright.model import Family, Lineage, Measured, Reason, Rejected

pytest.importorskip("triton")

EAGER = replace(QUICK, baselines=("eager",))
HEAD = """
import triton
import triton.language as tl

# @tune WARPS = 4, 8

"""
RMS_NORM = (
    HEAD
    + """
@triton.jit
def rows(x, w, out, H, eps, BLOCK: tl.constexpr):
    lanes = tl.arange(0, BLOCK)
    row = tl.program_id(0).to(tl.int64) * H
    squares = tl.zeros([BLOCK], tl.float32)
    for start in range(0, H, BLOCK):
        at = start + lanes
        value = tl.load(x + row + at, mask=at < H, other=0.0).to(tl.float32)
        squares += value * value
    scale = 1 / tl.sqrt(tl.sum(squares) / H + eps)
    for start in range(0, H, BLOCK):
        at = start + lanes
        value = tl.load(x + row + at, mask=at < H, other=0.0).to(tl.float32)
        weight = tl.load(w + at, mask=at < H, other=0.0).to(tl.float32)
        result = value * scale * weight
        tl.store(out + row + at, result.to(out.dtype.element_ty), mask=at < H)


def kernel(x, w, out, *, T, H, eps, WARPS):
    rows[(T,)](x, w, out, H, eps, BLOCK=1024, num_warps=WARPS)
"""
)
SOFTMAX = (
    HEAD
    + """
@triton.jit
def rows(x, out, H, BLOCK: tl.constexpr):
    lanes = tl.arange(0, BLOCK)
    row = tl.program_id(0).to(tl.int64) * H
    top = tl.full([BLOCK], float("-inf"), tl.float32)
    for start in range(0, H, BLOCK):
        at = start + lanes
        value = tl.load(x + row + at, mask=at < H, other=float("-inf")).to(tl.float32)
        top = tl.maximum(top, value)
    greatest = tl.max(top)
    powers = tl.zeros([BLOCK], tl.float32)
    for start in range(0, H, BLOCK):
        at = start + lanes
        value = tl.load(x + row + at, mask=at < H, other=float("-inf")).to(tl.float32)
        powers += tl.exp(value - greatest)
    whole = tl.sum(powers)
    for start in range(0, H, BLOCK):
        at = start + lanes
        value = tl.load(x + row + at, mask=at < H, other=float("-inf")).to(tl.float32)
        result = tl.exp(value - greatest) / whole
        tl.store(out + row + at, result.to(out.dtype.element_ty), mask=at < H)


def kernel(x, out, *, T, H, WARPS):
    rows[(T,)](x, out, H, BLOCK=1024, num_warps=WARPS)
"""
)
SOURCES = {"rms_norm": RMS_NORM, "softmax": SOFTMAX}


@pytest.fixture(scope="module", params=SOURCES)
def judged(request):
    """A judge, and the source of a right kernel."""
    machine = probe()
    builders = Builders(machine.toolchains, user_cache_folder())
    sizes = {"T": 2048, "H": 1024}
    problem = suite.find(request.param)
    judge = Judge(problem, "bf16", sizes, machine, builders, 1, EAGER, "cuda")
    with judge.open():
        yield judge, SOURCES[request.param]


def accepted(judge, source):
    family = Family("mine", "triton", "kernel", source, Lineage("own"))
    candidate = at_defaults(family, judge)
    artifact = judge.builder.build(candidate)
    assert isinstance(artifact, Artifact), artifact
    return judge.accept(candidate, artifact)


WRONG = {
    "off by a hundredth": ("result = ", "result = 1.02 * ", Reason.WRONG_RESULT),
    "one row alone": ("rows[(T,)]", "rows[(1,)]", Reason.NOT_WRITTEN),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_kernel_is_rejected(judged, name):
    judge, source = judged
    right, wrong, reason = WRONG[name]
    verdict = accepted(judge, source.replace(right, wrong))
    assert isinstance(verdict, Rejected), verdict
    assert verdict.reason is reason, verdict


def test_an_error_that_stays_costs_one_verdict_and_a_right_kernel_is_measured(judged):
    """An illegal access ends the context of its process, and nothing else."""
    judge, source = judged
    verdict = accepted(judge, source.replace("out + row + at,", "out + row + at + (1 << 40),"))
    assert isinstance(verdict, Rejected), verdict
    assert verdict.reason is Reason.CRASH, verdict
    verdict = accepted(judge, source)
    assert isinstance(verdict, Measured), verdict
    assert verdict.workloads[0].error <= 1
    assert verdict.workloads[0].peers
