"""Profiles, sanitizers and telemetry on a GPU: kernels that are slow, or wrong, for one reason."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from gpu_support import RMS_NORM, builder, candidate, filled
from test_cuda_judge import QUICK, SIZES

from kernelwright import suite
from kernelwright.build import Artifact, CudaBuilder, solo_host
from kernelwright.campaign.diagnosing import profile_of
from kernelwright.cuda_driver import first_gpu
from kernelwright.diagnosis import AloneCall, Found, Given, Space, gpu_facts, missing, sanitize
from kernelwright.diagnosis.occupancy import limits_of, occupancy
from kernelwright.diagnosis.tools import find_tool
from kernelwright.evaluation import Judge
from kernelwright.machine import probe
from kernelwright.model import Candidate, Limit, Measured, Reason, Rejected, Stage

KERNELS = (Path(__file__).parent.parent / "profiles" / "kernels.cu").read_text()
needs_sanitizer = pytest.mark.skipif(
    find_tool("compute-sanitizer") is None, reason="no compute-sanitizer"
)


@lru_cache(maxsize=1)
def library() -> Artifact:
    own = CudaBuilder(builder().toolchains, builder().cache, inspects=False)
    artifact = own.build(Candidate("cuda", "copy", KERNELS))
    assert isinstance(artifact, Artifact), artifact
    return artifact


def call(entry: str, n: int) -> AloneCall:
    host = solo_host(builder().toolchains, builder().architecture)
    assert host is not None
    x = np.random.default_rng(1).standard_normal(n, dtype=np.float32).view(np.uint8)
    return AloneCall(host, library().path, entry, (Given(x), Space(4 * n), n))


@pytest.fixture(scope="module")
def judge():
    machine = probe()
    made = Judge(suite.find("rms_norm"), "f32", SIZES, machine, builder(), 1, QUICK, "cuda")
    with made.open():
        yield made


def test_launches_are_told_and_occupancy_is_what_the_runtime_says():
    kernels, asked = gpu_facts(library(), call("spill", 1 << 20), first_gpu().architecture)
    (kernel,) = kernels
    assert (kernel.name, kernel.launches, kernel.grid, kernel.block) == ("overflows", 1, 1024, 1024)
    assert kernel.us > 0
    fits = occupancy(
        limits_of(first_gpu().architecture), kernel.block, kernel.registers, kernel.shared_bytes
    )
    assert kernel.blocks_per_multiprocessor == fits.blocks
    assert "launches" in asked.sources
    assert asked.energy_mj is None or asked.energy_mj > 0
    if "counters" in asked.sources:
        assert len(kernel.counters) > 20
    else:
        assert asked.absent["counters"]


@needs_sanitizer
@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("copy", None),
        ("past_the_end", Reason.OUT_OF_BOUNDS),
        ("race", Reason.DATA_RACE),
        ("uninitialised", Reason.UNINITIALISED),
    ],
)
def test_sanitizers_find_what_single_calls_do_not_show(entry, reason):
    found = sanitize(call(entry, 1024))
    if reason is None:
        assert found == dict.fromkeys(("memcheck", "racecheck", "initcheck"), "clean")
    else:
        assert isinstance(found, Found), found
        assert found.reason is reason
        assert "(" in found.words  # names the kernel


@needs_sanitizer
def test_a_right_kernel_that_reads_past_the_end_is_not_published(judge):
    kernel = candidate(
        filled(RMS_NORM, ROW="if (to_float(x[gridDim.x * H]) == 12345) scale = 0;"), THREADS=256
    )
    artifact = builder().build(kernel)
    assert isinstance(artifact, Artifact), artifact
    verdict = judge.accept(kernel, artifact)
    assert isinstance(verdict, Rejected), verdict
    assert (verdict.stage, verdict.reason) == (Stage.ACCEPT, Reason.OUT_OF_BOUNDS), verdict


def test_an_accepted_kernel_has_telemetry_and_a_profile(judge):
    kernel = candidate(filled(RMS_NORM), THREADS=256)
    artifact = builder().build(kernel)
    assert isinstance(artifact, Artifact), artifact
    verdict = judge.accept(kernel, artifact)
    assert isinstance(verdict, Measured), verdict
    if find_tool("compute-sanitizer"):
        assert set(verdict.sanitized.values()) == {"clean"}, verdict.sanitized
    telemetry = verdict.workloads[0].telemetry
    assert (telemetry is None) == (missing() is not None)
    if telemetry is not None:
        assert 0 < telemetry.lowest_clock_mhz <= telemetry.clock_mhz <= telemetry.most_clock_mhz
        assert telemetry.power_w > 10
        assert 10 < telemetry.temperature_c < 110
    profile = profile_of(judge, kernel, artifact, verdict.workloads[0])
    assert profile.kernels[0].name == "normalise<float>"
    assert profile.findings
    assert profile.limit in set(Limit)
    print(profile)
