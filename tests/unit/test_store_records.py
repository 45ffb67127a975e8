import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelwright import model
from kernelwright.errors import ArchiveError
from kernelwright.model import Candidate, FrozenMap, Measured, Rejected, Verdict, records
from kernelwright.store import from_json, to_json
from kernelwright.testing import samples

RECORDS = [
    samples.problem(),
    samples.family(),
    samples.candidate(),
    samples.workload(),
    samples.measured(),
    samples.accepted(),
    samples.rejected(),
    samples.machine(),
    dataclasses.replace(samples.machine(), gpu=samples.gpu()),
    samples.exchange(),
    dataclasses.replace(samples.measured(), sanitized=FrozenMap({"memcheck": "clean"})),
    samples.telemetry(),
    samples.profile(),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_every_record_comes_back_as_it_was(record):
    text = json.dumps(to_json(record), allow_nan=False)
    again = from_json(json.loads(text), type(record))
    assert again == record
    assert repr(again) == repr(record)  # order of maps, bool against int, lineage


def test_every_record_type_of_the_model_is_covered():
    covered = set()

    def visit(value):
        if dataclasses.is_dataclass(value):
            covered.add(type(value).__name__)
            for field in dataclasses.fields(value):
                visit(getattr(value, field.name))
        elif isinstance(value, tuple):
            for item in value:
                visit(item)

    for record in RECORDS:
        visit(record)
    types = {name for name in model.__all__ if dataclasses.is_dataclass(getattr(model, name))}
    # how a worker is run on this machine, by paths, is no record: nothing stores it
    assert covered == types - {"Host"}


@given(st.dictionaries(st.text(), st.integers() | st.text()), st.text(), st.text())
def test_any_tunables_and_text_come_back(values, source, note):
    candidate = Candidate("cpp", "kernel", source, FrozenMap(values), note)
    text = json.dumps(to_json(candidate))
    again = from_json(json.loads(text), Candidate)
    assert again == candidate
    assert again.identity == candidate.identity


def test_a_verdict_is_read_by_its_tag():
    assert from_json(to_json(samples.rejected()), Verdict) == samples.rejected()
    assert isinstance(from_json(to_json(samples.measured()), Verdict), Measured)
    with pytest.raises(ArchiveError, match="a Rejected where a Measured is wanted"):
        from_json(to_json(samples.rejected()), Measured)


def test_what_a_record_may_not_hold_is_not_written():
    with pytest.raises(TypeError, match=r"Rejected\.diagnostic holds 3"):
        to_json(Rejected(model.Stage.BUILD, model.Reason.HANG, 3))
    with pytest.raises(TypeError, match="not a record"):
        to_json({"a": 1})


def _damaged(path, value):
    document = json.loads(json.dumps(to_json(samples.measured())))
    place = document["data"]
    for step in path[:-1]:
        place = place[step]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("workloads", 0, "time_us", "low"), "3", r"workloads\[0\].time_us.low is damaged"),
        (("workloads", 0, "rounds"), True, "rounds is damaged"),
        (("workloads", 0, "rounds"), 2.5, "rounds is damaged"),
        (("workloads", 0, "workload", "dtype"), "f33", "dtype is damaged"),
        (("workloads", 0, "workload", "tier"), "none", "tier is damaged"),
        (("workloads", 0, "peers"), {}, "peers is damaged"),
        (("workloads", 0, "bound"), 3, "bound is damaged"),
        (("workloads", 0, "time_us", "low"), None, "lacks low"),
        (("workloads", 0, "surprise"), 1, "has a field 'surprise'"),
        (("workloads",), None, "lacks"),
    ],
)
def test_damage_is_said_with_its_place(path, value, message):
    with pytest.raises(ArchiveError, match=message):
        from_json(_damaged(path, value), Measured)


def test_fields_added_since_take_their_defaults():
    document = to_json(samples.measured())
    del document["data"]["accepted"]
    assert from_json(document, Measured).accepted is False


def test_older_records_are_upgraded_and_newer_ones_refused(monkeypatch):
    old = to_json(samples.rejected())
    old["data"]["why"] = old["data"].pop("diagnostic")
    with pytest.raises(ArchiveError, match="has a field 'why'"):
        from_json(old, Rejected)
    monkeypatch.setattr(records, "RECORD_VERSION", 3)

    def rename(data):
        return {"diagnostic" if k == "why" else k: v for k, v in data.items()}

    monkeypatch.setitem(records.UPGRADES, ("Rejected", 1), rename)
    assert from_json(old, Rejected) == samples.rejected()
    with pytest.raises(ArchiveError, match="version 4, newer than this program reads"):
        from_json({**old, "version": 4}, Rejected)
    with pytest.raises(ArchiveError, match="lacks its type"):
        from_json({"data": {}}, Rejected)
