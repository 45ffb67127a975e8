"""What an archive keeps of campaigns with language models: exchanges, rounds, what was known."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kernelwright.agents import AgentLoop, Brief
from kernelwright.llm import Recording
from kernelwright.model import Candidate, Exchange, Family, Profile, Rejected, Verdict
from kernelwright.store import Archive, StoredEvent, from_json, public_verdict, to_json


class ArchiveJournal:
    """Exchanges in an archive: texts as blobs, the rest as events of kind `exchange`.

    Args:
        archive: read now; written as long as the journal is open.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._open = True
        self._lock = threading.Lock()
        self._recordings = {
            exchange.key: Recording(exchange, archive.get_text(exchange.reply))
            if exchange.reply
            else Recording(exchange, "")
            for exchange in exchanges(archive)
        }

    def recorded(self, key: str) -> Recording | None:
        """See `Journal`."""
        return self._recordings.get(key)

    def record(self, exchange: Exchange, request: str, reply: str) -> None:
        """See `Journal`; nothing after `close`, which a late reply may come after."""
        with self._lock:
            if not self._open:
                return
            self._archive.put_text(request)
            if exchange.reply:
                self._archive.put_text(reply)
            self._archive.add_event("exchange", **to_json(exchange))
            self._recordings[exchange.key] = Recording(exchange, reply)

    def close(self) -> None:
        """Keep nothing more."""
        with self._lock:
            self._open = False


def exchanges(archive: Archive) -> list[Exchange]:
    """Every exchange with a model, oldest first."""
    return [from_json(event.document, Exchange) for event in archive.events("exchange")]


@dataclass(frozen=True, slots=True)
class Known:
    """What was known at a moment, as proposers see it."""

    parents: tuple[Candidate, ...]
    """Measured candidates, best first."""
    evidence: tuple[tuple[Candidate, Verdict], ...]
    last: int
    """Number of the last verdict."""
    values: dict[str, float] = field(default_factory=dict[str, float])
    """Of the search, by identity: chained ratios of paired comparisons."""
    profiles: dict[str, Profile] = field(default_factory=dict[str, Profile])
    """What limits a candidate, by its identity."""
    brief: Brief | None = None
    """What models are told; None before there is any."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When a round began."""

    verdict: int
    """Number of the last verdict that was known."""
    event: int
    """Number of the event that says so."""


def known(archive: Archive, until: Moment | None = None) -> Known:
    """What an archive knew at a moment (None: now)."""
    stored = [v for v in archive.verdicts() if until is None or v.id <= until.verdict]
    candidates = archive.candidates()
    values: dict[str, float] = {}
    evidence: list[tuple[Candidate, Verdict]] = []
    for item in stored:
        if isinstance(item.verdict, Rejected):
            values.pop(item.candidate, None)
        elif item.value is None:
            continue  # an acceptance: after the search, with values of its own
        else:
            values[item.candidate] = item.value
        evidence.append((candidates[item.candidate], public_verdict(item.verdict)))
    ranked = sorted(values, key=lambda identity: values[identity])
    parents = tuple(candidates[identity] for identity in ranked)
    profiles = {
        event.document["candidate"]: from_json(event.document["profile"], Profile)
        for event in archive.events("profile")
        if until is None or event.id < until.event
    }
    return Known(
        parents,
        tuple(evidence),
        stored[-1].id if stored else 0,
        values,
        profiles,
        read_brief(archive, until),
    )


class Facts:
    """What machine code shows, noted in the archive so that a replay needs no compiler."""

    def __init__(
        self, archive: Archive, look: Callable[[Candidate], tuple[str, ...]] | None
    ) -> None:
        self._archive, self._look = archive, look
        noted = archive.events("facts")
        self._known = {e.document["candidate"]: tuple(e.document["facts"]) for e in noted}

    def __call__(self, candidate: Candidate) -> tuple[str, ...]:
        """Short words; empty where nobody can tell."""
        identity = candidate.identity
        if identity not in self._known:
            if self._look is None:
                return ()
            self._known[identity] = self._look(candidate)
            self._archive.add_event("facts", candidate=identity, facts=list(self._known[identity]))
        return self._known[identity]


def add_brief(archive: Archive, brief: Brief, again: bool = False) -> None:
    """Keep what models are told, once: a resumed campaign goes on with the same words.

    Args:
        archive: where it is kept.
        brief: what they are told.
        again: keep what has changed since; what was told holds for the rounds before.
    """
    before = read_brief(archive)
    if before is None or (again and before != brief):
        document = brief.to_json()
        shelf = {name: archive.put_text(text) for name, text in brief.shelf.items()}
        archive.add_event("brief", **{**document, "shelf": shelf})


def read_brief(archive: Archive, until: Moment | None = None) -> Brief | None:
    """What models were told at a moment (None: now); None before they were told anything."""
    events = [e for e in archive.events("brief") if until is None or e.id < until.event]
    if not events:
        return None
    document = events[-1].document
    shelf = {name: archive.get_text(key) for name, key in document["shelf"].items()}
    return Brief.from_json({**document, "shelf": shelf})


def adopted(archive: Archive) -> list[Family]:
    """Families that came in during this campaign: from models, or submitted by hand."""
    events = [*archive.events("proposed"), *archive.events("submitted")]
    wanted = [i for event in events for i in event.document["families"]]
    stored = {family.identity: family for family in archive.families()}
    return [stored[identity] for identity in dict.fromkeys(wanted) if identity in stored]


def unfinished(archive: Archive) -> dict[tuple[str, int], Moment]:
    """Rounds that were begun and not ended, and when."""
    begun: dict[tuple[str, int], Moment] = {}
    for event in _round_events(archive):
        key = (event.document["loop"], event.document["round"])
        if event.kind == "round":
            begun[key] = Moment(event.document["evidence"], event.id)
        else:
            begun.pop(key, None)
    return begun


def recorded_rounds(
    archive: Archive, loops: Sequence[AgentLoop]
) -> list[tuple[AgentLoop, Known, list[str]]]:
    """Rounds that were begun and ended: the loop, what it knew, the families that came out."""
    by_name = {loop.name: loop for loop in loops}
    begun: dict[str, Moment] = {}
    found: list[tuple[AgentLoop, Known, list[str]]] = []
    for event in _round_events(archive):
        name = event.document["loop"]
        if event.kind == "round":
            begun[name] = Moment(event.document["evidence"], event.id)
        elif name in begun and name in by_name:
            now = known(archive, begun.pop(name))
            found.append((by_name[name], now, event.document["families"]))
    return found


def _round_events(archive: Archive) -> list[StoredEvent]:
    events = [*archive.events("round"), *archive.events("proposed")]
    return sorted(events, key=lambda event: event.id)
