"""The judge on a GPU: right kernels are measured beside the baselines, wrong ones rejected."""

from dataclasses import replace

import pytest
from gpu_support import RMS_NORM, builder, candidate, filled

from kernelwright import suite
from kernelwright.build import Artifact
from kernelwright.evaluation import Judge, JudgeSettings
from kernelwright.machine import probe
from kernelwright.model import Measured, Rejected

SIZES = {"T": 2048, "H": 1024}
QUICK = replace(JudgeSettings.quick(), accept_seconds=4.0)


@pytest.fixture(scope="module")
def judge():
    machine = probe()
    made = Judge(suite.find("rms_norm"), "f32", SIZES, machine, builder(), 1, QUICK, "cuda")
    with made.open():
        yield made


def accepted(judge, text):
    kernel = candidate(text, THREADS=256)
    artifact = builder().build(kernel)
    assert isinstance(artifact, Artifact), artifact
    return judge.accept(kernel, artifact)


def test_a_right_kernel_is_measured_beside_the_baselines(judge):
    verdict = accepted(judge, filled(RMS_NORM))
    assert isinstance(verdict, Measured), verdict
    result = verdict.workloads[0]
    assert result.error <= 1
    assert {"eager", "compile"} <= {peer.name for peer in result.peers} | set(result.absent)
    assert all(peer.passes_check for peer in result.peers if peer.name == "eager")
    assert result.bound is not None
    assert result.bound.median_us > 0
    assert verdict.deterministic


WRONG = {
    "does nothing": (filled(RMS_NORM, START="if (T > 0) return 0;"), "not_written"),
    "zeros": (filled(RMS_NORM, ROW="scale = 0;"), "wrong_result"),
    "one row": (
        filled(RMS_NORM, ROW="if (gridDim.x > 1 && blockIdx.x == gridDim.x / 2) scale *= 1.01f;"),
        "wrong_result",
    ),
    "past the end": (
        filled(RMS_NORM, ROW="if (blockIdx.x == 0 && threadIdx.x == 0) out[gridDim.x * H] = 1;"),
        "red_zone",
    ),
    "writes its input": (
        filled(
            RMS_NORM,
            BEFORE="__global__ void spoil(float* x) { x[0] = 0; }",
            END="spoil<<<1, 1, 0, s>>>((float*)x);",
        ),
        "wrote_input",
    ),
    "returns early at bench sizes": (
        filled(RMS_NORM, START="if (T == 2048 && H == 1024) return 0;"), "not_written",
    ),
    "works on another stream": (
        filled(RMS_NORM, START="static cudaStream_t t = 0; if (!t) cudaStreamCreate(&t); s = t;"),
        "not_written",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_kernel_is_rejected(judge, name):
    text, reason = WRONG[name]
    verdict = accepted(judge, text)
    assert isinstance(verdict, Rejected), verdict
    assert str(verdict.reason) == reason, verdict
