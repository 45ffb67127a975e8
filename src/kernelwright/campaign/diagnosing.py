"""From a measured kernel to its profile."""

from dataclasses import dataclass

from kernelwright.build import Artifact, Builder
from kernelwright.diagnosis import Situation, diagnose, gpu_facts, processor_facts, words_of
from kernelwright.evaluation import Judge, alone_call
from kernelwright.model import Candidate, Measured, Profile, WorkloadResult


def profile_of(
    judge: Judge,
    candidate: Candidate,
    artifact: Artifact,
    result: WorkloadResult,
    thorough: bool = True,
) -> Profile:
    """Diagnose a kernel that has been measured on the bench workload.

    Args:
        judge: an open one.
        candidate: the kernel.
        artifact: as it was built.
        result: its times.
        thorough: whether a GPU's counters and energy are asked for, which takes many seconds.
    """
    machine, target = judge.machine, judge.ground.target
    if target == "cuda":
        call = alone_call(judge, candidate, artifact, judge.pool, judge.pool.usable()[0])
        architecture = machine.gpu.architecture if machine.gpu else ""
        kernels, asked = gpu_facts(artifact, call, architecture, thorough)
    else:
        kernels, asked = processor_facts(artifact)
    rates, cost, time_us = judge.roof.read(judge.cost), judge.cost, result.time_us.median
    memory_us = cost.bytes_moved / (rates.gbs * 1e3)
    compute_us = cost.operations / (rates.gflops * 1e3) if rates.gflops > 0 else 0.0
    if result.fraction_of_bound:  # the rates were read in each round then, and once more now
        scale = result.fraction_of_bound * time_us / max(memory_us, compute_us)
        memory_us, compute_us = memory_us * scale, compute_us * scale
    situation = Situation(
        target, result.workload, time_us, cost.bytes_moved, cost.operations, memory_us, compute_us,
        rates.unit, kernels, machine.gpu, machine.vector_bits,
    )  # fmt: skip
    return diagnose(situation, asked)


@dataclass(frozen=True, slots=True)
class Look:
    """Looks at kernels of a search for whoever proposes the next."""

    judge: Judge
    builder: Builder

    def words(self, candidate: Candidate) -> tuple[str, ...]:
        """What its machine code shows, in short words; empty where nobody can tell."""
        artifact = self.builder.build(candidate)
        return words_of(artifact) if isinstance(artifact, Artifact) else ()

    def profile(
        self, candidate: Candidate, verdict: Measured, thorough: bool = False
    ) -> Profile | None:
        """What limits it; None where it was not timed or cannot be built again."""
        artifact = self.builder.build(candidate)
        if not isinstance(artifact, Artifact) or not verdict.workloads:
            return None
        return profile_of(self.judge, candidate, artifact, verdict.workloads[0], thorough)
