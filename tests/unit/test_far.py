"""`propose`: models here, verdicts from elsewhere; nothing is built or timed."""

import json
from dataclasses import replace

import pytest
from campaign_support import problem_file

from kernelwright.campaign import FarRequest, propose, replay
from kernelwright.errors import UserError
from kernelwright.model import Dtype, Estimate, FrozenMap, Measured, Peer, WorkloadResult
from kernelwright.model.workload import Workload
from kernelwright.problems import parse_reference
from kernelwright.store import Archive
from kernelwright.testing import samples
from kernelwright.testing.models import Answer, ScriptedServer

KERNEL = """
#include "kernelwright.h"
// @tune CHUNK = 8, 1
extern "C" int kernel(const float* x, const float* w, float* out, int64_t T, int64_t H,
                      const void* prepared, void* workspace, int64_t workspace_bytes,
                      void* stream) {
#pragma omp parallel for schedule(static, CHUNK)
    for (int64_t t = 0; t < T; ++t) out[t * H] = x[t * H]BODY;
    return 0;
}
"""


def script(system, user):
    def reply(record, source=""):
        fenced = f"```cpp\n{source}```\n" if source else ""
        return Answer(f"```json\n{json.dumps(record)}\n```\n{fenced}")

    design = {"name": "first", "idea": "rows", "expected_speedup": 2.0}
    if "You are the planner" in system:
        plan = {"limiter": "memory", "designs": [design], "next": "first", "reason": "simple"}
        return reply(plan)
    if "You are the librarian" in system:
        return reply({"chosen": [], "reason": "nothing fits"})
    if "You are the critic" in system:
        return reply({"explanation": "rows", "limiter": "memory", "promising": True,
                      "next_move": "twice"})  # fmt: skip
    body = "* w[0] + w[1]" if "What is asked" in user and "next move" in user else "* w[0]"
    return reply(design, KERNEL.replace("BODY", body))


def judged(run, bundle, us):
    """Verdicts as `bundle --import` brings them, without the machine that makes them."""
    with Archive.open(run / bundle) as archive:
        archive.add_machine(replace(samples.machine(), name="far-away-2c"))
        sizes = FrozenMap(archive.campaign["sizes"])
        workload = Workload("scaled_gate", Dtype.F32, sizes, FrozenMap(), "normal", "bench")
        eager = Peer("eager", Estimate(100, 99, 101), Estimate(100 / us, 9, 11), True, 0.1)
        time = Estimate(us, us - 1, us + 1)
        for candidate in archive.candidates().values():
            result = WorkloadResult(workload, time, 9, peers=(eager,))
            unseen = replace(workload, sizes=FrozenMap({"T": 1237, "H": 3}), tier="heldout")
            secret = replace(result, workload=unseen)
            archive.add_verdict(candidate, Measured((result, secret), True))
        archive.add_event("imported", digest=bundle, written="today")


def test_models_here_and_verdicts_from_elsewhere(tmp_path, monkeypatch):
    run = tmp_path / "run"
    with ScriptedServer.serving(script) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.address)
        request = FarRequest(
            run, tmp_path / "b1", parse_reference(str(problem_file(tmp_path))), target="cpu",
            models=("local:tested",),
        )  # fmt: skip
        first = propose(request)
        assert first["step"] == 1
        assert first["best"] is None
        assert [row["family"] for row in first["candidates"]] == ["refine:first"]
        assert (tmp_path / "b1" / "evaluate.py").is_file()
        again = FarRequest(run, tmp_path / "b2")
        with pytest.raises(UserError, match="are missing: run its"):
            propose(again)
        judged(run, "bundle-1", 20.0)
        asked = len(server.requests)
        second = propose(again)
        texts = [r["messages"][1]["content"] for r in server.requests[asked:]]
    assert second["step"] == 2
    assert second["machine"] == "far-away-2c"
    assert second["best"]["speedup"] == {"eager": 5.0}
    packed = {row["candidate"] for row in second["candidates"]}
    assert len(packed) == 3  # the new kernel twice, and the other variant of the first
    assert first["candidates"][0]["candidate"] not in packed
    assert any("20 us" in text and "eager: 100 us" in text for text in texts)
    assert not any("1237" in text for text in texts)
    assert replay(run)["identical"] is True


def test_a_step_needs_a_problem_or_a_run(tmp_path):
    with pytest.raises(UserError, match="say what is to be computed"):
        propose(FarRequest(tmp_path / "run", tmp_path / "b1"))
