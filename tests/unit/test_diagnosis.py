"""What limits kernels: on records of real tools (`tests/profiles`), and on this processor."""

import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest
from execution_support import toolchains

from kernelwright.build import Artifact, CppBuilder
from kernelwright.build.ptxas import parse_resources
from kernelwright.diagnosis import Situation, diagnose, processor_facts, sanitizers, tools
from kernelwright.diagnosis.alone import AloneOutcome, told
from kernelwright.diagnosis.counters import METRICS, parse_counters
from kernelwright.diagnosis.disassembly import gpu_mixes
from kernelwright.diagnosis.facts import energy_mj, joined, plain_name
from kernelwright.diagnosis.occupancy import limits_of, occupancy
from kernelwright.diagnosis.rules import Asked
from kernelwright.diagnosis.telemetry import Reader
from kernelwright.model import Candidate, Dtype, FrozenMap, Limit, Profile, Workload
from kernelwright.store import from_json, to_json
from kernelwright.testing import samples

RECORDS = Path(__file__).parents[1] / "profiles"
N = 1 << 22
GPU = replace(
    samples.gpu(), architecture="sm_90a", multiprocessors=132, read_gbs=4540.0, write_gbs=4649.0,
    copy_gbs=4153.0, peak_gbs=4814.0, fma_gflops=65900.0, launch_us=3.5,
)  # fmt: skip
WORKLOAD = Workload("scaled", Dtype.F32, FrozenMap({"N": N}))
ASKED = Asked(("rates",), FrozenMap())


@lru_cache(maxsize=1)
def records():
    solo = dict(line.split(" ", 1) for line in (RECORDS / "solo.txt").read_text().splitlines())
    return (
        parse_resources((RECORDS / "ptxas.txt").read_text()),
        gpu_mixes((RECORDS / "sass.txt").read_text()),
        parse_counters((RECORDS / "ncu.csv").read_text()),
        {name: told(AloneOutcome(0, f"noise\n{text}", "", 1.0)) for name, text in solo.items()},
    )


def profiled(entry: str, counted: bool, operations: float = N) -> Profile:
    resources, mixes, counters, documents = records()
    document = documents[entry]
    kernels = joined(resources, mixes, document, counters if counted else {}, "sm_90a")
    moved = 8 * N if entry != "launch" else 8 * 256 * 16
    situation = Situation(
        "cuda", WORKLOAD, document["call_us"], moved, operations, moved / GPU.copy_gbs / 1e3,
        operations / GPU.fma_gflops / 1e3, "fma", kernels, GPU,
    )  # fmt: skip
    return diagnose(situation, ASKED)


@pytest.mark.parametrize(
    ("entry", "limit"),
    [
        ("copy", Limit.MEMORY),
        ("stride", Limit.UNCOALESCED),
        ("bank", Limit.BANK_CONFLICTS),
        ("chain", Limit.LATENCY),
        ("few", Limit.OCCUPANCY),
        ("spill", Limit.SPILLS),
        ("barrier", Limit.SYNCHRONISATION),
        ("atomic", Limit.ATOMICS),
        ("multiply", Limit.COMPUTE),
        ("launch", Limit.LAUNCH),
    ],
)
def test_with_counters_each_kernel_is_slow_for_its_reason(entry, limit):
    profile = profiled(entry, counted=True)
    assert profile.limit is limit, profile.findings
    first = profile.findings[0]
    assert first.evidence
    assert first.moves
    assert all(0 < finding.weight <= 1 for finding in profile.findings)


@pytest.mark.parametrize(
    ("entry", "limit"),
    [
        ("copy", Limit.MEMORY),
        ("chain", Limit.LATENCY),
        ("few", Limit.OCCUPANCY),
        ("spill", Limit.SPILLS),
        ("barrier", Limit.SYNCHRONISATION),
        ("atomic", Limit.ATOMICS),
        ("launch", Limit.LAUNCH),
    ],
)
def test_without_counters_the_code_says_as_much(entry, limit):
    limits = [finding.limit for finding in profiled(entry, counted=False).findings]
    assert limit in limits[:3], limits


def test_what_is_at_a_ceiling_needs_no_other_explanation():
    profile = profiled("multiply", counted=False, operations=N * 64 * 32 * 2)
    assert profile.limit is Limit.COMPUTE
    assert profile.compute_share > 0.8


def test_a_profile_is_a_record():
    profile = profiled("spill", counted=True)
    again = from_json(json.loads(json.dumps(to_json(profile))), Profile)
    assert again == profile
    (kernel,) = profile.kernels
    assert (kernel.name, kernel.spill_bytes > 0, kernel.registers) == ("overflows", True, 32)
    assert (kernel.blocks_per_multiprocessor, kernel.occupancy_limiter) == (2, "registers")


def test_occupancy_is_what_the_runtime_says():
    table = json.loads((RECORDS / "occupancy.json").read_text())
    limits = limits_of("sm_90a")
    for registers, threads, shared, blocks in table["rows"]:
        assert occupancy(limits, threads, registers, shared).blocks == blocks
    assert len(table["rows"]) > 300
    assert 32 * limits.warps == table["threads"]
    assert (limits.blocks, limits.shared_bytes, limits.reserved_bytes) == (
        table["blocks"], table["shared"], table["reserved"],
    )  # fmt: skip
    assert limits_of("sm_12") is None


def test_instructions_are_counted_by_kind():
    mixes = records()[1]
    copies, strides = mixes["_Z6copiesPK6float4PS_l"], mixes["_Z7stridesPKfPfl"]
    assert (copies["global loads 128 bit"], copies["global stores 128 bit"]) == (1, 1)
    assert copies["bytes in flight"] == 16
    assert strides["global loads 32 bit"] == 1
    assert mixes["_Z8barriersPKfPfl"]["loop barriers"] > 0
    assert mixes["_Z4addsPKfPfl"]["atomics"] == 1
    assert mixes["_Z10multipliesPKfPfl"]["loop float"] == 32
    assert mixes["_Z9overflowsPKfPfl"]["loop local loads"] > 10


def test_what_is_asked_for_was_recorded():
    assert set(METRICS) <= set((RECORDS / "metrics.txt").read_text().split())
    copies = parse_counters((RECORDS / "ncu.csv").read_text())["_Z6copiesPK6float4PS_l"]
    assert set(copies) == set(METRICS)


def test_what_is_no_answer_of_a_tool_is_nothing():
    assert parse_counters("==ERROR== ERR_NVGPUCTRPERM\n") == {}
    assert gpu_mixes("cuobjdump fatal: no cubin\n") == {}
    assert told(AloneOutcome(0, "KERNELWRIGHT {broken", "", 1.0)) is None
    assert told(AloneOutcome(4, "KERNELWRIGHT {}", "", 1.0)) is None
    assert energy_mj({"energy": {"millijoules": 30, "calls": 10, "seconds": 1.0}}) is None
    assert energy_mj({"energy": {"millijoules": 3000, "calls": 10, "seconds": 1.0}}) == 300
    assert plain_name("_Z4sumsIfEvPKT_PS0_l") == "sums<float>"
    assert plain_name("kernel") == "kernel"


def test_sanitizers_are_quoted_without_frames_of_the_host():
    def said(tool: str, entry: str) -> str:
        log = (RECORDS / f"{tool}-{entry}.txt").read_text()
        return sanitizers.finding(sanitizers.TOOLS[tool], log)

    race = said("racecheck", "race")
    assert race.startswith("Error: Race reported between Write access at turns(")
    unset = said("initcheck", "uninitialised")
    assert "Uninitialized __global__ memory read of size 4 bytes" in unset
    assert "Host Frame" not in unset
    outside = said("memcheck", "past_the_end")
    assert outside.startswith("Invalid __global__ read of size 4 bytes; at reads_on(")
    for tool in sanitizers.TOOLS.values():  # what is said about ourselves is no finding
        for words in ("Target application returned an error", "Error: Device not supported"):
            assert (
                sanitizers.finding(tool, f"========= {words}\n========= ERROR SUMMARY: 1\n") == ""
            )
    for name in ("racecheck-barrier", "initcheck-copy"):
        log = (RECORDS / f"{name}.txt").read_text()
        assert sanitizers.is_clean(AloneOutcome(0, "", log, 1.0))
        assert not sanitizers.is_clean(AloneOutcome(None, "", log, 60.0))
    assert not sanitizers.is_clean(AloneOutcome(0, "", "", 1.0))


def test_where_no_sanitizer_is_the_result_says_so(monkeypatch):
    monkeypatch.setattr(sanitizers, "find_tool", lambda name: None)
    found = sanitizers.sanitize(None)
    assert set(found) == {"memcheck", "racecheck", "initcheck"}
    assert set(found.values()) == {sanitizers.MISSING}


class Management:
    """Two readings of a GPU, one of them hot; then it refuses."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    class NVMLError(Exception):
        pass

    def __init__(self):
        self.rounds = 0

    def nvmlDeviceGetClockInfo(self, device, which):
        self.rounds += which == self.NVML_CLOCK_SM
        if self.rounds > 2:
            raise self.NVMLError
        return (1980 if self.rounds == 1 else 1200) if which == self.NVML_CLOCK_SM else 3201

    def nvmlDeviceGetMaxClockInfo(self, device, which):
        return 1980

    def nvmlDeviceGetPowerUsage(self, device):
        return 650_000

    def nvmlDeviceGetTemperature(self, device, which):
        return 50 + 30 * (self.rounds - 1)

    def nvmlDeviceGetCurrentClocksEventReasons(self, device):
        return 0x1 if self.rounds == 1 else 0x24


def test_a_throttled_measurement_is_flagged():
    reader = Reader(Management(), None)
    assert reader.summary() is None
    for _ in range(3):
        reader.read()
    state = reader.summary()
    assert state is not None
    assert (state.readings, state.lowest_clock_mhz, state.temperature_c) == (2, 1200, 80)
    assert dict(state.throttling) == {"power limit": 0.5, "heat": 0.5}
    assert state.throttled
    assert not replace(state, throttling=FrozenMap()).throttled
    measured = samples.measured()
    hot = replace(measured.workloads[0], telemetry=state)
    verdict = replace(measured, workloads=(hot, *measured.workloads[1:]))
    assert any("throttled" in warning for warning in verdict.warnings)


SERIAL = """
extern "C" int kernel(const float* x, float* y, long n, const void*, void*, long, void*) {
    for (long i = 1; i < n; ++i) y[i] = y[i - 1] * 0.5f + x[i];
    return 0;
}
"""
PACKED = """
extern "C" int kernel(const float* __restrict x, float* __restrict y, long n, const void*, void*,
                      long, void*) {
    for (long i = 0; i < n; ++i) y[i] = x[i] * 0.5f + x[i] * x[i];
    return 0;
}
"""


@pytest.mark.skipif(tools.find_tool("objdump") is None, reason="no objdump")
def test_on_a_processor_single_values_are_told_from_vectors(tmp_path):
    builder = CppBuilder(toolchains(), tmp_path)

    def limits(source: str) -> list[Limit]:
        artifact = builder.build(Candidate("cpp", "kernel", source))
        assert isinstance(artifact, Artifact), artifact
        kernels, asked = processor_facts(artifact)
        assert asked.sources == ("rates", "disassembly")
        situation = Situation(
            "cpu", WORKLOAD, 1000.0, 8 * N, N, 200.0, 100.0, "fma", kernels, vector_bits=256
        )
        return [finding.limit for finding in diagnose(situation, asked).findings]

    assert limits(SERIAL)[0] is Limit.SCALAR
    assert Limit.SCALAR not in limits(PACKED)
