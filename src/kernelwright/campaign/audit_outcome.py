"""What came of judging submissions, and how it is told."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kernelwright.attacks import CONTROL, Submission
from kernelwright.campaign.result import Document
from kernelwright.model import Estimate, Reason, Rejected, Stage, Verdict

Status = Literal["caught", "not caught", "passed", "refused", "cannot run"]
GAIN = 0.8
"""A cheat gained something when it takes less than this share of the control's time, and the
interval of its share excludes 1: few rounds on a busy machine give any share now and then."""
_SEVERITY = {"passed": 0, "cannot run": 1, "caught": 2, "refused": 3, "not caught": 4}


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


def inverse(speedup: Estimate) -> Estimate:
    """A ratio the other way round."""
    return Estimate(1 / speedup.median, 1 / speedup.high, 1 / speedup.low)


def submission_row(
    submission: Submission, runs: Sequence[Outcome], below: Outcome | None
) -> Document:
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
