"""Candidates fail in every way that we know; each costs its own verdict, and nothing else."""

from fault_campaign import run
from faults import FAULTS


def test_every_fault_gets_its_own_verdict_and_good_results_are_kept(tmp_path, monkeypatch):
    report = run(tmp_path, 1, 4, monkeypatch)
    assert report.wrong == []
    assert report.judged == len(FAULTS) + 3
    assert report.values == 4
    assert report.document["best"]["tunables"]["FAULT"] == 0
    assert report.left == set()
