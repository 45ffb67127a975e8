"""Language models in a campaign: rounds beside the search, archived so that they replay."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from kernelwright.agents import LOOPS, AgentLoop, Brief, Desk, History, Setting, loop_named
from kernelwright.errors import UserError
from kernelwright.llm import Ledger, Limits, Model, RecordedModel, Recording, model_named
from kernelwright.model import (
    Candidate,
    Exchange,
    Family,
    Rejected,
    Target,
    Verdict,
)
from kernelwright.propose import ProblemView
from kernelwright.store import Archive, StoredEvent, from_json, public_verdict, to_json

Document = dict[str, Any]
MOST_PER_ROUND = 8
_POLL_S = 0.05


def check_models(
    names: Sequence[str], proposers: Sequence[str], limits: Limits
) -> tuple[Model, ...]:
    """The models that a campaign asks, ready; nothing is spent.

    Raises:
        UserError: a proposer needs a model and none is named, or the other way round; or money is
            limited and a model's price is not known.
        ModelError: one of them cannot be used.
    """
    loops = [name for name in proposers if name in LOOPS]
    if loops and not names:
        raise UserError(f"the proposer '{loops[0]}' needs a language model: add --model")
    if names and not loops:
        raise UserError(f"a model is named and nothing asks it: add {' or '.join(LOOPS)} to "
                        "--proposers")  # fmt: skip
    models = tuple(model_named(name) for name in names)
    for model in models:
        if limits.dollars is not None and model.dollars(1000, 1000) is None:
            raise UserError(f"the price of '{model.name}' is not known, so that money cannot be "
                            "limited: limit tokens instead")  # fmt: skip
    return models


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


def known(archive: Archive, until: int | None = None) -> Known:
    """What an archive knew when its last verdict had this number (None: now)."""
    stored = [v for v in archive.verdicts() if until is None or v.id <= until]
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
    return Known(parents, tuple(evidence), stored[-1].id if stored else 0)


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


@dataclass(slots=True)
class _Round:
    """A round that is under way in a thread."""

    loop: AgentLoop
    number: int
    thread: threading.Thread
    families: tuple[Family, ...] = ()
    error: BaseException | None = None


@dataclass(slots=True)
class ModelRounds:
    """The loops of a campaign. One round is under way at a time, beside the search."""

    archive: Archive
    view: ProblemView
    loops: Sequence[AgentLoop]
    journal: ArchiveJournal
    asked: list[str] = field(default_factory=list[str])
    """Identities of the families of the last round."""
    _current: _Round | None = None
    _turn: int = 0

    @property
    def is_waiting(self) -> bool:
        """Whether a round is under way."""
        return self._current is not None

    @property
    def finished(self) -> bool:
        """Whether every loop has ended."""
        return all(loop.finished for loop in self.loops)

    def start(self) -> None:
        """Begin the next loop's round, unless one is under way or all have ended."""
        if self._current is not None or self.finished:
            return
        while self.loops[self._turn % len(self.loops)].finished:
            self._turn += 1
        loop = self.loops[self._turn % len(self.loops)]
        self._turn += 1
        unfinished = _unfinished(self.archive)
        at = unfinished.get((loop.name, loop.round))
        now = known(self.archive, at)
        if at is None:
            self.archive.add_event("round", loop=loop.name, round=loop.round, evidence=now.last)
        for attempt in History.of(now.parents, now.evidence).attempts:
            if attempt.is_measured:  # now, not beside timed calls
                loop.setting.inspect(attempt.candidate)
        thread = threading.Thread(target=self._work, args=(loop, now), daemon=True)
        self._current = _Round(loop, loop.round, thread)
        thread.start()

    def _work(self, loop: AgentLoop, now: Known) -> None:
        current = self._current
        assert current is not None
        try:
            current.families = loop.propose(self.view, now.parents, now.evidence, MOST_PER_ROUND)
        except BaseException as error:
            current.error = error

    def collect(self) -> tuple[Family, ...]:
        """Families of a round that has ended since; empty where none has.

        Raises:
            ModelError: a model can never be asked.
        """
        current = self._current
        if current is None or current.thread.is_alive():
            return ()
        self._current = None
        if current.error is not None:
            raise current.error
        for family in current.families:
            self.archive.add_family(family)
        identities = [family.identity for family in current.families]
        self.archive.add_event(
            "proposed", loop=current.loop.name, round=current.number, families=identities,
            ended=current.loop.finished,
        )  # fmt: skip
        self.asked = identities
        return current.families

    def wait(self, deadline: float) -> tuple[Family, ...]:
        """Families of the next round that has any; empty when all have ended or time is over."""
        while time.monotonic() < deadline:
            self.start()
            if self._current is None:
                return ()
            self._current.thread.join(_POLL_S)
            found = self.collect()
            if found:
                return found
        return ()

    def restore(self) -> None:
        """Go once more through the rounds of an earlier run, from the archive alone."""
        for loop, now, _ in recorded_rounds(self.archive, self.loops):
            loop.propose(self.view, now.parents, now.evidence, MOST_PER_ROUND)
            loop.finished = ""  # other limits hold now

    def close(self) -> None:
        """Let go of what is under way."""
        self.journal.close()

    def document(self, best: Candidate | None) -> Document:
        """What the models did and took, as plain data."""
        desk, now = self.loops[0].desk, known(self.archive)
        families = [identity for loop in self.loops for identity in loop.ideas]
        spent = desk.ledger.summary()
        gain = _gain(self.loops, now)
        wins = best is not None and best.lineage.proposer in LOOPS
        return {
            "models": [model.name for model in desk.models],
            "loops": {loop.name: {"rounds": loop.round, "ended": loop.finished}
                      for loop in self.loops},
            "spent": spent,
            "families": len(families),
            "per_candidate": _shared(spent, len(families)),
            "gain": gain,
            "per_gain": _shared(spent, gain - 1 if gain and gain > 1 else 0),
            "leads": wins,
        }  # fmt: skip


def _gain(loops: Sequence[AgentLoop], now: Known) -> float | None:
    """How much faster the best is than the best of what no model wrote."""
    own = {identity for loop in loops for identity in loop.ideas}
    times: dict[bool, float] = {}
    for attempt in History.of(now.parents, now.evidence).attempts:
        if attempt.best_us:
            times.setdefault(attempt.identity in own, attempt.best_us)
    if True not in times or False not in times:
        return None
    return round(times[False] / times[True], 4)


def _shared(spent: Mapping[str, Any], parts: float) -> Document | None:
    """Tokens, money and seconds for one part; None where there is none."""
    if parts <= 0:
        return None
    tokens = spent["input_tokens"] + spent["output_tokens"]
    dollars = spent["dollars"]
    return {
        "tokens": round(tokens / parts),
        "dollars": None if dollars is None else round(dollars / parts, 6),
        "seconds": round(spent["seconds"] / parts, 2),
    }


def _unfinished(archive: Archive) -> dict[tuple[str, int], int]:
    """Rounds that were begun and not ended, with the last verdict that they knew."""
    begun: dict[tuple[str, int], int] = {}
    for event in _round_events(archive):
        key = (event.document["loop"], event.document["round"])
        if event.kind == "round":
            begun[key] = event.document["evidence"]
        else:
            begun.pop(key, None)
    return begun


def recorded_rounds(
    archive: Archive, loops: Sequence[AgentLoop]
) -> list[tuple[AgentLoop, Known, list[str]]]:
    """Rounds that were begun and ended: the loop, what it knew, the families that came out."""
    by_name = {loop.name: loop for loop in loops}
    begun: dict[str, int] = {}
    found: list[tuple[AgentLoop, Known, list[str]]] = []
    for event in _round_events(archive):
        name = event.document["loop"]
        if event.kind == "round":
            begun[name] = event.document["evidence"]
        elif name in begun and name in by_name:
            now = known(archive, begun.pop(name))
            found.append((by_name[name], now, event.document["families"]))
    return found


def _round_events(archive: Archive) -> list[StoredEvent]:
    events = [*archive.events("round"), *archive.events("proposed")]
    return sorted(events, key=lambda event: event.id)


def open_rounds(
    archive: Archive,
    view: ProblemView,
    names: Sequence[str],
    desk_of: Callable[[ArchiveJournal], Desk],
    seed: int,
    look: Callable[[Candidate], tuple[str, ...]] | None,
) -> ModelRounds:
    """The loops of a campaign on the brief that is in its archive, at the state it left them in."""
    brief = _read_brief(archive)
    journal = ArchiveJournal(archive)
    setting = Setting(desk_of(journal), brief, Facts(archive, look), seed=seed)
    loops = [loop_named(name, setting) for name in names if name in LOOPS]
    rounds = ModelRounds(archive, view, loops, journal)
    rounds.restore()
    return rounds


def add_brief(archive: Archive, brief: Brief) -> None:
    """Keep what models are told, once; a resumed campaign goes on with the same words."""
    if not archive.events("brief"):
        document = brief.to_json()
        shelf = {name: archive.put_text(text) for name, text in brief.shelf.items()}
        archive.add_event("brief", **{**document, "shelf": shelf})


def _read_brief(archive: Archive) -> Brief:
    document = archive.events("brief")[0].document
    shelf = {name: archive.get_text(key) for name, key in document["shelf"].items()}
    return Brief.from_json({**document, "shelf": shelf})


def adopted(archive: Archive) -> list[Family]:
    """Families that models proposed earlier in this campaign."""
    wanted = [i for e in archive.events("proposed") for i in e.document["families"]]
    stored = {family.identity: family for family in archive.families()}
    return [stored[identity] for identity in dict.fromkeys(wanted) if identity in stored]


def shelf_of(families: Sequence[Family], target: Target) -> dict[str, str]:
    """What the librarian may fetch: this campaign's families, and the recipes' own sources."""
    found = {family.name: family.source for family in families}
    folder = files("kernelwright.recipes")
    if target == "cuda":
        folder, suffix = folder / "cuda", ".cu"
    else:
        suffix = ".hpp"
    for item in sorted(folder.iterdir(), key=lambda item: item.name):
        if item.name.endswith(suffix):
            found[f"recipe {item.name.removesuffix(suffix)}"] = item.read_text()
    return found


def make_again(archive: Archive, view: ProblemView, names: Sequence[str], seed: int) -> Document:
    """Make every round of a campaign again from its archive alone: no network, no compiler.

    Returns:
        `requests`, `families`, and `differences`: keys of prompts and rounds that came out
        otherwise; none means that the recorded campaign is reproduced.
    """
    models = [
        RecordedModel(name, {}) for name in dict.fromkeys(e.model for e in exchanges(archive))
    ]
    setting = Setting(
        Desk(models or [RecordedModel("none", {})], Ledger(Limits()), ArchiveJournal(archive)),
        _read_brief(archive), Facts(archive, None), seed=seed,
    )  # fmt: skip
    loops = [loop_named(name, setting) for name in names if name in LOOPS]
    families, differences = 0, list[str]()
    for loop, now, recorded in recorded_rounds(archive, loops):
        label = f"{loop.name}/{loop.round}"
        loop.finished = ""
        made = loop.propose(view, now.parents, now.evidence, MOST_PER_ROUND)
        families += len(made)
        if [family.identity for family in made] != recorded:
            differences.append(label)
    differences += setting.desk.differences
    return {
        "requests": len(setting.desk.ledger.exchanges),
        "families": families,
        "differences": differences,
        "identical": not differences,
        "spent": setting.desk.ledger.summary(),
    }
