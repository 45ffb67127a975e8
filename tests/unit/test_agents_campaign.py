"""A campaign with a model behind real HTTP: broken, repaired, criticised, won, replayed."""

import json
import sqlite3
from dataclasses import replace

import pytest
from campaign_support import problem_file, quick, small_request

from kernelwright.agents import Desk
from kernelwright.campaign import optimize, replay, submit
from kernelwright.campaign.exchanges import Moment, adopted, known
from kernelwright.campaign.lookup import explained
from kernelwright.campaign.models import open_rounds
from kernelwright.errors import ModelError, UserError
from kernelwright.llm import Limits, RecordedModel
from kernelwright.propose import own_kernel_family
from kernelwright.store import Archive
from kernelwright.testing import samples
from kernelwright.testing.agents import view
from kernelwright.testing.models import Answer, ScriptedServer

SECRET = "sk-campaign-secret-012345"
GOOD = """
#include "kernelwright.h"
#include <cmath>
extern "C" int kernel(const float* x, const float* w, float* out, int64_t T, int64_t H,
                      const void* prepared, void* workspace, int64_t workspace_bytes,
                      void* stream) {
#pragma omp parallel for schedule(static, 8)
    for (int64_t t = 0; t < T; ++t) {
        const float* row = x + t * H;
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t h = 0; h < H; ++h) sum += row[h] * row[h];
        const float mean = sum / float(H);
        for (int64_t h = 0; h < H; ++h)
            out[t * H + h] = row[h] / (1 + std::exp(-w[h])) * mean;
    }
    return 0;
}
"""
BROKEN = GOOD.replace("const float mean", "const flaot mean")
BETTER = (
    GOOD.replace("/ (1 + std::exp(-w[h])) * mean", "* (mean / (1 + std::exp(-w[h])))")
    .replace("static, 8", "static, CHUNK")
    .replace("#include <cmath>", "#include <cmath>\n// @tune CHUNK = 8, 1")
)


def reply(record, source=None):
    text = f"```json\n{json.dumps(record)}\n```\n"
    return text + (f"```cpp\n{source}```\n" if source else "")


def design(name):
    return {"name": name, "idea": f"{name} rows", "expected_speedup": 1.5}


class Script:
    """Answers by what the system prompt says of the role, with every kind of trouble once."""

    def __init__(self):
        self.asked = []
        self.coder = [
            Answer(status=429, retry_after="0"),
            Answer("Sure, here is a kernel."),  # malformed: asked once more
            Answer(reply(design("broken"), BROKEN)),
            Answer(reply(design("copy"), BROKEN + "// again")),  # a near-copy: asked once more
            Answer("No."),
            Answer(reply(design("better"), BETTER)),
        ]

    def __call__(self, system, user):
        role = next(r for r in ("planner", "coder", "repairer", "critic", "librarian")
                    if f"You are the {r}" in system)  # fmt: skip
        self.asked.append((role, user))
        if role == "planner":
            plan = {"limiter": "memory", "designs": [design("first")], "next": "first"}
            return Answer(reply(plan | {"reason": "it is simple"}))
        if role == "librarian":
            return Answer(reply({"chosen": [], "reason": "nothing fits"}))
        if role == "repairer":
            return Answer(reply({"name": "mended", "idea": "a typo"}, GOOD))
        if role == "critic":
            return Answer(reply({"explanation": "the exponential", "limiter": "compute",
                                 "promising": True, "next_move": "divide once"}))  # fmt: skip
        return self.coder.pop(0) if self.coder else Answer("I have no more.")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder, script = tmp_path_factory.mktemp("agents"), Script()
    with ScriptedServer.serving(script) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_BASE_URL", server.address)
        patch.setenv("OPENAI_API_KEY", SECRET)
        request = replace(
            small_request(problem_file(folder), folder / "run", evaluations=4),
            proposers=("refine",), models=("local:tested",), limits=Limits(tokens=150_000),
        )  # fmt: skip
        yield optimize(request, settings=quick()), request, script


def test_a_models_kernel_wins_after_a_repair(finished):
    document, _, script = finished
    assert document["best"]["family"] in ("refine:mended", "refine:better"), document
    roles = [role for role, _ in script.asked]
    assert roles[:2] == ["librarian", "planner"]
    assert {"coder", "repairer", "critic"} <= set(roles)
    assert document["rejected"] == {"build": 1}


def test_the_repairer_sees_the_compilers_words(finished):
    _, _, script = finished
    (shown,) = [user for role, user in script.asked if role == "repairer"]
    assert "flaot" in shown.split("What the judge says")[1]


def test_coder_and_critic_see_what_limits_a_kernel(finished):
    _, request, script = finished
    with Archive.open(request.folder, read_only=True) as archive:
        assert archive.events("profile")
    shown = [user for role, user in script.asked if role == "critic"]
    assert shown
    for user in shown:
        limits = user.split("What limits it")[1]
        assert "Of the memory's rate" in limits
        assert "instructions as they stand" in limits
    assert any("What limits it" in user for role, user in script.asked if role == "coder")


def test_what_was_found_later_is_not_known_earlier(finished):
    _, request, _ = finished
    with Archive.open(request.folder, read_only=True) as archive:
        (first, *_), now = archive.events("round"), known(archive)
        before = known(archive, Moment(first.document["evidence"], first.id))
    assert now.profiles
    assert not before.profiles
    assert not before.values


def test_the_ledger_counts_what_was_spent(finished):
    document, _, script = finished
    models = document["models"]
    assert models["models"] == ["local:tested"]
    assert models["spent"]["requests"] == len(script.asked) - 1  # one was a rate limit
    assert models["spent"]["malformed"] >= 2
    assert models["families"] >= 2
    assert models["per_candidate"]["tokens"] > 100
    assert models["loops"]["refine"]["rounds"] >= 3


def test_the_campaign_replays_from_its_archive_alone(finished):
    document, request, _ = finished
    found = replay(request.folder)
    assert found["differences"] == []
    assert found["identical"] is True
    assert found["requests"] == document["models"]["spent"]["requests"]
    assert found["families"] == document["models"]["families"]


def test_a_replay_notices_other_evidence(finished, tmp_path):
    import shutil

    _, request, _ = finished
    shutil.copytree(request.folder, tmp_path / "run")
    with sqlite3.connect(tmp_path / "run" / "archive.db") as database:
        database.execute("DROP TRIGGER events_no_update")
        database.execute("UPDATE events SET document = replace(document, 'Each row times', "
                         "'Every row times') WHERE kind = 'brief'")  # fmt: skip
    found = replay(tmp_path / "run")
    assert found["identical"] is False
    assert found["differences"]


def test_no_key_is_kept(finished):
    _, request, _ = finished
    for path in request.folder.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path
    with Archive.open(request.folder, read_only=True) as archive:
        texts = [
            archive.get_text(e.document["data"]["request"]) for e in archive.events("exchange")
        ]
    assert not any(SECRET in text for text in texts)


def test_a_resumed_campaign_is_where_it_was_and_asks_nothing_again(finished):
    document, request, _ = finished
    with Archive.open(request.folder, read_only=True) as archive:
        rounds = open_rounds(
            archive, view(), request.proposers,
            lambda journal: Desk([RecordedModel("local:tested", {})], journal=journal), 0, None,
        )  # fmt: skip
        known = [family.identity for family in adopted(archive)]
    (loop,) = rounds.loops
    assert loop.round == document["models"]["loops"]["refine"]["rounds"]
    assert list(loop.ideas) == known
    assert len(known) == document["models"]["families"]
    assert not loop.finished


def test_a_submitted_kernel_is_judged_kept_and_taken_up(finished, tmp_path):
    _, request, _ = finished
    path = tmp_path / "mine.cpp"
    path.write_text(GOOD.replace("static, 8", "dynamic, 16"))
    document = submit(request.folder, own_kernel_family(path), settings=quick())
    assert document["verdict"] == "measured", document
    assert document["speedup_over_leader"] > 0
    assert [w["tier"] for w in document["workloads"]] == ["bench"]
    told = explained(request.folder, document["candidate"][:12])
    assert "dynamic, 16" in told["source"]
    with Archive.open(request.folder, read_only=True) as archive:
        assert adopted(archive)[-1].source == path.read_text()
    assert replay(request.folder)["identical"] is True
    with pytest.raises(UserError, match="does not run on cpu"):
        submit(request.folder, replace(samples.family(), language="cuda"))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"proposers": ("refine",)}, UserError, "needs a language model"),
        ({"models": ("relay:x",)}, UserError, "nothing asks it"),
        ({"proposers": ("tree",), "models": ("local:x",)}, ModelError, "set OPENAI_BASE_URL"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_spent(
    changes, error, words, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    request = replace(small_request(problem_file(tmp_path), tmp_path / "run"), **changes)
    with pytest.raises(error, match=words):
        optimize(request, settings=quick())
    assert not (tmp_path / "run").exists()
