"""The suite as a whole: rows that fail, rows that are there, and sizes; campaigns are scripted."""

import json

import pytest

from kernelwright import suite
from kernelwright.campaign import SuiteRequest, run_suite, suite_run
from kernelwright.errors import HarnessError, MachineError, UndeclaredDtype, UserError
from kernelwright.model import Dtype, FrozenMap
from kernelwright.problems import load_problem

DOCUMENT = {
    "problem": "softmax", "dtype": "f32", "sizes": {"T": 8}, "machine": "a-machine",
    "machine_facts": {"isolation": "sandbox"}, "evaluations": 3, "seconds": 1.0,
    "workloads": [], "advice": "no candidate was accepted: use the best baseline",
}  # fmt: skip


@pytest.fixture
def campaigns(monkeypatch):
    """What campaigns were asked for; each ends as `endings` says, by problem."""
    asked, endings = [], {}

    def optimize(request, progress, settings):
        name = request.reference.function or request.folder.name.partition("-")[0]
        asked.append((request.folder.name, request.sizes, request.target, request.baselines))
        if name in endings:
            raise endings[name]
        request.folder.mkdir(parents=True)
        (request.folder / "result.json").write_text(json.dumps(DOCUMENT))
        return DOCUMENT

    monkeypatch.setattr(suite_run, "optimize", optimize)
    return asked, endings


def request(folder, **more):
    return SuiteRequest(folder, ("rms_norm", "softmax"), (Dtype.F32,), target="cuda", **more)


def test_a_row_that_fails_is_told_and_tried_again(tmp_path, campaigns):
    asked, endings = campaigns
    endings["rms_norm"] = HarnessError("a role process was lost: out of memory\nand more")
    table = run_suite(request(tmp_path))
    assert json.loads((tmp_path / "suite.json").read_text()) == table
    assert [row["reason"] for row in table["problems"]] == [
        "failed: a role process was lost: out of memory",
        DOCUMENT["advice"],
    ]
    assert (table["machine"], table["target"]) == ("a-machine", "cuda")
    asked.clear()
    endings.clear()
    table = run_suite(request(tmp_path))
    assert [name for name, *_ in asked] == ["rms_norm-f32"]  # the other is there
    assert len(table["problems"]) == 2


def test_what_concerns_every_row_ends_the_run(tmp_path, campaigns):
    campaigns[1]["rms_norm"] = MachineError("no GPU")
    with pytest.raises(MachineError, match="no GPU"):
        run_suite(request(tmp_path))


def test_a_dtype_that_a_problem_lacks_is_left_out(tmp_path, campaigns):
    campaigns[1]["rms_norm"] = UndeclaredDtype("not declared")
    assert [row["problem"] for row in run_suite(request(tmp_path))["problems"]] == ["softmax"]


def test_a_problem_may_have_several_sizes(tmp_path, campaigns):
    sizes = (("softmax", FrozenMap({"T": 3, "H": 4})), ("softmax", FrozenMap({"T": 5, "H": 4})))
    run_suite(request(tmp_path, sizes=sizes, baselines=("eager",)))
    assert campaigns[0] == [
        ("rms_norm-f32", None, "cuda", ("eager",)),
        ("softmax-f32-T3-H4", sizes[0][1], "cuda", ("eager",)),
        ("softmax-f32-T5-H4", sizes[1][1], "cuda", ("eager",)),
    ]
    with pytest.raises(UserError, match="no problem 'soft'"):
        run_suite(request(tmp_path, sizes=(("soft", FrozenMap({"T": 1})),)))


def test_by_default_every_problem_is_run_in_the_dtypes_that_it_declares(tmp_path, campaigns):
    run_suite(SuiteRequest(tmp_path, ("histogram", "nbody_forces", "rms_norm")))
    assert [name for name, *_ in campaigns[0]] == [
        "histogram-u8", "histogram-i32", "nbody_forces-f32", "rms_norm-f32", "rms_norm-bf16",
    ]  # fmt: skip
    for name in suite.names():
        declared = load_problem(suite.find(name)).dtypes
        assert suite.dtypes(name) == tuple(map(str, declared))
