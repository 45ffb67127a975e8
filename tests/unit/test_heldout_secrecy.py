"""No held-out size reaches anybody who makes candidates, or a log, before a campaign has ended."""

import dataclasses
import re
import sqlite3
from dataclasses import replace

import pytest
from campaign_support import problem_file, quick, small_request, without_operator

from kernelwright.campaign import loop, optimize
from kernelwright.evaluation import oracle_client
from kernelwright.evaluation.judge import Judge
from kernelwright.model import FrozenMap, Reason, Rejected, Stage
from kernelwright.store import Archive

SECRET = {"T": 1237, "H": 1871}
FOUND = re.compile(r"(?<![\w.])(1237|1871)(?![\w.])")
QUICK = replace(quick(), heldout_timed=1)


class Listener:
    """Keeps as text everything that it is shown."""

    def __init__(self):
        self.heard = []

    def stage(self, text):
        self.heard.append(text)

    def note(self, text):
        self.heard.append(text)

    def update(self, status):
        self.heard.append(repr(status))


def shown(value):
    """All of a record as text, spaces and programs included."""
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return " ".join([repr(value), *(shown(getattr(value, field.name)) for field in fields)])
    return repr(value)


def whole(folder):
    """Every row of an archive as text, whoever may see it."""
    with sqlite3.connect(f"file:{folder}/archive.db?mode=ro", uri=True) as database:
        tables = [
            r[0] for r in database.execute("select name from sqlite_master where type='table'")
        ]
        return repr([database.execute(f"select * from {table}").fetchall() for table in tables])


@pytest.fixture
def campaign(tmp_path, monkeypatch):
    """A finished campaign whose first finalist fails at held-out sizes; what everybody heard."""
    without_operator(monkeypatch)
    listener, drawn = Listener(), []

    def heldout(self, dtype, seed, count):
        payload = {"dtype": dtype, "seed": seed, "count": count}
        found = self._ask("heldout", payload, 60.0)["workloads"][:1]
        drawn.append(found)
        return [{**workload, "sizes": dict(SECRET)} for workload in found]

    examine, named = Judge.heldout, loop.strategy_named

    def first_fails(self, session, race):
        result = examine(self, session, race)
        if len(drawn) > 1:
            return result
        from kernelwright.evaluation.expected import Fault
        from kernelwright.evaluation.heldout import _told

        return _told(self, Fault(Reason.WRONG_RESULT, "out[1236, 3] is wrong on T=1237,H=1871"))

    def strategy(name, seed):
        inner = named(name, seed)
        ask, tell = inner.ask, inner.tell

        def recording_ask(view, count):
            listener.heard += [shown(view), whole(request.folder)]
            return ask(view, count)

        def recording_tell(asked, verdict, value):
            listener.heard.append(shown(verdict))
            return tell(asked, verdict, value)

        inner.ask, inner.tell = recording_ask, recording_tell
        return inner

    def proposer(name):
        inner = loop_proposer(name)
        propose = inner.propose

        def recording(view, parents, evidence, count):
            listener.heard.append(shown(view) + repr(parents) + repr(evidence))
            return propose(view, parents, evidence, count)

        inner.propose = recording
        return inner

    loop_proposer = loop.proposer_named
    add = Archive.add_verdict

    def recording_add(self, candidate, verdict, value=None):
        number = add(self, candidate, verdict, value)
        listener.heard.append(repr(self.evidence()))
        return number

    monkeypatch.setattr(oracle_client.OracleClient, "heldout", heldout)
    monkeypatch.setattr(Judge, "heldout", first_fails)
    monkeypatch.setattr(loop, "strategy_named", strategy)
    monkeypatch.setattr(loop, "proposer_named", proposer)
    monkeypatch.setattr(Archive, "add_verdict", recording_add)
    request = small_request(problem_file(tmp_path), tmp_path / "run", evaluations=4)
    document = optimize(request, listener, settings=QUICK)
    return document, listener.heard, drawn


def test_held_out_sizes_are_heard_by_nobody_and_told_in_the_end(campaign):
    document, heard, drawn = campaign
    assert len(drawn) >= 2
    assert len(heard) > 10
    assert any("wrong result at held-out sizes" in text for text in heard)
    for text in heard:
        assert FOUND.search(text) is None, text[:2000]
    assert document["heldout_faults"] == ["out[1236, 3] is wrong on T=1237,H=1871"]
    assert document["generality"]["timed"][0]["sizes"] == SECRET
    assert document["claim"]["shrinkage"] == pytest.approx(
        1 - document["claim"]["accepted"] / document["claim"]["searched"]
    )
    assert document["deterministic"] is True


def test_the_search_for_sizes_can_find_them():
    verdict = Rejected(Stage.ACCEPT, Reason.WRONG_RESULT, "wrong on T=1237,H=5")
    assert FOUND.search(shown(verdict))
    assert FOUND.search(shown(FrozenMap(SECRET)))
    assert not FOUND.search("0.1237 b1871f")
