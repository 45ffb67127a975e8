"""Language models in a campaign: rounds beside the search, archived so that they replay."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from kernelwright.agents import (
    LOOPS,
    AgentLoop,
    Brief,
    Desk,
    History,
    Setting,
    family_of,
    loop_named,
)
from kernelwright.campaign.diagnosing import Look
from kernelwright.campaign.exchanges import (
    ArchiveJournal,
    Facts,
    Known,
    Moment,
    exchanges,
    known,
    read_brief,
    recorded_rounds,
    unfinished,
)
from kernelwright.errors import UserError
from kernelwright.llm import Ledger, Limits, Model, RecordedModel, model_named
from kernelwright.model import Candidate, Family, Rejected, Target
from kernelwright.propose import ProblemView
from kernelwright.store import Archive, to_json

Document = dict[str, Any]
MOST_PER_ROUND = 8
_LOOKED_AT = 3
"""Kernels of which it is asked what limits them before a round: the best, and the loop's own."""
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
    look: Look | None = None
    """None: nobody can tell what limits a kernel."""
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
        at = unfinished(self.archive).get((loop.name, loop.round))
        if at is None:
            self._look_at(loop)  # now, not beside timed calls
            last = known(self.archive).last
            event = self.archive.add_event("round", loop=loop.name, round=loop.round, evidence=last)
            at = Moment(last, event)
        now = known(self.archive, at)
        thread = threading.Thread(target=self._work, args=(loop, now), daemon=True)
        self._current = _Round(loop, loop.round, thread)
        thread.start()

    def _look_at(self, loop: AgentLoop) -> None:
        """Note words of every measured family, and what limits those that a model may be shown."""
        now = known(self.archive)
        attempts = [a for a in History.of(now.parents, now.evidence).attempts if a.is_measured]
        verdicts = {candidate.identity: verdict for candidate, verdict in now.evidence}
        for attempt in attempts:
            loop.setting.inspect(attempt.candidate)
        shown = [*attempts[:_LOOKED_AT], *(a for a in attempts if a.identity in loop.ideas)]
        fresh = [a.candidate for a in shown if a.candidate.identity not in now.profiles]
        for candidate in list(dict.fromkeys(fresh))[:_LOOKED_AT]:
            verdict = verdicts[candidate.identity]
            thorough = candidate == attempts[0].candidate
            if self.look is None or isinstance(verdict, Rejected):
                continue
            profile = self.look.profile(candidate, verdict, thorough)
            if profile is not None:
                self.archive.add_event(
                    "profile", candidate=candidate.identity, profile=to_json(profile)
                )

    def _work(self, loop: AgentLoop, now: Known) -> None:
        current = self._current
        assert current is not None
        try:
            current.families = _propose(loop, self.view, now)
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
            _propose(loop, self.view, now)
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


def _propose(loop: AgentLoop, view: ProblemView, now: Known) -> tuple[Family, ...]:
    loop.setting.profiles, loop.setting.values = now.profiles, now.values
    loop.brief = now.brief or loop.brief
    return loop.propose(view, now.parents, now.evidence, MOST_PER_ROUND)


def _gain(loops: Sequence[AgentLoop], now: Known) -> float | None:
    """How much faster the models' best is than the best of the rest, by paired comparisons."""
    own = {identity for loop in loops for identity in loop.ideas}
    best: dict[bool, float] = {}
    for candidate in now.parents:  # best first
        best.setdefault(family_of(candidate) in own, now.values[candidate.identity])
    if True not in best or False not in best:
        return None
    return round(best[False] / best[True], 4)


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


def open_rounds(
    archive: Archive,
    view: ProblemView,
    names: Sequence[str],
    desk_of: Callable[[ArchiveJournal], Desk],
    seed: int,
    look: Look | None,
) -> ModelRounds:
    """The loops of a campaign on the brief that is in its archive, at the state it left them in."""
    brief = _told(archive)
    journal = ArchiveJournal(archive)
    setting = Setting(
        desk_of(journal), brief, Facts(archive, look.words if look else None), seed=seed
    )
    loops = [loop_named(name, setting) for name in names if name in LOOPS]
    rounds = ModelRounds(archive, view, loops, journal, look)
    rounds.restore()
    return rounds


def _told(archive: Archive) -> Brief:
    brief = read_brief(archive)
    assert brief is not None, "models are asked after they were told"
    return brief


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
        _told(archive), Facts(archive, None), seed=seed,
    )  # fmt: skip
    loops = [loop_named(name, setting) for name in names if name in LOOPS]
    families, differences = 0, list[str]()
    for loop, now, recorded in recorded_rounds(archive, loops):
        label = f"{loop.name}/{loop.round}"
        loop.finished = ""
        made = _propose(loop, view, now)
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
