"""The judge with a real compiler, a real oracle and real workers."""

import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest
from judging import ONE_IN_TEN, SLOW, WORKSPACE, WRONG, rms_norm

from kernelwright.build import CppBuilder
from kernelwright.errors import ProblemError
from kernelwright.evaluation import Judge, JudgeSettings
from kernelwright.evaluation.preparation import require_known
from kernelwright.evaluation.repeat import is_deterministic
from kernelwright.evaluation.session import Session
from kernelwright.evaluation.wire import workload_to_json
from kernelwright.execution import Limits
from kernelwright.machine import probe
from kernelwright.model import Candidate, FrozenMap, Measured, Rejected
from kernelwright.numerics import AcceptRule, ScreenRule
from kernelwright.suite import find

SIZES = FrozenMap({"T": 512, "H": 1024})
SETTINGS = replace(
    JudgeSettings.quick(),
    baselines=("eager", "F.rms_norm"),
    limits=Limits(call_s=2.0),
    flush_factor=0.02,
)


@pytest.fixture(scope="module")
def machine():
    return probe()


@pytest.fixture(scope="module")
def judge(machine, tmp_path_factory):
    # nobody inspects what is built: the judge has to find every fault alone
    builder = CppBuilder(machine.toolchains, tmp_path_factory.mktemp("cache"), inspects=False)
    with Judge(
        find("rms_norm"), "f32", SIZES, machine, builder, seed=3, settings=SETTINGS
    ).open() as opened:
        yield opened


def built(judge, source):
    flags = FrozenMap({"FLAGS": "-O2 -march=native"})
    candidate = Candidate("cpp", "kernel", source, flags)
    artifact = judge.builder.build(candidate)
    assert not isinstance(artifact, Rejected), artifact.diagnostic
    return candidate, artifact


def test_a_right_kernel_is_measured(judge):
    report = judge.screen(*built(judge, rms_norm()))
    assert isinstance(report.verdict, Measured), report.verdict
    (result,) = report.verdict.workloads
    assert result.workload.sizes == SIZES
    assert 0 < result.time_us.low <= result.time_us.median <= result.time_us.high
    assert result.bound.bytes_moved == 4 * (2 * 512 * 1024 + 1024)
    assert 0 < result.error <= 1
    assert not report.verdict.accepted


@pytest.mark.parametrize("name", list(WRONG))
def test_wrong_kernels_are_rejected_with_stage_reason_and_words(judge, name):
    source, stage, reason, words = WRONG[name]
    verdict = judge.screen(*built(judge, source)).verdict
    assert isinstance(verdict, Rejected)
    assert (str(verdict.stage), str(verdict.reason)) == (stage, reason), verdict.diagnostic
    for word in words:
        assert word in verdict.diagnostic


def test_acceptance_measures_with_intervals_bound_and_baselines(judge):
    verdict = judge.accept(*built(judge, rms_norm()))
    assert isinstance(verdict, Measured), verdict
    assert verdict.accepted
    bench, *heldout = verdict.workloads
    assert bench.workload.tier == "bench"
    assert bench.rounds >= SETTINGS.accept.least
    assert {peer.name for peer in bench.peers} == {"eager", "F.rms_norm"}
    for peer in bench.peers:
        assert peer.passes_check
        assert 0 < peer.error <= 1
        assert 0 < peer.speedup.low <= peer.speedup.median <= peer.speedup.high
        assert len(bench.samples_us[peer.name]) == bench.rounds
    assert len(bench.samples_us["candidate"]) == len(bench.samples_us["roof"]) == bench.rounds
    assert set(bench.bound.roof.split(" and ")) <= {"read", "copy", "triad"}
    assert bench.fraction_of_bound > 0
    assert all(result.workload.tier == "heldout" for result in heldout)
    assert judge.verified()["heldout"] == SETTINGS.heldout
    assert judge.verified()["workloads"] >= 10
    claim = verdict.claim
    assert claim.baseline == min(bench.peers, key=lambda peer: peer.time_us.median).name
    assert claim.outcome in ("faster", "slower", "undecided")
    assert (claim.confirmed is None) == (claim.confirming_rounds == 0)
    assert verdict.deterministic


def test_wrong_in_one_call_of_ten_is_rejected_at_acceptance(judge):
    verdict = judge.accept(*built(judge, ONE_IN_TEN))
    assert isinstance(verdict, Rejected)
    assert (str(verdict.stage), str(verdict.reason)) == ("accept", "wrong_result")
    assert "only in row 3" in verdict.diagnostic


def test_wrong_only_at_held_out_sizes_is_rejected_at_acceptance(judge):
    known = {dict(w.sizes)["T"] for w in judge.checks.workloads} | {512}
    condition = " && ".join(f"T != {size}" for size in sorted(known))
    verdict = judge.accept(*built(judge, rms_norm(row=f"if ({condition}) scale *= 1.01f;")))
    assert isinstance(verdict, Rejected)
    assert (str(verdict.stage), str(verdict.reason)) == ("accept", "wrong_result")
    assert "held-out" in verdict.diagnostic
    told, (*_, kept) = verdict.diagnostic, judge.heldout_faults
    assert not any(character.isdigit() for character in told)  # no size, index or value
    assert "expected" in kept
    assert "T=" in kept


def heldout_at(judge, monkeypatch, **sizes):
    """Make the judge draw these sizes."""
    workload = replace(judge.bench, sizes=FrozenMap(sizes), tier="heldout")
    found = [workload_to_json(workload)]
    monkeypatch.setattr(judge.oracle, "heldout", lambda *asked: found)


def test_a_collapse_at_held_out_sizes_is_flagged(judge, monkeypatch):
    heldout_at(judge, monkeypatch, T=701, H=1303)
    waste = "volatile float w = 0; for (int64_t h = 0; h < 300 * H; ++h) w = w + row[h % H];"
    verdict = judge.accept(*built(judge, rms_norm(row=f"if (!bench(T, H)) {{ {waste} }}")))
    assert isinstance(verdict, Measured), verdict
    _, heldout = verdict.workloads
    assert heldout.collapsed, (verdict.workloads[0].peers, heldout)
    assert heldout.peers[0].speedup.high < 1
    (warning,) = verdict.warnings
    assert "Collapses at held-out sizes" in warning
    assert "T=701,H=1303" in warning


def test_an_even_kernel_does_not_collapse(judge, monkeypatch):
    heldout_at(judge, monkeypatch, T=701, H=1303)
    verdict = judge.accept(*built(judge, rms_norm()))
    assert isinstance(verdict, Measured), verdict
    assert not verdict.workloads[1].collapsed
    assert verdict.warnings == ()


def test_bits_that_differ_between_processes_are_told(judge):
    tremor = "if (bench(T, H) && seed % 2) scale = std::nextafterf(scale, 2 * scale);"
    before = "#include <ctime>\nstatic long seed = [] { timespec t; clock_gettime(CLOCK_MONOTONIC,"
    before += " &t); return t.tv_nsec / 64; }();"
    moody = judge.session(*built(judge, rms_norm(before=before, row=tremor)))
    steady = judge.session(*built(judge, rms_norm(before="static long seed = 0;", row=tremor)))
    try:
        assert is_deterministic(judge, steady) is True
        assert False in [is_deterministic(judge, moody) for _ in range(12)]
    finally:
        moody.close()
        steady.close()


def test_a_kernel_that_goes_wrong_after_a_few_calls_is_rejected(judge):
    late = rms_norm(row="if (calls > 4 && t == 3 && bench(T, H)) scale *= 1.01f;")
    verdict = judge.accept(*built(judge, late))
    assert isinstance(verdict, Rejected)
    assert (str(verdict.stage), str(verdict.reason)) == ("accept", "wrong_result")


def test_a_slower_own_kernel_is_proved_slower_and_found_so_again(judge):
    short = replace(SETTINGS, heldout=0)
    judge.settings, before, ready = short, judge.settings, judge._ready
    judge._ready = []
    try:
        slow, fast = built(judge, SLOW.replace("40 * H", "100 * H")), built(judge, rms_norm())
        verdict = judge.accept(*fast, own=slow)
        other = judge.accept(*slow, own=fast)
    finally:
        judge.settings, judge._ready = before, ready
    assert isinstance(verdict, Measured), verdict
    claim = verdict.claim
    assert (claim.baseline, claim.outcome) == ("own", "faster"), verdict
    assert claim.accepted.low > 1.2
    assert claim.confirmed.low > 1.2
    assert claim.confirming_rounds >= 10
    assert isinstance(other, Measured), other
    assert other.claim.outcome == "slower"
    assert other.claim.confirmed is None


def test_baselines_do_not_fault_pages_once_warm(judge):
    times = judge.time_baselines(rounds=6)
    assert set(times) == {"eager", "F.rms_norm"}
    for report in judge.baseline_reports:
        assert report.passes_check
        assert report.page_faults < 10  # one output alone is 512 pages


def test_the_same_kernel_against_itself_is_level_and_new_in_every_round(judge, monkeypatch):
    counts = Counter()

    def counted(method):
        def call(session, *arguments):
            counts[method.__name__, id(session)] += 1
            return method(session, *arguments)

        return call

    for method in (Session.renew, Session.timed):
        monkeypatch.setattr(Session, method.__name__, counted(method))
    pair = built(judge, rms_norm())
    report = judge.duel(*pair, rival=pair)
    assert isinstance(report.verdict, Measured)
    assert report.ratio.low <= 1.05
    assert report.ratio.high >= 0.95
    rounds = report.verdict.workloads[0].rounds
    calls = rounds * min(judge.settings.duel_calls, len(judge.pool.usable()))
    assert sorted(counts.values()) == [rounds, rounds, calls, calls]


def test_a_slow_kernel_is_hopeless_and_screening_stops_early(judge):
    judge.settings, before = replace(SETTINGS, screen=ScreenRule(first=6, most=40)), judge.settings
    try:
        report = judge.screen(*built(judge, SLOW), champion=built(judge, rms_norm()))
    finally:
        judge.settings = before
    assert isinstance(report.verdict, Measured)
    assert report.ratio.median > 1.5
    assert report.hopeless
    assert report.verdict.workloads[0].rounds < 40


def test_a_failing_champion_does_not_cost_the_candidate(judge):
    bad = rms_norm(start="if (calls > 3) *(volatile int*)8 = 1;")
    report = judge.screen(*built(judge, rms_norm()), champion=built(judge, bad))
    assert isinstance(report.verdict, Measured)
    assert report.ratio is None
    assert "SIGSEGV" in report.champion_fault


def test_workspace_is_lent(judge):
    report = judge.screen(*built(judge, WORKSPACE))
    assert isinstance(report.verdict, Measured), report.verdict


def test_own_kernel_is_a_baseline(judge):
    short = replace(SETTINGS, accept=AcceptRule(least=6, most=6), heldout=0, baselines=())
    judge.settings, before, ready = short, judge.settings, judge._ready
    judge._ready = []
    try:
        verdict = judge.accept(*built(judge, rms_norm()), own=built(judge, SLOW))
    finally:
        judge.settings, judge._ready = before, ready
    assert isinstance(verdict, Measured), verdict
    (peer,) = verdict.workloads[0].peers
    assert peer.name == "own"
    assert peer.speedup.median > 1.5


def test_an_unknown_baseline_is_the_users_error(judge):
    require_known(["eager", "F.rms_norm"], judge.baseline_names)
    with pytest.raises(ProblemError, match="no baseline 'magic', only eager, compile"):
        require_known(["magic"], judge.baseline_names)


def test_the_judge_does_not_import_torch():
    code = "import sys, kernelwright.evaluation; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
