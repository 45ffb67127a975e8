"""Small records to test with: one of every kind, every field set.

The golden archives hold these records, so existing ones do not change; add new ones instead.
"""

from dataclasses import replace

from kernelwright.model import (
    Bound,
    Candidate,
    Claim,
    Dtype,
    Estimate,
    Exchange,
    Family,
    Finding,
    FrozenMap,
    Gpu,
    KernelFacts,
    Limit,
    Lineage,
    Machine,
    Measured,
    Peer,
    Profile,
    PublicProblem,
    Reason,
    Rejected,
    ScalarArgument,
    Signature,
    Stage,
    Telemetry,
    TensorArgument,
    Toolchain,
    Usage,
    Workload,
    WorkloadResult,
)

SOURCE = """#include "kernelwright.h"
// @tune LANES = 8, 4, 16
// @tune UNROLL = 2, 1, 4
// @tune CXX = g++, clang++
// @require LANES * UNROLL <= 32
extern "C" int kernel(const float* x, float* out, int64_t N, double scale, const void* prepared,
                      void* workspace, int64_t workspace_bytes, void* stream) {
#pragma omp parallel for
  for (int64_t i = 0; i < N; i += LANES * UNROLL)
    for (int64_t j = i; j < N && j < i + LANES * UNROLL; ++j) out[j] = float(scale) * x[j];
  return 0;
}
"""
"""A right kernel for `problem()`."""

CUDA_SOURCE = """\
#include "kernelwright.h"
__global__ void scale(const float* x, float* y, int64_t n, float factor) {
  const int64_t first = (blockIdx.x * (int64_t)blockDim.x + threadIdx.x) * UNROLL;
  for (int k = 0; k < UNROLL; ++k)
    if (first + k < n) y[first + k] = factor * x[first + k];
}
extern "C" int kernel(const float* x, float* y, int64_t n, double factor, const void*, void*,
                      int64_t, void* stream) {
  const unsigned blocks = (unsigned)((n + 32 * LANES * UNROLL - 1) / (32 * LANES * UNROLL));
  scale<<<blocks, 32 * LANES, 0, (cudaStream_t)stream>>>(x, y, n, (float)factor);
  return cudaGetLastError();
}
"""
PYTHON_SOURCE = """import torch
# @tune LANES = 8, 4, 16
# @tune UNROLL = 2, 1, 4
# @require LANES * UNROLL <= 32


def kernel(x, out, *, N, scale, LANES, UNROLL):
    torch.mul(x, scale, out=out)
"""
"""The same in Python."""


def problem() -> PublicProblem:
    """One input, one scalar: `out = scale * x`."""
    return PublicProblem(
        name="scaled",
        scenario="test",
        summary="Scale a vector.",
        signature=Signature(
            (TensorArgument("x", ("N",), static=True),),
            (TensorArgument("out", ("N",), Dtype.F32),),
            (ScalarArgument("scale", "float", 2.0),),
        ),
        dtypes=(Dtype.F32,),
        sizes=FrozenMap({"cpu": (FrozenMap({"N": 1000}),)}),
        ranges=FrozenMap({"N": (1, 4096)}),
        distributions=("normal", "huge"),
        peers=("torch.mul",),
        source="a test",
        reference_text="def scaled(x, scale=2.0): return scale * x",
        derived=("sizes come from the example",),
    )


def family() -> Family:
    """A family with two defaults."""
    defaults = (
        FrozenMap({"LANES": 8, "UNROLL": 4, "CXX": "g++"}),
        FrozenMap({"LANES": 16, "UNROLL": 2, "CXX": "clang++"}),
    )
    return Family(
        "scale", "cpp", "kernel", SOURCE, Lineage("test", ("0" * 64,), "by hand"), defaults
    )


def candidate(lanes: int = 8, unroll: int = 2) -> Candidate:
    """A candidate of `family()`."""
    values = FrozenMap({"LANES": lanes, "UNROLL": unroll, "CXX": "g++"})
    lineage = Lineage("test", (), "from samples")
    return Candidate("cpp", "kernel", SOURCE, values, family().identity, lineage)


def workload() -> Workload:
    """A bench workload of `problem()`."""
    sizes, scalars = FrozenMap({"N": 1000}), FrozenMap({"scale": 2.0, "flag": True, "k": 3})
    return Workload("scaled", Dtype.F32, sizes, scalars, "normal", "bench")


def measured(median_us: float = 12.5, accepted: bool = True) -> Measured:
    """A verdict with raw samples, a bound, two peers and an absent one."""
    samples = {
        "candidate": tuple(median_us + 0.25 * i for i in range(5)),
        "eager": (30.0, 31.0, 1 / 3),
        "roof": (8.0,),
    }
    result = WorkloadResult(
        workload=workload(),
        time_us=Estimate(median_us, median_us - 0.1, median_us + 0.1),
        rounds=5,
        bound=Bound(8.0, "memory", 8000, 1000.0, "triad 2:1", 60.5),
        fraction_of_bound=0.64,
        peers=(
            Peer("eager", Estimate(30.0, 29.0, 31.0), Estimate(2.4, 2.3, 2.5), True, 0.2),
            Peer(
                "compile", Estimate(20.0, 19.0, 21.0), Estimate(1.6, 1.5, 1.7), False, float("inf")
            ),
        ),
        absent=FrozenMap({"torch.mul": "not installed"}),
        error=0.25,
        samples_us=FrozenMap(samples),
        within_target=False,
    )
    bare = WorkloadResult(workload(), Estimate(1.0, 1.0, 1.0), 1)
    return Measured((result, bare), accepted)


def telemetry() -> Telemetry:
    """The state of a GPU that was slowed down at times."""
    return Telemetry(
        12, 1755.0, 1410.0, 1980.0, 3201.0, 512.5, 71.0, FrozenMap({"power limit": 0.25})
    )


def profile() -> Profile:
    """A diagnosis with everything in it."""
    finding = Finding(
        Limit.SPILLS, 0.75, "scaled: values travel", FrozenMap({"bytes spilled": 64.0}), ("less",)
    )
    kernel = KernelFacts(
        "scaled", 1, 12.25, 4096, 256, 32, 1024, 64, 2, "registers",
        FrozenMap({"instructions": 99}), FrozenMap({"gpu__time_duration.sum": 12250.0}),
    )  # fmt: skip
    return Profile(
        "cuda", workload(), 12.5, 0.5, 0.25, (finding,), (kernel,), 3.5, ("rates", "ptxas"),
        FrozenMap({"counters": "ncu is not installed"}),
    )  # fmt: skip


def accepted() -> Measured:
    """A verdict with a claim, whose held-out size collapses."""
    claim = Claim("eager", "faster", Estimate(2.4, 2.3, 2.5), 40, Estimate(2.3, 2.1, 2.6), 12)
    slow = Peer("eager", Estimate(60.0, 59.0, 61.0), Estimate(0.5, 0.4, 0.6), True, 0.1)
    unseen = replace(workload(), sizes=FrozenMap({"N": 4093}), tier="heldout")
    heldout = WorkloadResult(
        unseen, Estimate(120.0, 119.0, 121.0), 7, peers=(slow,), collapsed=True
    )
    return Measured((measured().workloads[0], heldout), True, claim, False)


def rejected() -> Rejected:
    """A verdict against a candidate."""
    return Rejected(Stage.CHECK, Reason.WRONG_RESULT, "out[3] is 7, not 6 ± 0.1\nunder 'huge' ½")


def gpu() -> Gpu:
    """An NVIDIA H200 as its driver describes it, with rates that were measured on one."""
    return Gpu(
        name="NVIDIA H200",
        architecture="sm_90a",
        multiprocessors=132,
        l2_bytes=60 << 20,
        memory_bytes=143771 << 20,
        shared_bytes=227 << 10,
        registers=65536,
        threads=2048,
        clock_mhz=1980.0,
        memory_clock_mhz=3201.0,
        bus_bits=6144,
        driver="580.159.04",
        peak_gbs=4917.0,
        peak_fma_gflops=66908.0,
        read_gbs=4580.0,
        write_gbs=4640.0,
        copy_gbs=4280.0,
        fma_gflops=60000.0,
        bf16_gflops=793000.0,
        launch_us=2.0,
    )


def machine() -> Machine:
    """A machine that exists nowhere."""
    return Machine(
        name="example-2c",
        cpu="Example CPU",
        cores=2,
        vector_bits=512,
        isa=("avx2", "avx512f"),
        l1_bytes=32768,
        l2_bytes=1 << 20,
        l3_bytes=32 << 20,
        memory_bytes=8 << 30,
        os="Linux",
        toolchains=(Toolchain("g++", "/usr/bin/g++", "12.2.0", "libgomp", 2),),
        missing=FrozenMap({"clang++": "its OpenMP probe ran 1 thread"}),
        read_gbs=48.0,
        copy_gbs=43.0,
        triad_gbs=60.0,
        write_gbs=30.0,
        fma_gflops=200.0,
        isolation="sandbox",
        versions=FrozenMap({"python": "3.11.7"}),
    )


def exchange() -> Exchange:
    """A reply that had to be asked for twice."""
    usage = Usage(900, 300, 200, 0.0125, 3.5, attempts=2)
    return Exchange(
        "refine/1/0/0", "coder", 1, "openai:test", "1" * 64, "2" * 64, "malformed", usage, "no code"
    )
