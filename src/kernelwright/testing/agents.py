"""A task for models made of small records, and one question of every role about it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kernelwright.agents import Brief, Design, History, Question, Rules, roles
from kernelwright.agents.drafts import Refused, draft
from kernelwright.agents.profiles import told
from kernelwright.model import Candidate, FrozenMap, Lineage, Verdict
from kernelwright.propose import ProblemView
from kernelwright.testing import samples

DESIGN = Design(name="streaming", idea="Write past the caches.", expected_speedup=1.4)
BROKEN = samples.SOURCE.replace("return 0;", "return x[0];")


def view() -> ProblemView:
    """What proposers see of `samples.problem()`."""
    problem = samples.problem()
    return ProblemView(
        problem.signature, None, problem.dtypes[0], FrozenMap({"N": 1000}), samples.machine()
    )


def brief(**changes: Any) -> Brief:
    """What models are told of it."""
    shelf = {"scan": "// Running sums.\nint;"}
    return replace(Brief.of(samples.problem(), view(), {"eager": 20.0}, shelf), **changes)


def candidate(
    source: str = samples.SOURCE, name: str = "scale", lanes: int = 8, proposer: str = "recipes"
) -> Candidate:
    """A variant of a family."""
    values = FrozenMap({"LANES": lanes, "UNROLL": 2, "CXX": "g++"})
    return replace(
        samples.candidate(), source=source, family=name, tunables=values, lineage=Lineage(proposer)
    )


def evidence() -> list[tuple[Candidate, Verdict]]:
    """One measured family (two variants), one that is rejected."""
    return [
        (candidate(), samples.measured(12.5, accepted=False)),
        (candidate(lanes=16), samples.measured(10.0, accepted=False)),
        (candidate(BROKEN, "broken", proposer="refine"), samples.rejected()),
    ]


def parents() -> list[Candidate]:
    """The measured ones, best first."""
    return [candidate(lanes=16), candidate()]


def history() -> History:
    """Of `evidence`."""
    return History.of(parents(), evidence())


def rules(made: Brief | None = None) -> Rules:
    """That a kernel must keep."""
    return Rules(made or brief(), {"scale": samples.SOURCE})


def drafts() -> dict[str, Question[Any]]:
    """The author's questions: a draft from words, and one that is corrected."""
    refused = Refused("def scaled(x): return x\n", ("f32: normal: trivial zeros: passes",), 1, 3)
    return {
        "author": draft("Scale a vector.", ""),
        "author, correcting": draft("Scale a vector.", samples.SOURCE, refused),
    }


def questions(made: Brief | None = None, seen: History | None = None) -> dict[str, Question[Any]]:
    """One of every role, and a translation."""
    made, seen = made or brief(), seen or history()
    best, broken = seen.attempts[0], seen.attempts[-1]
    limits = told(samples.profile())
    start = roles.Start(best, limits)
    measurement = roles.Measurement(
        best, "Wider loads.", "eager", 2.0, 1.1, ("512-bit vectors",), limits
    )
    notes: Sequence[str] = ["Gathers cost more than they save."]
    return {
        "planner": roles.plan(made, seen, notes, limits),
        "coder": roles.write(made, seen, DESIGN, rules(made), start, {"scan": "int;"}, notes),
        "coder from scratch": roles.write(made, seen, DESIGN, rules(made)),
        "translation": roles.translate(made, best, rules(made)),
        "repairer": roles.repair(made, broken, broken.rejections[-1], 1, rules(made)),
        "critic": roles.criticise(made, seen, measurement, notes),
        "librarian": roles.select(made, seen),
    }
