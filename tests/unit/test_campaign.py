"""Campaigns on a real problem with real compilers: end to end, interrupted, own kernels.

That a killed one goes on where it was is shown in `tests/robustness/test_kills.py`.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from campaign_support import problem_file, quick, small_request, without_operator

from kernelwright.campaign import Budget, optimize
from kernelwright.errors import ArchiveError, UserError
from kernelwright.model import Dtype
from kernelwright.propose import own_kernel_family
from kernelwright.store import Archive

OWN = """
#include "kernelwright.h"
#include <cmath>
// @tune CHUNK = 1, 4
extern "C" int mine(const float* x, const float* w, float* out, int64_t T, int64_t H,
                    const void* prepared, void* workspace, int64_t workspace_bytes, void* stream) {
#pragma omp parallel for schedule(static, CHUNK)
    for (int64_t t = 0; t < T; ++t) {
        double sum = 0;
        for (int again = 0; again < 64; ++again)  // so slow that it never is the best
            for (int64_t h = 0; h < H; ++h) sum += double(x[t * H + h]) * x[t * H + h];
        const float mean = float(sum / (64 * H));
        for (int64_t h = 0; h < H; ++h)
            out[t * H + h] = x[t * H + h] / (1 + std::exp(-w[h])) * mean;
    }
    return 0;
}
"""


OWN_IN_PYTHON = """
import torch
# @tune WIDE = 1, 0


def mine(x, w, out, *, T, H, WIDE):
    wide = x.double() if WIDE else x.float()
    out.copy_(wide * torch.sigmoid(w) * wide.square().mean(-1, keepdim=True))
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("campaign")
    kernel = folder / "mine.cpp"
    kernel.write_text(OWN)
    request = small_request(problem_file(folder), folder / "run")
    request = replace(request, own=(own_kernel_family(kernel),))
    return optimize(request, settings=quick()), request


def test_a_campaign_ends_with_a_verified_winner_and_its_report(finished):
    document, request = finished
    assert document["best"] is not None, document
    bench = document["workloads"][0]
    assert bench["tier"] == "bench"
    assert bench["baselines"]["eager"] > 0
    assert bench["speedup"]["eager"] > 1
    assert bench["bound_us"] > 0
    assert bench["roof"]["rate"] > 0
    assert document["verified"]["workloads"] > 5
    assert Path(document["best"]["path"]).is_file()
    page = Path(document["report"]).read_text()
    assert "<html" in page[:200].lower()
    assert document["profile"]["limit"] == document["profile"]["findings"][0]["limit"]
    assert document["profile"]["findings"][0]["moves"]
    assert "What limits it" in page
    assert json.loads((request.folder / "result.json").read_text())["best"] == document["best"]


def test_the_archive_holds_raw_samples_and_the_machine(finished):
    _, request = finished
    with Archive.open(request.folder, read_only=True) as archive:
        accepted = archive.verdicts()[-1].verdict
        machine = archive.machine()
    assert accepted.accepted
    assert len(accepted.workloads[0].samples_us["eager"]) == accepted.workloads[0].rounds
    assert machine is not None
    assert machine.toolchains


def test_going_on_counts_nothing_twice(finished, monkeypatch):
    without_operator(monkeypatch)
    document, request = finished
    again = optimize(replace(request, budget=Budget(6, 3.0)), settings=quick())
    assert again["evaluations"] == 6
    with Archive.open(request.folder, read_only=True) as archive:
        screened = [v for v in archive.verdicts() if v.value is not None]
    assert len({v.candidate for v in screened}) == len(screened)
    assert len(screened) >= document["evaluations"]


def test_a_run_folder_of_another_request_is_refused(finished, tmp_path):
    _, request = finished
    other = small_request(problem_file(tmp_path, "other"), request.folder)
    with pytest.raises(ArchiveError, match="choose another --run"):
        optimize(other, settings=quick())
    with pytest.raises(ArchiveError, match="choose another --run"):
        optimize(replace(request, dtype=Dtype.BF16), settings=quick())


def _verdicts(folder):
    if not Archive.exists(folder):
        return []
    with Archive.open(folder, read_only=True) as archive:
        return [(v.candidate, v.value) for v in archive.verdicts()]


def test_an_own_kernel_is_among_the_first_candidates_and_a_baseline(finished):
    document, request = finished
    assert "own" in document["workloads"][0]["baselines"], document["workloads"][0]
    (family,) = request.own
    with Archive.open(request.folder, read_only=True) as archive:
        assert family.identity in {f.identity for f in archive.families()}
        judged = {c.family for c in archive.candidates().values()}
    assert "own:mine.cpp" in judged


def test_only_the_own_kernel_can_be_tuned(tmp_path, monkeypatch):
    without_operator(monkeypatch)
    kernel = tmp_path / "mine.cpp"
    kernel.write_text(OWN)
    request = small_request(problem_file(tmp_path), tmp_path / "run")
    own = replace(request, own=(own_kernel_family(kernel),), proposers=())
    document = optimize(own, settings=quick())
    assert document["evaluations"] == 2  # both values of CHUNK
    assert document["best"]["family"] == "own:mine.cpp"


UNMATCHED = '''
import torch
from jaxtyping import Float
from torch import Tensor

from kernelwright.problems import problem


@problem(sizes={"cpu": [dict(N=5000)]}, ranges=dict(N=(1, 9000)))
def spectrum(x: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
    """Magnitudes of the discrete Fourier transform."""
    return torch.fft.fft(x).abs()
'''


def test_what_nothing_matches_gets_the_best_baseline_as_advice(tmp_path):
    path = tmp_path / "spectrum.py"
    path.write_text(UNMATCHED)
    request = replace(small_request(path, tmp_path / "run"), sizes=None)
    document = optimize(request, settings=quick())
    assert document["best"] is None
    assert document["best_baseline"] == "eager"
    assert "fft" in document["advice"]


def test_an_unknown_proposer_or_baseline_is_named(tmp_path):
    request = small_request(problem_file(tmp_path), tmp_path / "run")
    with pytest.raises(UserError, match="no proposer 'magic'"):
        optimize(replace(request, proposers=("magic",)), settings=quick())
    other = replace(request, folder=tmp_path / "other", baselines=("magic",))
    with pytest.raises(UserError, match="no baseline 'magic'"):
        optimize(other, settings=quick())


def _processes_of(session):
    """Processes of a session that are alive, by number."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def test_ctrl_c_says_how_to_go_on_and_leaves_no_process(tmp_path):
    problem, run = problem_file(tmp_path), tmp_path / "run"
    command = [sys.executable, "-m", "kernelwright", "optimize", str(problem), "--run", str(run)]
    process = subprocess.Popen(
        [*command, "--size", "T=256,H=512", "--baselines", "eager"],
        start_new_session=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        end = time.monotonic() + 120
        while len(_verdicts(run)) < 2 and time.monotonic() < end and process.poll() is None:
            time.sleep(0.05)
        before = _verdicts(run)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, told = process.communicate(timeout=30)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, told
    assert f"--run {run}" in told
    assert "Traceback" not in told
    assert _verdicts(run)[: len(before)] == before
    assert _processes_of(process.pid) == []


def test_an_own_kernel_in_python_can_win_and_is_written_with_its_tunables_bound(tmp_path):
    own = tmp_path / "mine.py"
    own.write_text(OWN_IN_PYTHON)
    request = small_request(problem_file(tmp_path), tmp_path / "run")
    request = replace(request, proposers=(), own=(own_kernel_family(own),))
    document = optimize(request, settings=quick())
    best = document["best"]
    assert (best["language"], document["operator"]) == ("python", None)
    assert "the kernel is python" in document["operator_absent"]
    assert document["evaluations"] == 2
    again = own_kernel_family(Path(best["path"]))
    assert again.entry == "mine"
    space: dict = {}
    exec(again.source, space)
    assert space["mine"].keywords == best["tunables"]
    assert "best_kernel.py" in Path(document["report"]).read_text()
