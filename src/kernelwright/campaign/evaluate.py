"""`evaluate` and `compare`: kernels that somebody wrote, judged without a search."""

from collections.abc import Sequence
from dataclasses import replace

from kernelwright.build import Artifact
from kernelwright.campaign.optimize import admit, open_builder
from kernelwright.campaign.request import Progress, Silent
from kernelwright.campaign.result import (
    Document,
    machine_document,
    trust_document,
    workload_document,
)
from kernelwright.campaign.standing import bind, space_of
from kernelwright.evaluation import Judge, JudgeSettings
from kernelwright.machine import probe
from kernelwright.model import (
    Candidate,
    Dtype,
    Family,
    FrozenMap,
    Measured,
    Rejected,
    Target,
    Verdict,
)
from kernelwright.problems import ProblemReference
from kernelwright.propose import settled


def evaluate(
    reference: ProblemReference,
    family: Family,
    dtype: Dtype | None = None,
    sizes: FrozenMap[str, int] | None = None,
    baselines: tuple[str, ...] | None = None,
    progress: Progress | None = None,
    settings: JudgeSettings | None = None,
    target: Target = "cpu",
) -> Document:
    """Judge one kernel at its declared default tunables, as acceptance does.

    Returns:
        The document that `evaluate --json` prints.

    Raises:
        UserError: the problem, the kernel's declarations or the machine are not usable.
    """
    progress = progress or Silent()
    settings = replace(settings or JudgeSettings(), baselines=baselines)
    machine = probe()
    builder = open_builder(machine, target, (family.language,))
    judge = Judge(reference, dtype, sizes, machine, builder, None, settings, target)
    with judge.open(progress.stage):
        admit(judge, progress)
        candidate = at_defaults(family, judge)
        progress.stage("building")
        artifact = builder.build(candidate)
        progress.stage("judging")
        verdict: Verdict = (
            artifact if isinstance(artifact, Rejected) else judge.accept(candidate, artifact)
        )
        return {
            "problem": judge.public.name,
            "dtype": str(judge.dtype),
            "machine": machine.named(target),
            "machine_facts": machine_document(machine),
            "tunables": dict(candidate.tunables),
            "verified": judge.verified(),
            "heldout_faults": list(judge.heldout_faults),
            **_verdict_document(verdict),
            **_trust(verdict, judge),
        }


def _trust(verdict: Verdict, judge: Judge) -> Document:
    if isinstance(verdict, Rejected):
        return {}
    return trust_document(verdict, judge.verified()["heldout"])


def at_defaults(family: Family, judge: Judge) -> Candidate:
    """A family at its declared default tunables, as far as the sizes allow them."""
    family = settled(family, judge.public.signature, judge.dtype, judge.sizes)
    space = space_of(family, judge.public.signature, judge.sizes, judge.machine)
    return bind(family, space.default())


def _verdict_document(verdict: Verdict) -> Document:
    if isinstance(verdict, Rejected):
        return {
            "verdict": "rejected",
            "stage": str(verdict.stage),
            "reason": str(verdict.reason),
            "diagnostic": verdict.diagnostic,
            "workloads": [],
        }
    return {
        "verdict": "measured",
        "stage": None,
        "reason": None,
        "diagnostic": "",
        "workloads": [workload_document(result) for result in verdict.workloads],
    }


def compare(
    reference: ProblemReference,
    families: Sequence[Family],
    dtype: Dtype | None = None,
    sizes: FrozenMap[str, int] | None = None,
    progress: Progress | None = None,
    seconds: float = 60.0,
    repeat: int = 1,
    target: Target = "cpu",
) -> Document:
    """Measure several kernels in the same rounds; ratios are paired with the first.

    The same file twice is an A/A run: what the clock does when there is no difference.

    Args:
        reference: what they compute.
        families: at least one; each at its declared default tunables.
        dtype: None: the problem's first.
        sizes: None: the problem's first.
        progress: told what happens.
        seconds: longest that a comparison of two takes; it ends when their ratio is known to 1 %.
        repeat: how often each comparison is made, each time in fresh processes.
        target: where they run.

    Returns:
        The document that `compare --json` prints: a row per kernel, with its time and the
        first kernel's time over its own; the last repetition's, and the ratios of all.

    Raises:
        UserError: the problem, a kernel's declarations or the machine are not usable.
    """
    progress = progress or Silent()
    settings = JudgeSettings.comparing(seconds)
    machine = probe()
    builder = open_builder(machine, target, {family.language for family in families})
    judge = Judge(reference, dtype, sizes, machine, builder, None, settings, target)
    with judge.open(progress.stage):
        candidates = [at_defaults(family, judge) for family in families]
        progress.stage("building")
        built = builder.build_many(candidates)
        progress.stage("judging")
        first = built[candidates[0].identity]
        rows: list[Document] = []
        for place, (family, candidate) in enumerate(zip(families, candidates, strict=True)):
            artifact = built[candidate.identity]
            row: Document = {"kernel": family.lineage.note or family.name}
            if isinstance(artifact, Rejected):
                rows.append(row | _verdict_document(artifact))
                continue
            rival = None
            if place > 0 and not isinstance(first, Rejected):
                rival = (candidates[0], first)
            rows.append(row | _duels(judge, candidate, artifact, rival, repeat if rival else 1))
        return {
            "problem": judge.public.name,
            "dtype": str(judge.dtype),
            "sizes": dict(judge.sizes),
            "machine": machine.named(target),
            "machine_facts": machine_document(machine),
            "kernels": rows,
        }


def _duels(
    judge: Judge,
    candidate: Candidate,
    artifact: Artifact,
    rival: tuple[Candidate, Artifact] | None,
    repeat: int,
) -> Document:
    row: Document = {}
    ratios: list[list[float]] = []
    outcomes: list[str] = []
    for _ in range(repeat):
        report = judge.duel(candidate, artifact, rival)
        row |= _verdict_document(report.verdict)
        if report.ratio is not None:
            row["speedup_over_first"] = 1 / report.ratio.median
            row["ci"] = [1 / report.ratio.high, 1 / report.ratio.low]
            ratios.append([row["speedup_over_first"], *row["ci"]])
        if isinstance(report.verdict, Measured) and report.verdict.claim is not None:
            row["outcome"] = report.verdict.claim.outcome
            outcomes.append(row["outcome"])
        if isinstance(report.verdict, Rejected):
            break
    return row | {"repetitions": ratios, "outcomes": outcomes}
