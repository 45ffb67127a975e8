"""`profile`: what limits a kernel, and what usually helps against that."""

from dataclasses import replace

from kernelwright.campaign.diagnosing import profile_of
from kernelwright.campaign.evaluate import at_defaults
from kernelwright.campaign.optimize import open_builder
from kernelwright.campaign.request import Progress, Silent
from kernelwright.campaign.result import Document, machine_document, profile_document
from kernelwright.evaluation import Judge, JudgeSettings
from kernelwright.machine import probe
from kernelwright.model import Dtype, Family, FrozenMap, Rejected, Target
from kernelwright.problems import ProblemReference


def profile(
    reference: ProblemReference,
    family: Family,
    dtype: Dtype | None = None,
    sizes: FrozenMap[str, int] | None = None,
    progress: Progress | None = None,
    seconds: float = 4.0,
    target: Target = "cpu",
) -> Document:
    """Time one kernel at its declared default tunables, alone and verified, and diagnose it.

    Args:
        reference: what it computes.
        family: the kernel.
        dtype: None: the problem's first.
        sizes: None: the problem's first.
        progress: told what happens.
        seconds: longest that the timed rounds take.
        target: where it runs.

    Returns:
        The document that `profile --json` prints.

    Raises:
        UserError: the problem, the kernel's declarations or the machine are not usable.
    """
    progress = progress or Silent()
    machine = probe()
    builder = open_builder(machine, target)
    settings = replace(JudgeSettings.comparing(seconds), confirm_seconds=seconds)
    judge = Judge(reference, dtype, sizes, machine, builder, None, settings, target)
    with judge.open(progress.stage):
        candidate = at_defaults(family, judge)
        document: Document = {
            "problem": judge.public.name,
            "dtype": str(judge.dtype),
            "machine": machine.named(target),
            "machine_facts": machine_document(machine),
            "tunables": dict(candidate.tunables),
        }
        progress.stage("building")
        artifact = builder.build(candidate)
        if isinstance(artifact, Rejected):
            return document | _rejection(artifact)
        progress.stage("timing")
        verdict = judge.duel(candidate, artifact).verdict
        if isinstance(verdict, Rejected):
            return document | _rejection(verdict)
        progress.stage("looking for what limits it")
        found = profile_of(judge, candidate, artifact, verdict.workloads[0])
        return document | {"verdict": "measured", "profile": profile_document(found)}


def _rejection(verdict: Rejected) -> Document:
    return {
        "verdict": "rejected",
        "stage": str(verdict.stage),
        "reason": str(verdict.reason),
        "diagnostic": verdict.diagnostic,
    }
