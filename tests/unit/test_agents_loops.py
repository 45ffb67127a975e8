"""Loops in simulation: what is asked next, given what was measured. No compiler, no clock."""

import json
from dataclasses import replace

import pytest

from kernelwright.agents import LOOPS, Desk, History, Setting, loop_named
from kernelwright.agents.bandit import choose
from kernelwright.agents.population import niche_of
from kernelwright.agents.replies import Design
from kernelwright.agents.tree import ROOT, Node
from kernelwright.diagnosis.disassembly import processor_mix
from kernelwright.diagnosis.words import gpu_words, processor_words
from kernelwright.llm import Ledger, Limits
from kernelwright.model import Candidate, Exchange, FrozenMap, Reason, Rejected, Stage, Usage
from kernelwright.testing import samples
from kernelwright.testing.agents import brief, view
from kernelwright.testing.models import ScriptedModel
from kernelwright.testing.proposers import ProposerConformance


def source(number):
    """Kernels that are not copies of each other."""
    calls = "".join(f"  out[{n}] = x[{n}];\n" for n in range(number + 1))
    return samples.SOURCE.replace("  return 0;", f"{calls}  return 0;")


class Writer:
    """A model that writes a new kernel each time, and plans three designs at a time."""

    def __init__(self):
        self.count = 0

    def __call__(self, prompt):
        record = {"name": f"k{self.count}", "idea": "another one", "expected_speedup": 1.5}
        if prompt.role in ("coder", "repairer"):
            self.count += 1
            return f"```json\n{json.dumps(record)}\n```\n```cpp\n{source(self.count)}```\n"
        if prompt.role == "planner":
            designs = [
                record | {"name": f"d{n}", "expected_speedup": 1.2 + n / 10} for n in range(3)
            ]
            record = {"limiter": "memory", "designs": designs, "next": "d1", "reason": "guess"}
        elif prompt.role == "critic":
            record = {"explanation": f"critic's word {self.count}", "limiter": "memory",
                      "promising": True, "next_move": "prefetch"}  # fmt: skip
        else:
            record = {"chosen": [], "reason": "none"}
        return f"```json\n{json.dumps(record)}\n```\n"


class Simulation:
    """Judges a family as a function of its source, once for each family."""

    def __init__(self, loop, time_of):
        self.loop, self.time_of = loop, time_of
        self.evidence, self.values = [], {}

    def rounds(self, count):
        asked = []
        for _ in range(count):
            parents = sorted(self.values, key=lambda c: self.values[c])
            families = self.loop.propose(view(), parents, tuple(self.evidence), 8)
            asked.append(families)
            for family in families:
                values = FrozenMap({"LANES": 8, "UNROLL": 2, "CXX": "g++"})
                candidate = Candidate(
                    family.language, family.entry, family.source, values, family.name,
                    family.lineage,
                )  # fmt: skip
                outcome = self.time_of(family)
                if isinstance(outcome, Rejected):
                    self.evidence.append((candidate, outcome))
                else:
                    self.values[candidate] = outcome
                    self.evidence.append((candidate, samples.measured(outcome, accepted=False)))
        return asked


def setting(width=2, seed=0, facts=None, models=None, limits=None):
    desk = Desk(models or [ScriptedModel(Writer())], Ledger(limits))
    return Setting(desk, brief(shelf={}), facts or (lambda candidate: ()), width, seed)


def roles_asked(loop):
    return [e.role for e in loop.desk.ledger.exchanges]


class TestRefine(ProposerConformance):
    """A loop is a proposer like any other."""

    def make(self):
        return loop_named("refine", setting(width=1))

    def views(self):
        return [view()]


def test_refinement_plans_writes_criticises_and_writes_again():
    loop = loop_named("refine", setting(width=1))
    simulation = Simulation(loop, lambda family: 20.0 / len(family.source))
    simulation.rounds(3)
    assert roles_asked(loop) == ["planner", "coder", "critic", "coder", "critic", "coder"]
    last = loop.desk.models[0].asked[-1].user
    assert "critic's word" in last
    assert "prefetch" in last
    assert "refine:k0" in last


def test_what_is_rejected_is_mended_twice_at_most():
    rejected = Rejected(Stage.CHECK, Reason.WRONG_RESULT, "wrong at the tail")
    loop = loop_named("refine", setting(width=1))
    Simulation(loop, lambda family: rejected).rounds(3)
    assert roles_asked(loop) == ["planner", "coder", "repairer", "repairer"]
    assert "wrong at the tail" in loop.desk.models[0].asked[-1].user
    assert [idea.repairs for idea in loop.ideas.values()] == [0, 1, 2]


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_ends_when_nothing_gains_or_the_bound_is_reached(name):
    loop = loop_named(name, setting(width=2))
    simulation = Simulation(loop, lambda family: 10.0 + len(family.source))
    asked = simulation.rounds(12)
    assert "no new leader" in loop.finished
    assert asked[-1] == ()
    near = loop_named(name, setting())
    at_bound = Simulation(near, lambda family: 10.0)
    at_bound.rounds(1)
    done = [
        (c, replace(v, workloads=(replace(v.workloads[0], fraction_of_bound=0.99),)))
        for c, v in at_bound.evidence
    ]
    assert near.propose(view(), [done[0][0]], done, 8) == ()
    assert near.finished == "the bound is reached"


@pytest.mark.parametrize("name", LOOPS)
def test_loops_are_deterministic(name):
    def run():
        loop = loop_named(name, setting(width=1, seed=3))
        return Simulation(loop, lambda family: 1e5 / len(family.source)).rounds(5), loop

    (first, one), (second, two) = run(), run()
    assert [[f.identity for f in r] for r in first] == [[f.identity for f in r] for r in second]
    texts = [[p.text for p in loop.desk.models[0].asked] for loop in (one, two)]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("name", LOOPS)
def test_a_limit_ends_a_loop(name):
    loop = loop_named(name, setting(limits=Limits(tokens=20_000)))
    Simulation(loop, lambda family: 1e5 / len(family.source)).rounds(12)
    assert "20000 tokens" in loop.finished
    assert loop.desk.ledger.tokens <= 20_000


def test_niches_come_from_facts_not_from_words():
    assert niche_of(("memory:streaming", "compute:fma", "compute:vector512")) == (
        "streaming", "fma+vector512", "none", "none",
    )  # fmt: skip
    facts = {True: ("memory:streaming",), False: ("memory:gather",)}
    loop = loop_named("population", setting(facts=lambda c: facts[len(c.source) % 2 == 0]))
    simulation = Simulation(loop, lambda family: 1e5 / len(family.source))
    simulation.rounds(4)
    parents = sorted(simulation.values, key=lambda c: simulation.values[c])
    elites = loop.elites(History.of(parents, simulation.evidence), None)
    assert {niche[0] for niche in elites} <= {"streaming", "gather"}
    for niche, attempt in elites.items():
        rivals = [
            v
            for c, v in simulation.values.items()
            if niche_of(facts[len(c.source) % 2 == 0]) == niche
        ]
        assert simulation.values[attempt.candidate] == min(rivals)
    assert any("memory streaming" in p.user for p in loop.desk.models[0].asked if p.role == "coder")


def test_a_tree_opens_under_what_was_measured_and_learns_from_it():
    loop = loop_named("tree", setting(width=1))
    simulation = Simulation(loop, lambda family: 18.0)
    simulation.rounds(2)
    history = History.of(list(simulation.values), simulation.evidence)
    measured = next(iter(loop.ideas))
    bold = Design(name="bold", idea="x", expected_speedup=3.0, confidence=0.9)
    modest = Design(name="modest", idea="x", expected_speedup=1.05, confidence=0.9)
    closed, under, root = Node(bold, "0" * 64), Node(bold, measured), Node(modest, ROOT)
    loop.nodes = [closed, root, under]
    assert loop.open_nodes(history) == [under, root]
    # predictions of 1.5 that came out at 20 / 18 are trusted less from now on
    assert 0.1 <= loop.trust(history, ROOT) < 1
    assert loop.trust(History.of([], []), ROOT) == 1


def test_a_bandit_prefers_gain_per_cost_and_tries_everyone_once():
    def spent(name, dollars):
        return Exchange("k", "coder", 1, name, "", "", "answered", Usage(100, 0, 100, dollars, 1.0))

    models = [ScriptedModel({}, name) for name in ("dear", "cheap", "new")]
    exchanges = [spent("dear", 1.0)] * 8 + [spent("cheap", 0.1)] * 8
    gains = {"dear": [0.2] * 8, "cheap": [0.1] * 8}
    assert choose(models, exchanges, gains).name == "new"
    assert choose(models[:2], exchanges, gains).name == "cheap"
    assert choose(models[:2], exchanges, gains | {"cheap": [0.0] * 8}).name == "dear"


def test_words_are_read_from_machine_code():
    listing = """
0000000000001100 <kernel>:
    1100:\tvmovntps %zmm0,(%rax)
    1106:\tvfmadd231ps %zmm1,%zmm2,%zmm3
    110c:\tcall   1030 <GOMP_parallel@plt>
    1111:\tret
"""
    assert processor_words(processor_mix(listing), {"GOMP_parallel", "expf"}) == (
        "compute:multiply-adds", "compute:vectors of 512", "memory:streaming", "parallel:threads",
    )  # fmt: skip
    assert processor_words({}, ()) == ("compute:single",)
    assert gpu_words({"matrix": 4, "shuffles": 2, "float": 0}) == (
        "compute:matrix", "parallel:warp",
    )  # fmt: skip
