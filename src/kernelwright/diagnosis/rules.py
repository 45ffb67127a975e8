"""From numbers to a diagnosis: which limits a kernel meets, by rules that each name their evidence.

A weight is about the share of the time that a limit explains; rates come first, because what is
at its ceiling needs no other explanation. Without counters, the look of the code weighs little.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from kernelwright.diagnosis.gpu_rules import kernel_findings, launch_findings
from kernelwright.diagnosis.moves import moves_against
from kernelwright.diagnosis.processor_rules import processor_findings
from kernelwright.diagnosis.situation import Hint, Situation
from kernelwright.model import Finding, FrozenMap, Limit, Profile

_NEAR = 0.6
"""Share of a ceiling from which it is worth a finding."""
_UNKNOWN = 0.25
"""Weight of the guess that is made where nothing else stands out."""
_SOMETHING = 0.1
"""Weight from which a finding needs no guess beside it."""
_LEAST = 0.05
"""Weight below which a finding is not shown."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Which sources a profile has."""

    sources: tuple[str, ...]
    absent: FrozenMap[str, str]
    energy_mj: float | None = None


def diagnose(situation: Situation, asked: Asked) -> Profile:
    """The profile of a kernel: findings by weight, and what they rest on."""
    hints = [*_rates(situation)]
    if situation.target == "cuda":
        hints += launch_findings(situation)
        hints += kernel_findings(situation)
    else:
        hints += processor_findings(situation)
    hints = [hint for hint in hints if hint.weight >= _LEAST]
    if not any(hint.weight >= _SOMETHING for hint in hints):
        hints.append(_nothing_else(situation))
    hints.sort(key=lambda hint: -hint.weight)
    return Profile(
        target=situation.target,
        workload=situation.workload,
        time_us=situation.time_us,
        memory_share=situation.memory_share,
        compute_share=situation.compute_share,
        findings=tuple(_finding(situation, hint) for hint in hints),
        kernels=situation.kernels,
        energy_mj=asked.energy_mj,
        sources=asked.sources,
        absent=asked.absent,
    )


def _finding(situation: Situation, hint: Hint) -> Finding:
    moves = moves_against(hint.limit, situation.target)
    if hint.limit is Limit.MEMORY and hint.weight < 0.85:
        moves = moves[:-1]  # there is something left to gain
    weight = round(min(1.0, hint.weight), 3)
    return Finding(hint.limit, weight, hint.sentence, FrozenMap(hint.evidence), moves)


def _rates(s: Situation) -> Iterator[Hint]:
    if s.memory_share >= _NEAR:
        yield Hint(
            Limit.MEMORY,
            s.memory_share,
            f"it moves its necessary bytes at {s.memory_share:.0%} of what this machine's memory "
            "gives",
            {
                "memory rate, GB/s": s.bytes_moved / s.time_us / 1e3,
                "ceiling, GB/s": s.bytes_moved / s.memory_us / 1e3 if s.memory_us else 0.0,
            },
        )
    if s.compute_share >= _NEAR:
        yield Hint(
            Limit.COMPUTE,
            s.compute_share,
            f"it does its necessary operations at {s.compute_share:.0%} of this machine's rate "
            f"of {s.unit}",
            {
                "arithmetic rate, GFLOP/s": s.operations / s.time_us / 1e3,
                "ceiling, GFLOP/s": s.operations / s.compute_us / 1e3 if s.compute_us else 0.0,
            },
        )


def _nothing_else(s: Situation) -> Hint:
    return Hint(
        Limit.LATENCY,
        _UNKNOWN,
        "neither memory nor arithmetic is near its rate, and nothing that was asked says why: most "
        "such kernels wait for answers",
        {"share of the memory rate": s.memory_share, "share of the arithmetic": s.compute_share},
    )
