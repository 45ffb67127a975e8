"""What all loops share: rounds of tasks, answered side by side, remembered by family."""

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from kernelwright.agents import bandit, roles
from kernelwright.agents.brief import Brief
from kernelwright.agents.desk import Desk
from kernelwright.agents.history import Attempt, Evidence, History
from kernelwright.agents.profiles import told
from kernelwright.agents.replies import Critique, Design, Kernel
from kernelwright.agents.roles import Question, Rules
from kernelwright.llm import Model
from kernelwright.model import Candidate, Family, Lineage, Profile, Rejected
from kernelwright.propose import ProblemView

T = TypeVar("T")
Inspect = Callable[[Candidate], tuple[str, ...]]
"""What a candidate's machine code shows, as short words; empty where nobody can tell."""

_STAGNATION = 4
"""Rounds without a new leader after which a loop ends."""
_NEAR_BOUND = 0.97
"""Fraction of the bound at which nothing is left to gain."""


@dataclass(slots=True)
class Idea:
    """A kernel that a model wrote, and what was expected of it."""

    family: Family
    design: Design
    model: str
    parent: str = ""
    """Identity of the family that it was changed from."""
    reference_name: str = "the best baseline"
    reference_us: float | None = None
    """Of what led when it was asked for."""
    reference: str = ""
    """Identity of the candidate that led then; empty: a baseline did."""
    repairs: int = 0
    settled: bool = False
    """Repaired, criticised or given up: nothing more follows from it by itself."""
    island: int = 0
    note: str = ""
    """What the critic said of it."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a task gets: whom to ask, and under which key."""

    model: Model
    key: str


Task = Callable[[Work], Idea | None]


@dataclass(slots=True)
class Setting:
    """What a loop works with."""

    desk: Desk
    brief: Brief
    inspect: Inspect = field(default=lambda candidate: ())
    width: int = 2
    """Kernels asked for side by side in a round."""
    seed: int = 0
    profiles: Mapping[str, Profile] = field(default_factory=dict[str, Profile])
    """What limits a candidate, by its identity, as far as it is known; set before each round."""
    values: Mapping[str, float] = field(default_factory=dict[str, float])
    """Chained ratios of paired comparisons, by identity: less is faster; set before each round."""


class AgentLoop(ABC):
    """A proposer that asks models, round by round.

    Deterministic: the same evidence and the same replies give the same requests and families.
    """

    name = ""
    cost = "model tokens"
    iterative = True
    """It is asked again and again while evidence comes in."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.desk, self.brief = setting.desk, setting.brief
        self.round = 0
        self.ideas: dict[str, Idea] = {}
        """By identity of the family, in the order in which they were had."""
        self.finished = ""
        """Why there is nothing more to propose; empty while there may be."""
        self.examples: dict[str, str] = {}
        self._leader = ""
        self._stale = 0

    def propose(
        self,
        view: ProblemView,
        parents: Sequence[Candidate],
        evidence: Evidence,
        count: int,
    ) -> tuple[Family, ...]:
        """One round; see `Proposer`. Empty: nothing of use came back, or `finished` says why.

        Raises:
            ModelError: a model can never be asked.
        """
        history = History.of(parents, evidence)
        self.finished = self.finished or self._ending(history)
        if self.finished or count < 1:
            return ()
        if self.round == 0 and self.brief.shelf:
            self._visit_library(history)
        tasks = self.tasks(history)[: min(count, self.setting.width)]
        model_of = [self.choose(history) for _ in tasks]
        works = [Work(m, f"{self.name}/{self.round}/{slot}") for slot, m in enumerate(model_of)]
        ideas = in_parallel([_bound(task, work) for task, work in zip(tasks, works, strict=True)])
        self.round += 1
        if self.desk.exhausted:
            self.finished = self.desk.exhausted
        fresh: list[Family] = []
        for idea in ideas:
            if idea is not None and idea.family.identity not in self.ideas:
                self.ideas[idea.family.identity] = idea
                fresh.append(idea.family)
        return tuple(fresh)

    @property
    def notes(self) -> list[str]:
        """What critics said, in the order of the kernels."""
        return [idea.note for idea in self.ideas.values() if idea.note]

    @abstractmethod
    def tasks(self, history: History) -> list[Task]:
        """What this round asks for, most worthwhile first; may ask the planner by itself."""

    def choose(self, history: History) -> Model:
        """The model to ask next."""
        gains: dict[str, list[float]] = {}
        for identity, idea in self.ideas.items():
            attempt = history.of_family(identity)
            if attempt is not None:
                gains.setdefault(idea.model, []).append(max(0.0, self.log_gain(idea, attempt)))
        return bandit.choose(self.desk.models, self.desk.ledger.exchanges, gains)

    # What tasks are made of

    def plan(self, history: History, key: str) -> list[Design]:
        """The planner's designs, the one to write first in front; empty when it says nothing."""
        limits = self._limits(history.best)
        question = roles.plan(self.brief, history, self.notes, limits)
        plan = self.desk.ask(question, key, self.choose(history)).value
        if plan is None:
            return []
        return sorted(plan.designs, key=lambda design: design.name != plan.next)

    def write(
        self,
        history: History,
        design: Design,
        parent: Attempt | None = None,
        examples: Mapping[str, str] | None = None,
        notes: Sequence[str] | None = None,
    ) -> Task:
        """A task: a kernel of a design, from scratch or changed from a parent."""
        shown = {**self.examples, **(examples or {})}
        notes = self.notes if notes is None else notes

        def task(work: Work) -> Idea | None:
            question = roles.write(
                self.brief, history, design, self.rules(history),
                roles.Start(parent, self._limits(parent)), shown, notes,
            )  # fmt: skip
            return self._idea(question, work, history, design, parent)

        return task

    def repair(self, history: History, idea: Idea, attempt: Attempt, rejected: Rejected) -> Task:
        """A task: a rejected kernel mended."""
        idea.settled = True
        number = idea.repairs + 1

        def task(work: Work) -> Idea | None:
            question = roles.repair(self.brief, attempt, rejected, number, self.rules(history))
            mended = self._idea(question, work, history, idea.design, attempt)
            if mended is not None:
                mended.repairs, mended.parent, mended.island = number, idea.parent, idea.island
                mended.reference_name = idea.reference_name
                mended.reference_us, mended.reference = idea.reference_us, idea.reference
            return mended

        return task

    def improve(self, history: History, idea: Idea, attempt: Attempt) -> Task:
        """A task: the critic's word on a measured kernel, then what follows from it."""
        idea.settled, notes = True, self.notes  # of now, whatever tasks beside this one find

        def task(work: Work) -> Idea | None:
            critique = self._criticise(history, idea, attempt, notes, work)
            if critique is None:
                return None
            idea.note = f"{attempt.name}: {critique.explanation}"
            parent = attempt if critique.promising or history.best is None else history.best
            design = Design(
                name="next move",
                idea=critique.next_move or critique.explanation,
                expected_speedup=critique.expected_speedup,
            )
            write = self.write(history, design, parent, notes=[*notes, idea.note])
            return write(Work(work.model, f"{work.key}/then"))

        return task

    def repairs(self, history: History) -> list[Task]:
        """Repairs of everything that was rejected and may still be mended."""
        found: list[Task] = []
        for identity, idea in list(self.ideas.items()):
            attempt = history.of_family(identity)
            if idea.settled or attempt is None or attempt.rejected is None:
                continue
            if idea.repairs < roles.REPAIRS:
                found.append(self.repair(history, idea, attempt, attempt.rejected))
        return found

    def measured(self, history: History) -> list[tuple[Idea, Attempt]]:
        """Own kernels that are right, best first."""
        return [
            (self.ideas[attempt.identity], attempt)
            for attempt in history.attempts
            if attempt.identity in self.ideas and attempt.is_measured
        ]

    def log_gain(self, idea: Idea, attempt: Attempt) -> float:
        """Log of how much faster an idea came out than what led when it was asked for.

        By paired comparisons; by medians of different moments where a baseline led. 0: not known.
        """
        values = self.setting.values
        own, before = values.get(attempt.candidate.identity), values.get(idea.reference)
        if own and before:
            return math.log(before / own)
        if not idea.reference_us or not attempt.best_us:
            return 0.0
        return math.log(idea.reference_us / attempt.best_us)

    def rules(self, history: History) -> Rules:
        """What a new kernel must keep, being new among the rest."""
        measured = {a.name: a.candidate.source for a in history.attempts if a.is_measured}
        others = {a.name: a.candidate.source for a in history.attempts if not a.is_measured}
        waiting = {
            idea.family.name: idea.family.source
            for identity, idea in self.ideas.items()
            if history.of_family(identity) is None
        }
        return Rules(self.brief, measured, others | waiting)

    # Inside

    def _idea(
        self,
        question: Question[Kernel],
        work: Work,
        history: History,
        design: Design,
        parent: Attempt | None,
    ) -> Idea | None:
        kernel = self.desk.ask(question, work.key, work.model).value
        if kernel is None:
            return None
        parents = (parent.candidate.identity,) if parent else ()
        family = Family(
            f"{self.name}:{kernel.name}", self.brief.language, self.brief.entry, kernel.source,
            Lineage(self.name, parents, kernel.idea),
        )  # fmt: skip
        best, baseline = history.best, self.brief.best_baseline
        idea = Idea(family, design, work.model.name, parent.identity if parent else "")
        if best is not None:
            idea.reference_name, idea.reference_us = best.name, best.best_us
            idea.reference = best.candidate.identity
        elif baseline is not None:
            idea.reference_name, idea.reference_us = baseline
        return idea

    def _criticise(
        self, history: History, idea: Idea, attempt: Attempt, notes: Sequence[str], work: Work
    ) -> Critique | None:
        observed = math.exp(self.log_gain(idea, attempt))
        facts = self.setting.inspect(attempt.candidate)
        measurement = roles.Measurement(
            attempt, idea.design.idea, idea.reference_name, idea.design.expected_speedup,
            observed, facts, self._limits(attempt),
        )  # fmt: skip
        question = roles.criticise(self.brief, history, measurement, notes)
        return self.desk.ask(question, f"{work.key}/critic", work.model).value

    def _limits(self, attempt: Attempt | None) -> str:
        profile = self.setting.profiles.get(attempt.candidate.identity) if attempt else None
        return told(profile) if profile else ""

    def _visit_library(self, history: History) -> None:
        question = roles.select(self.brief, history)
        chosen = self.desk.ask(question, f"{self.name}/0/library", self.choose(history)).value
        if chosen is not None:
            self.examples = {name: self.brief.shelf[name] for name in chosen.chosen[:2]}

    def _ending(self, history: History) -> str:
        best = history.best
        if best is not None and (best.fraction_of_bound or 0) >= _NEAR_BOUND:
            return "the bound is reached"
        leader = best.identity if best else ""
        self._stale = 0 if leader != self._leader else self._stale + 1
        self._leader = leader
        if self.round > 0 and self._stale >= _STAGNATION:
            return f"no new leader in {_STAGNATION} rounds"
        return ""


def _bound(task: Task, work: Work) -> Callable[[], Idea | None]:
    return lambda: task(work)


def in_parallel(functions: Sequence[Callable[[], T]]) -> list[T]:
    """Call all side by side; results in their order, the first exception is raised.

    Threads are daemons: one that waits for a server does not keep a finished program alive.
    """
    results: list[T | None] = [None] * len(functions)
    errors: list[BaseException] = []

    def call(place: int) -> None:
        try:
            results[place] = functions[place]()
        except BaseException as error:
            errors.append(error)

    threads = [
        threading.Thread(target=call, args=(place,), daemon=True) for place in range(len(functions))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results  # pyright: ignore[reportReturnType]
