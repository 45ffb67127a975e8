"""What a report is made from: plain records gathered from an archive."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from kernelwright.errors import ArchiveError
from kernelwright.model import (
    Candidate,
    Claim,
    Dtype,
    FrozenMap,
    Machine,
    Measured,
    Peer,
    Profile,
    PublicProblem,
    Rejected,
    Verdict,
    WorkloadResult,
)
from kernelwright.problems import public_from_json
from kernelwright.report.ledger import Accounts, accounts
from kernelwright.store import Archive, StoredVerdict, from_json

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """One verdict in a campaign's history."""

    number: int
    """Counted from 1, in the order in which candidates were first judged."""
    seconds: float
    """Since the campaign began."""
    candidate: Candidate
    verdict: Verdict

    @property
    def time_us(self) -> float | None:
        """Median on the first workload; None for a rejection."""
        measured = isinstance(self.verdict, Measured) and self.verdict.workloads
        return measured[0].time_us.median if measured else None


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that a report shows."""

    public: PublicProblem
    dtype: Dtype
    machine: Machine
    entries: tuple[Entry, ...]
    best: Candidate | None = None
    results: tuple[WorkloadResult, ...] = ()
    """The accepted measurements, bench sizes first; empty when no candidate was accepted."""
    claim: Claim | None = None
    """Of the acceptance, where the archive is new enough to have one."""
    warnings: tuple[str, ...] = ()
    profile: Profile | None = None
    """What limits the best kernel, where a campaign has asked."""
    accounts: Accounts | None = None
    """Of the language models; None where none was asked."""
    document: Document = field(default_factory=FrozenMap[str, Any])
    """The campaign's result as `optimize --json` prints it; empty when it did not end."""

    @property
    def bench(self) -> WorkloadResult | None:
        """The scored workload."""
        return self.results[0] if self.results else None

    @property
    def best_baseline(self) -> Peer | None:
        """On the scored workload; see `WorkloadResult.best_baseline`."""
        return self.bench.best_baseline if self.bench is not None else None

    @property
    def rejected(self) -> dict[str, int]:
        """Rejections by stage, in the order of the stages' first appearance."""
        return count_rejections(entry.verdict for entry in self.entries)

    @property
    def candidates_judged(self) -> int:
        """Candidates with at least one verdict."""
        return len({entry.candidate.identity for entry in self.entries})


def count_rejections(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """How many verdicts were rejections, by stage."""
    counts: dict[str, int] = {}
    for verdict in verdicts:
        if isinstance(verdict, Rejected):
            counts[str(verdict.stage)] = counts.get(str(verdict.stage), 0) + 1
    return counts


def gather(archive: Archive) -> Evidence:
    """Read what a report needs from an archive, finished or not.

    The last event of kind `problem` holds `public` (the problem) and `dtype`, the last of kind
    `result` the campaign's result.

    Raises:
        ArchiveError: the archive lacks the problem or the machine.
    """
    machine, asked = archive.machine(), archive.events("problem")
    if machine is None or not asked:
        raise ArchiveError(
            f"the run folder '{archive.folder}' holds nothing to report yet: it ended before the "
            "first measurement; run `kernelwright optimize` with --run on it"
        )
    verdicts = archive.verdicts()
    ended = archive.events("result")
    document: Document = ended[-1].document if ended else {}
    candidates = archive.candidates()
    best = _best_identity(document, verdicts)
    accepted = _accepted(best, verdicts)
    return Evidence(
        public=public_from_json(asked[-1].document["public"]),
        dtype=Dtype(asked[-1].document["dtype"]),
        machine=machine,
        entries=_entries(verdicts, candidates),
        best=candidates.get(best) if best else None,
        results=_in_order(accepted),
        claim=accepted.claim if accepted else None,
        warnings=accepted.warnings if accepted else (),
        profile=_profile(best, archive),
        accounts=accounts(
            archive, [(candidates[stored.candidate], stored.verdict) for stored in verdicts]
        ),
        document=document,
    )


def _profile(best: str | None, archive: Archive) -> Profile | None:
    found = [e for e in archive.events("profile") if e.document["candidate"] == best]
    return from_json(found[-1].document["profile"], Profile) if found else None


def _best_identity(document: Document, verdicts: tuple[StoredVerdict, ...]) -> str | None:
    """The result's winner; in an unfinished run the best that was accepted."""
    if document:
        best = document.get("best")
        return best["candidate"] if best else None
    accepted = [v for v in verdicts if isinstance(v.verdict, Measured) and v.verdict.accepted]
    return accepted[-1].candidate if accepted else None


def _accepted(best: str | None, verdicts: tuple[StoredVerdict, ...]) -> Measured | None:
    for stored in reversed(verdicts):
        verdict = stored.verdict
        if stored.candidate == best and isinstance(verdict, Measured) and verdict.accepted:
            return verdict
    return None


def _in_order(accepted: Measured | None) -> tuple[WorkloadResult, ...]:
    order = {"bench": 0, "heldout": 1, "check": 2}
    found = accepted.workloads if accepted else ()
    return tuple(sorted(found, key=lambda w: order[w.workload.tier]))


def _entries(
    verdicts: tuple[StoredVerdict, ...], candidates: Mapping[str, Candidate]
) -> tuple[Entry, ...]:
    numbers: dict[str, int] = {}
    start = datetime.fromisoformat(verdicts[0].created) if verdicts else None
    entries: list[Entry] = []
    for stored in verdicts:
        number = numbers.setdefault(stored.candidate, len(numbers) + 1)
        assert start is not None
        seconds = (datetime.fromisoformat(stored.created) - start).total_seconds()
        entries.append(Entry(number, seconds, candidates[stored.candidate], stored.verdict))
    return tuple(entries)
