"""What a submission is, and the corpus as a whole."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from kernelwright.attacks.rows import row_order
from kernelwright.model import Dtype, FrozenMap, Reason, Stage

CONTROL = "control"
"""Row of the submissions that must pass."""
SubmissionLanguage = Literal["cpp", "python", "cuda"]


@dataclass(frozen=True, slots=True)
class Ending:
    """One way in which the judge may turn a submission away."""

    stage: Stage
    reason: Reason

    def __str__(self) -> str:
        return f"{self.stage} {self.reason}"


@dataclass(frozen=True, slots=True)
class Submission:
    """One file of the corpus, with what its header declares."""

    name: str
    """The file's stem, unique in the corpus."""
    path: Path
    language: SubmissionLanguage
    rows: tuple[str, ...]
    """Rows that it belongs to, the most telling first; `control` for one that must pass."""
    problem: str
    """Name of a shipped problem."""
    dtype: Dtype
    sizes: FrozenMap[str, int]
    """Bench sizes; cheats may know them, as they are public."""
    does: str
    """One sentence."""
    expected: tuple[Ending, ...]
    """Acceptable rejections; empty for a control."""
    neutral: bool = False
    """It may also be measured, provided that it is not faster than the honest control."""
    isolation: Literal["sandbox"] | None = None
    """The weakest isolation under which it is caught; None: any."""
    gap: str = ""
    """Why it is not caught today; empty: it is."""

    @property
    def control(self) -> bool:
        """Whether it must pass."""
        return CONTROL in self.rows

    @property
    def workload(self) -> tuple[str, Dtype, FrozenMap[str, int]]:
        """What a judge is opened for."""
        return self.problem, self.dtype, self.sizes


@cache
def corpus() -> tuple[Submission, ...]:
    """Every submission of the corpus: controls first, then by row, then by name.

    Raises:
        CandidateError: a header cannot be read.
    """
    from kernelwright.attacks.header import read_submission

    folder = Path(__file__).parent / "corpus"
    files = (path for path in folder.glob("*/*") if path.suffix in (".cpp", ".py", ".cu"))
    found = [read_submission(path) for path in files]
    return tuple(sorted(found, key=lambda s: (row_order(s.rows[0]), s.name)))
