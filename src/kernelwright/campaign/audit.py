"""`audit`: the attack corpus against this machine's judge."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from kernelwright import suite
from kernelwright.attacks import CONTROL, ROWS, Submission, corpus
from kernelwright.build import (
    Artifact,
    Builder,
    CppBuilder,
    CudaBuilder,
    languages,
    user_cache_folder,
)
from kernelwright.campaign.audit_outcome import (
    Outcome,
    Status,
    gains,
    inverse,
    outcome_of,
    submission_row,
    summary,
)
from kernelwright.campaign.optimize import open_builder
from kernelwright.campaign.request import Progress, Silent
from kernelwright.campaign.result import Document, machine_document
from kernelwright.campaign.standing import bind
from kernelwright.errors import HarnessError, UserError
from kernelwright.evaluation import Judge, JudgeSettings
from kernelwright.evaluation.acceptance import OWN
from kernelwright.execution import Limits
from kernelwright.machine import probe
from kernelwright.model import (
    Candidate,
    Machine,
    Measured,
    Rejected,
    Target,
    language_target,
)
from kernelwright.propose import own_kernel_family
from kernelwright.space import Space

HONEST = "honest_"
"""Prefix of the control that cheats of the same workload are compared with."""
_BASELINES = ("eager",)
Built = tuple[Candidate, Artifact]


@dataclass(frozen=True, slots=True)
class AuditRequest:
    """Which submissions, and how often."""

    rows: tuple[str, ...] = ()
    """Rows such as `R3`, or `control`; empty: all."""
    languages: tuple[str, ...] = ()
    """`cpp`, `python`, `cuda`; empty: all."""
    repeat: int = 1
    quick: bool = False
    """Few timed rounds, small pools of secret inputs."""


def audit(
    request: AuditRequest,
    progress: Progress | None = None,
    settings: JudgeSettings | None = None,
    beneath: bool = False,
) -> Document:
    """Judge the corpus as a campaign would: screening, then acceptance of what survives.

    Args:
        request: which submissions, and how often.
        progress: told what happens.
        settings: how thorough the judge is; None: as the request says.
        beneath: judge what the inspection of libraries stops once more without inspection, to see
            what else withstands it.

    Returns:
        The document that `audit --json` prints.

    Raises:
        UserError: there is no such row or language, or nothing can be built here.
    """
    progress, started = progress or Silent(), time.monotonic()
    chosen = select(request)
    machine = probe()
    settings = settings or settings_of(request)
    auditor = Auditor(machine, settings, progress)
    runs: dict[str, list[Outcome]] = {submission.name: [] for submission in chosen}
    runnable: list[Submission] = []
    for submission in chosen:
        why = cannot_run(submission, machine)
        if why is None:
            runnable.append(submission)
        else:
            runs[submission.name].append(Outcome("cannot run", reason=why))
    auditor.build(runnable)
    for turn in range(request.repeat):
        if request.repeat > 1:
            progress.stage(f"run {turn + 1} of {request.repeat}")
        for name, outcome in auditor.run(runnable):
            runs[name].append(outcome)
    below: dict[str, Outcome] = {}
    if beneath:
        stopped = [s for s in runnable if any(run.inspected for run in runs[s.name])]
        below = dict(judge_uninspected(machine, settings, progress, stopped))
    rows = [
        submission_row(submission, runs[submission.name], below.get(submission.name))
        for submission in chosen
    ]
    return {
        "machine": machine.name,
        "machine_facts": machine_document(machine),
        "isolation": machine.isolation,
        "quick": request.quick,
        "repeat": request.repeat,
        "seconds": round(time.monotonic() - started, 1),
        "summary": summary(rows),
        "submissions": rows,
    }


def select(request: AuditRequest) -> list[Submission]:
    """The submissions that a request asks for.

    Raises:
        UserError: there is no such row or language, or nothing is left.
    """
    known = {*ROWS, CONTROL}
    for row in request.rows:
        if row not in known:
            raise UserError(f"there is no row '{row}': choose from {', '.join(ROWS)} or {CONTROL}")
    for language in request.languages:
        if language not in ("cpp", "python", "cuda"):
            raise UserError(f"there is no language '{language}': choose from cpp, python, cuda")
    found = [
        s
        for s in corpus()
        if (not request.rows or set(s.rows) & set(request.rows))
        and (not request.languages or s.language in request.languages)
    ]
    if not found:
        raise UserError("no submission is of these rows and languages")
    return found


def settings_of(request: AuditRequest) -> JudgeSettings:
    """A campaign's settings with a shorter acceptance; `quick` has few rounds."""
    limits = Limits(call_s=5.0)
    if request.quick:
        return replace(
            JudgeSettings.quick(), baselines=_BASELINES, limits=limits, accept_seconds=4.0
        )
    return JudgeSettings(
        baselines=_BASELINES, limits=limits, accept_seconds=8.0, confirm_seconds=4.0
    )


def target_of(submission: Submission) -> Target:
    """Where a submission runs."""
    return language_target(submission.language)


def cannot_run(submission: Submission, machine: Machine) -> str | None:
    """Why this machine or this version cannot judge a submission; None when it can."""
    if target_of(submission) == "cuda" and machine.gpu is None:
        return "needs a GPU"
    if submission.language not in languages():
        return f"this version builds no {submission.language}"
    return None


class Auditor:
    """Runs submissions through judges, one judge for all of a workload."""

    def __init__(
        self,
        machine: Machine,
        settings: JudgeSettings,
        progress: Progress,
        builder: Builder | None = None,
    ) -> None:
        self.machine = machine
        self.settings = settings
        self.progress = progress
        self.builder = builder or open_builder(machine)
        self.built: dict[str, Built | Rejected] = {}

    def build(self, submissions: Sequence[Submission]) -> None:
        """Build all, and the honest controls that they are compared with."""
        self.progress.stage(f"building {len(submissions)} submissions")
        wanted = {s.name: s for s in submissions}
        for submission in submissions:
            honest = honest_control(submission)
            if honest is not None:
                wanted[honest.name] = honest
        candidates = {s.name: self._candidate(s) for s in wanted.values()}
        artifacts = self.builder.build_many(candidates.values())
        for name, candidate in candidates.items():
            artifact = artifacts[candidate.identity]
            rejected = isinstance(artifact, Rejected)
            self.built[name] = artifact if rejected else (candidate, artifact)

    def run(self, submissions: Sequence[Submission]) -> Iterable[tuple[str, Outcome]]:
        """Judge every submission once, workload by workload, controls of a workload first."""
        ordered = sorted(
            submissions, key=lambda s: (target_of(s), s.problem, s.dtype, str(s.sizes))
        )
        grouped = groupby(ordered, key=lambda s: (target_of(s), s.workload))
        for (_, (problem, dtype, sizes)), group in grouped:
            told = ",".join(f"{name}={size}" for name, size in sizes.items())
            self.progress.stage(f"{problem} {dtype} {told}")
            yield from self._group(list(group))

    def _group(self, group: Sequence[Submission]) -> Iterable[tuple[str, Outcome]]:
        left = list(group)
        while left:
            with self.judge(left[0]).open() as judge:
                while left:
                    submission = left.pop(0)
                    outcome, broken = self.one(judge, submission)
                    self.progress.note(_line(submission, outcome))
                    yield submission.name, outcome
                    if broken:
                        break

    def judge(self, submission: Submission) -> Judge:
        """The judge of a submission's workload, not yet open."""
        problem, dtype, sizes = submission.workload
        return Judge(
            suite.find(problem), dtype, sizes, self.machine, self.builder, None, self.settings,
            target_of(submission),
        )  # fmt: skip

    def one(self, judge: Judge, submission: Submission) -> tuple[Outcome, bool]:
        """Judge one submission.

        Returns:
            What came of it, and whether the judge itself was broken by it.
        """
        started = time.monotonic()
        try:
            outcome = self._judged(judge, submission)
            broken = False
        except HarnessError as error:
            bad: Status = "refused" if submission.control else "not caught"
            outcome = Outcome(bad, "judge", "failed", str(error), expected=False)
            broken = True
        return replace(outcome, seconds=round(time.monotonic() - started, 2)), broken

    def _judged(self, judge: Judge, submission: Submission) -> Outcome:
        built = self.built[submission.name]
        if isinstance(built, Rejected):
            return outcome_of(submission, built)
        honest = self._honest(submission)
        report = judge.screen(*built, champion=honest)
        if gains(report.ratio):  # or a busy machine made it look so: a real gain is there again
            report = judge.screen(*built, champion=honest)
        ratio = report.ratio
        if isinstance(report.verdict, Rejected) or gains(ratio):
            return outcome_of(submission, report.verdict, ratio)
        verdict = judge.accept(*built, own=honest)
        if isinstance(verdict, Measured):
            speedups = [peer.speedup for peer in verdict.workloads[0].peers if peer.name == OWN]
            ratio = inverse(speedups[0]) if speedups else ratio
        return outcome_of(submission, verdict, ratio)

    def _honest(self, submission: Submission) -> Built | None:
        honest = honest_control(submission) if submission.neutral else None
        built = None if honest is None else self.built[honest.name]
        return None if isinstance(built, Rejected) else built

    def _candidate(self, submission: Submission) -> Candidate:
        family = own_kernel_family(submission.path, submission.language)
        toolchains = [toolchain.name for toolchain in self.machine.toolchains]
        space = Space.of(family.source, submission.sizes, toolchains=toolchains)
        return bind(family, space.default())


def uninspecting_builder(machine: Machine, target: Target = "cpu") -> Builder:
    """A builder that lets everything through which compiles."""
    cache = user_cache_folder()
    if target == "cuda":
        return CudaBuilder(machine.toolchains, cache, inspects=False)
    return CppBuilder(machine.toolchains, cache, inspects=False)


def judge_uninspected(
    machine: Machine,
    settings: JudgeSettings,
    progress: Progress,
    submissions: Sequence[Submission],
) -> Iterable[tuple[str, Outcome]]:
    """What comes of native submissions when built libraries are not inspected."""
    progress.stage(f"{len(submissions)} submissions without inspection")
    targets: tuple[Target, ...] = ("cpu", "cuda")
    for target in targets:
        own = [submission for submission in submissions if target_of(submission) == target]
        if not own:
            continue
        auditor = Auditor(machine, settings, progress, uninspecting_builder(machine, target))
        auditor.build(own)
        yield from auditor.run(own)


def honest_control(submission: Submission) -> Submission | None:
    """The plain control of the same workload and language; None where there is none."""
    wanted = (submission.workload, submission.language)
    same = (s for s in corpus() if (s.workload, s.language) == wanted and s.control)
    return next((s for s in same if s.name.startswith(HONEST)), None)


def _line(submission: Submission, outcome: Outcome) -> str:
    what = " ".join(part for part in (outcome.stage, outcome.reason) if part)
    return f"{submission.name}: {outcome.status} ({what}) {outcome.seconds:.1f} s"
