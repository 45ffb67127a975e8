"""`audit`: the attack corpus against this machine's judge."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

from kernelwright import suite
from kernelwright.attacks import CONTROL, ROWS, Submission, corpus
from kernelwright.build import (
    Artifact,
    Builder,
    CppBuilder,
    languages,
    user_cache_folder,
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
    Estimate,
    Machine,
    Measured,
    Reason,
    Rejected,
    Stage,
    Verdict,
)
from kernelwright.propose import own_kernel_family
from kernelwright.space import Space

Status = Literal["caught", "not caught", "passed", "refused", "cannot run"]
GAIN = 0.8
"""A cheat gained something when it takes less than this share of the control's time, and the
interval of its share excludes 1: few rounds on a busy machine give any share now and then."""
HONEST = "honest_"
"""Prefix of the control that cheats of the same workload are compared with."""
_SEVERITY = {"passed": 0, "cannot run": 1, "caught": 2, "refused": 3, "not caught": 4}
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


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of judging one submission once."""

    status: Status
    stage: str = ""
    reason: str = ""
    diagnostic: str = ""
    expected: bool = True
    """It ended as its header says."""
    seconds: float = 0.0

    @property
    def inspected(self) -> bool:
        """The inspection of built libraries ended it."""
        return (self.stage, self.reason) == (Stage.BUILD, Reason.UNSAFE_LIBRARY)


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
        why = cannot_run(submission)
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
        _row(submission, runs[submission.name], below.get(submission.name)) for submission in chosen
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


def cannot_run(submission: Submission) -> str | None:
    """Why this machine or this version cannot judge a submission; None when it can."""
    if submission.language == "cuda":
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
        ordered = sorted(submissions, key=lambda s: (s.problem, s.dtype, str(s.sizes)))
        for (problem, dtype, sizes), group in groupby(ordered, key=lambda s: s.workload):
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
            suite.find(problem), dtype, sizes, self.machine, self.builder, settings=self.settings
        )

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
            ratio = _inverse(speedups[0]) if speedups else ratio
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


def uninspecting_builder(machine: Machine) -> CppBuilder:
    """A builder that lets everything through which compiles."""
    return CppBuilder(machine.toolchains, user_cache_folder(), inspects=False)


def judge_uninspected(
    machine: Machine,
    settings: JudgeSettings,
    progress: Progress,
    submissions: Sequence[Submission],
) -> Iterable[tuple[str, Outcome]]:
    """What comes of C++ submissions when built libraries are not inspected."""
    progress.stage(f"{len(submissions)} submissions without inspection")
    auditor = Auditor(machine, settings, progress, uninspecting_builder(machine))
    auditor.build(submissions)
    yield from auditor.run(submissions)


def honest_control(submission: Submission) -> Submission | None:
    """The plain control of the same workload and language; None where there is none."""
    wanted = (submission.workload, submission.language)
    same = (s for s in corpus() if (s.workload, s.language) == wanted and s.control)
    return next((s for s in same if s.name.startswith(HONEST)), None)


def outcome_of(submission: Submission, verdict: Verdict, ratio: Estimate | None = None) -> Outcome:
    """What a verdict means for a submission.

    Args:
        submission: what was judged.
        verdict: its last.
        ratio: its time over the honest control's, where they ran together.
    """
    if isinstance(verdict, Rejected):
        status: Status = "refused" if submission.control else "caught"
        told = (verdict.stage, verdict.reason)
        expected = told in {(ending.stage, ending.reason) for ending in submission.expected}
        return Outcome(status, verdict.stage, verdict.reason, verdict.diagnostic, expected)
    stage = "accept" if verdict.accepted else "screen"
    if submission.control:
        return Outcome("passed", stage, "measured")
    if any(result.collapsed for result in verdict.workloads):
        expected = (Stage.ACCEPT, Reason.COLLAPSED) in {
            (e.stage, e.reason) for e in submission.expected
        }
        text = "accepted, and flagged as slow at held-out sizes"
        return Outcome("caught", stage, str(Reason.COLLAPSED), text, expected)
    text = ""
    if ratio is not None:
        interval = f"{ratio.low:.2f} to {ratio.high:.2f}"
        text = f"{ratio.median:.2f} times the honest kernel's time ({interval})"
    if submission.neutral and ratio is not None and not gains(ratio):
        return Outcome("caught", stage, "no gain", text)
    return Outcome("not caught", stage, "measured", text, expected=False)


def gains(ratio: Estimate | None) -> bool:
    """Whether the time over the honest control's shows a gain."""
    return ratio is not None and ratio.median < GAIN and ratio.high < 1


def _inverse(speedup: Estimate) -> Estimate:
    return Estimate(1 / speedup.median, 1 / speedup.high, 1 / speedup.low)


def _row(submission: Submission, runs: Sequence[Outcome], below: Outcome | None) -> Document:
    """One submission's row: its worst run decides."""
    worst = max(runs, key=lambda run: (_SEVERITY[run.status], not run.expected))
    endings = ["pass"] if submission.control else [str(e) for e in submission.expected]
    return {
        "name": submission.name,
        "rows": list(submission.rows),
        "language": submission.language,
        "problem": submission.problem,
        "dtype": str(submission.dtype),
        "sizes": dict(submission.sizes),
        "does": submission.does,
        "expected": [*endings, *(["no gain"] if submission.neutral else [])],
        "gap": submission.gap or None,
        "needs_isolation": submission.isolation,
        "status": worst.status,
        "as_expected": worst.expected,
        "stage": worst.stage or None,
        "reason": worst.reason or None,
        "diagnostic": worst.diagnostic,
        "seconds": round(sum(run.seconds for run in runs), 2),
        "runs": [[run.status, run.stage or None, run.reason or None] for run in runs],
        "beneath": None if below is None else _beneath(below),
    }


def _beneath(outcome: Outcome) -> Document:
    return {
        "status": outcome.status,
        "as_expected": outcome.expected,
        "stage": outcome.stage or None,
        "reason": outcome.reason or None,
        "diagnostic": outcome.diagnostic,
        "seconds": outcome.seconds,
    }


def summary(rows: Sequence[Document]) -> dict[str, int]:
    """Counts; `judgements` and `refusals` are of controls over all repetitions."""
    controls = [row for row in rows if CONTROL in row["rows"]]
    attacks = [row for row in rows if CONTROL not in row["rows"]]
    ran = [row for row in attacks if row["status"] != "cannot run"]
    judged = [run for row in controls for run in row["runs"] if run[0] != "cannot run"]
    below = [row["beneath"] for row in ran if row.get("beneath")]
    return {
        "attacks": len(attacks),
        "ran": len(ran),
        "caught": sum(row["status"] == "caught" for row in ran),
        "not_caught": sum(row["status"] == "not caught" for row in ran),
        "uninspected": len(below),
        "uninspected_not_caught": sum(row["status"] == "not caught" for row in below),
        "caught_otherwise": sum(
            row["status"] == "caught" and not row["as_expected"] for row in ran
        ),
        "controls": len(controls),
        "controls_refused": sum(row["status"] == "refused" for row in controls),
        "judgements": len(judged),
        "refusals": sum(run[0] == "refused" for run in judged),
    }


def _line(submission: Submission, outcome: Outcome) -> str:
    what = " ".join(part for part in (outcome.stage, outcome.reason) if part)
    return f"{submission.name}: {outcome.status} ({what}) {outcome.seconds:.1f} s"
