"""What was tried, family by family: evidence made short enough to be read."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from kernelwright.model import Candidate, Measured, Rejected, Verdict, content_hash

Evidence = Sequence[tuple[Candidate, Verdict]]


@dataclass(slots=True)
class Attempt:
    """One family with the verdicts on its variants."""

    identity: str
    """Of the family."""
    candidate: Candidate
    """Its best variant; while none is measured, the one judged last."""
    best_us: float | None = None
    fraction_of_bound: float | None = None
    limiter: str = ""
    rejections: list[Rejected] = field(default_factory=list[Rejected])
    judged: int = 0

    @property
    def name(self) -> str:
        """Of the family."""
        return self.candidate.family

    @property
    def is_measured(self) -> bool:
        """Whether any variant is right."""
        return self.best_us is not None

    @property
    def rejected(self) -> Rejected | None:
        """The last rejection, where no variant is right."""
        return self.rejections[-1] if self.rejections and not self.is_measured else None


@dataclass(frozen=True, slots=True)
class History:
    """Every family that was judged, measured ones first, best first."""

    attempts: tuple[Attempt, ...]

    @classmethod
    def of(cls, parents: Sequence[Candidate], evidence: Evidence) -> "History":
        """From what a proposer gets.

        Args:
            parents: measured candidates, best first; the order decides what is better, because
                times of different moments do not compare.
            evidence: every verdict, oldest first; the last on a candidate holds.
        """
        rank = {candidate.identity: place for place, candidate in enumerate(parents)}
        last = {candidate.identity: (candidate, verdict) for candidate, verdict in evidence}
        found: dict[str, Attempt] = {}
        for candidate, verdict in last.values():
            identity = family_of(candidate)
            attempt = found.setdefault(identity, Attempt(identity, candidate))
            attempt.judged += 1
            if isinstance(verdict, Rejected):
                attempt.rejections.append(verdict)
                if not attempt.is_measured:
                    attempt.candidate = candidate
            elif not attempt.is_measured or _place(candidate, rank) < _place(
                attempt.candidate, rank
            ):
                _take(attempt, candidate, verdict)
        everything = sorted(
            found.values(),
            key=lambda a: (not a.is_measured, _place(a.candidate, rank), a.best_us or 0.0),
        )
        return cls(tuple(everything))

    @property
    def best(self) -> Attempt | None:
        """The family that leads."""
        first = self.attempts[0] if self.attempts else None
        return first if first and first.is_measured else None

    def of_family(self, identity: str) -> Attempt | None:
        """The family with this identity; None before any of it was judged."""
        return next((a for a in self.attempts if a.identity == identity), None)


def family_of(candidate: Candidate) -> str:
    """Identity of the family that a candidate is a variant of."""
    return content_hash(candidate.language, candidate.entry, candidate.source)


def _place(candidate: Candidate, rank: dict[str, int]) -> int:
    return rank.get(candidate.identity, len(rank))


def _take(attempt: Attempt, candidate: Candidate, verdict: Measured) -> None:
    attempt.candidate = candidate
    attempt.best_us, attempt.fraction_of_bound = 0.0, None
    if verdict.workloads:
        first = verdict.workloads[0]
        attempt.best_us, attempt.fraction_of_bound = first.time_us.median, first.fraction_of_bound
        attempt.limiter = first.bound.limiter if first.bound else ""
