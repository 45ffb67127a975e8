"""Prepacked static inputs: prepared apart, from static inputs alone, and lent read-only."""

from dataclasses import replace

import pytest

from kernelwright.build import CppBuilder
from kernelwright.evaluation import Judge, JudgeSettings
from kernelwright.evaluation.layout import POISON
from kernelwright.evaluation.session import Session
from kernelwright.evaluation.workspace import OFFSET
from kernelwright.machine import probe
from kernelwright.model import Candidate, FrozenMap, Measured, Rejected
from kernelwright.numerics import ScreenRule
from kernelwright.suite import find

SIZES = FrozenMap({"M": 64, "K": 96, "N": 80})
SETTINGS = replace(
    JudgeSettings.quick(), secret_sets=4, screen=ScreenRule(first=6, most=6),
    baselines=("eager", "oneDNN packed"),
)  # fmt: skip
# B transposed is what is prepared: 64 bytes more than it needs are asked for and left alone.
PACKED = """
#include "kernelwright.h"
#include <cstring>
@BEFORE@
extern "C" int64_t kernel_prepared(int64_t M, int64_t K, int64_t N) { return @BYTES@; }
extern "C" int kernel_prepare(const float* B, int64_t M, int64_t K, int64_t N, void* prepared,
                              void* stream) {
    float* transposed = static_cast<float*>(prepared);
    if (stream != nullptr) return 2;
    @PREPARE@
#pragma omp parallel for
    for (int64_t n = 0; n < N; ++n)
        for (int64_t k = 0; k < K; ++k) transposed[n * K + k] = B[k * N + n];
    @PREPARED@
    return 0;
}
extern "C" int kernel(const float* A, const float* B, float* out, int64_t M, int64_t K, int64_t N,
                      const void* prepared, void*, int64_t, void*) {
    const float* transposed = static_cast<const float*>(prepared);
    @CALL@
#pragma omp parallel for
    for (int64_t m = 0; m < M; ++m)
        for (int64_t n = 0; n < N; ++n) {
            double sum = 0;
            for (int64_t k = 0; k < K; ++k) sum += (double)A[m * K + k] * transposed[n * K + k];
            out[m * N + n] = (float)sum;
        }
    return 0;
}
"""


WHERE = """
static bool bench(int64_t M, int64_t K, int64_t N) { return M == 64 && K == 96 && N == 80; }
static int64_t distance(const float* B, int64_t M, int64_t K) {
    return ((int64_t)B % 4096 + M * K * 4 + 4095) / 4096 * 4096 + 8192;
}
"""


def packed(before="", bytes="N * K * 4 + 64", prepare="", prepared="", call=""):
    text = PACKED
    parts = {
        "@BEFORE@": before, "@BYTES@": bytes, "@PREPARE@": prepare, "@PREPARED@": prepared,
        "@CALL@": call,
    }  # fmt: skip
    for mark, part in parts.items():
        text = text.replace(mark, part)
    return text


# name: (source, stage, reason, words of the diagnostic)
WRONG = {
    "past the end": (
        packed(prepared="((char*)prepared)[N * K * 4 + 64 + 9] = 1;"),
        "check", "red_zone", ("past the end of what it prepares",),
    ),
    "before the start": (
        packed(prepared="((char*)prepared)[-1] = 1;"),
        "check", "red_zone", ("before the start of what it prepares",),
    ),
    "written by a call": (
        packed(call="++*(volatile int*)prepared;"),
        "check", "wrote_input", ("read-only arena 'prepared'",),
    ),
    "an error code": (
        packed(prepare="return 9;"), "check", "error_code", ("preparation returned 9",)
    ),
    "a crash": (
        packed(prepare="*(volatile int*)8 = 1;"), "check", "crash", ("while it prepared",)
    ),
    "too much": (
        packed(bytes="((int64_t)1 << 31)"), "check", "out_of_memory", ("bytes to prepare",)
    ),
    "too little": (packed(bytes="-1"), "check", "out_of_memory", ("-1 bytes to prepare",)),
    "not all written": (
        packed(prepared="if (K > 1) std::memset(transposed + K * N - 1, 0xFF, 4);"),
        "check", "not_written", (),
    ),
    # what would be worth keeping is not there: the calls are made by another process
    "kept beside": (
        packed(
            before="static float* kept = nullptr;",
            prepare="kept = new float[K * N]; std::memcpy(kept, B, K * N * 4);",
            call="if (kept == nullptr) return 21;",
        ),
        "check", "error_code", ("returned 21",),
    ),
    # A lies before B, as far away as the call finds; at this time it is poison
    "sees only static inputs": (
        packed(
            before=WHERE,
            prepare="if (bench(M, K, N)) "
            "return *(int64_t*)((char*)B - distance(B, M, K) + 8) == -1 ? 32 : 33;",
        ),
        "screen", "error_code", ("preparation returned 32",),
    ),
    "where the test above looks": (
        packed(
            before=WHERE,
            call="if (bench(M, K, N)) return (const char*)B - (const char*)A == "
            "distance(B, M, K) ? 34 : 35;",
        ),
        "screen", "error_code", ("returned 34",),
    ),
    "prepare alone": (
        packed().replace("kernel_prepared(", "kernel_unheard("),
        "load", "bad_declaration", ("kernel_prepare without kernel_prepared",),
    ),
    "prepared alone": (
        packed().replace("kernel_prepare(", "kernel_unheard("),
        "load", "bad_declaration", ("kernel_prepared without kernel_prepare",),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    return CppBuilder(probe().toolchains, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def judge(builder):
    reference = find("packed_matrix_mul")
    with Judge(reference, "f32", SIZES, probe(), builder, settings=SETTINGS).open() as opened:
        yield opened


def built(builder, text):
    candidate = Candidate("cpp", "kernel", text, FrozenMap({"FLAGS": "-O2 -march=native"}))
    artifact = builder.build(candidate)
    assert not isinstance(artifact, Rejected), artifact.diagnostic
    return candidate, artifact


@pytest.mark.parametrize("name", WRONG)
def test_what_preparing_must_not_do(judge, name):
    source, stage, reason, words = WRONG[name]
    verdict = judge.screen(*built(judge.builder, source)).verdict
    assert isinstance(verdict, Rejected), verdict
    assert (verdict.stage, verdict.reason) == (stage, reason), verdict
    for word in words:
        assert word in verdict.diagnostic


def test_preparation_is_timed_apart_and_so_are_peers(judge):
    slow = packed(
        before=WHERE,
        prepare="if (bench(M, K, N)) for (volatile long i = 0; i < 60000000; i = i + 1);",
    )
    quick = judge.screen(*built(judge.builder, packed())).verdict
    verdict = judge.screen(*built(judge.builder, slow)).verdict
    assert isinstance(quick, Measured)
    assert isinstance(verdict, Measured)
    with_waiting, without = verdict.workloads[0], quick.workloads[0]
    assert without.prepared_bytes == 96 * 80 * 4 + 64
    assert without.prepare_us > 0
    assert with_waiting.prepare_us > 3 * without.prepare_us
    assert with_waiting.prepare_us > 3 * with_waiting.time_us.median


def test_what_peers_pack_is_timed_apart(judge):
    roles = {role.name: role for role in judge.baseline_roles()}
    for role in roles.values():
        assert isinstance(role.timed(0, (0, 0)), float)
        assert role.passes, role.diagnostic
    assert roles["eager"].prepare_us == []
    assert roles["oneDNN packed"].prepare_us[0] > 0


def test_two_kernels_that_prepare_take_turns(judge):
    first, second = built(judge.builder, packed()), built(judge.builder, packed(bytes="N * K * 8"))
    report = judge.screen(*first, champion=second)
    assert isinstance(report.verdict, Measured), report.verdict
    assert report.champion_fault is None
    assert report.ratio is not None


def test_nothing_may_be_prepared_where_no_input_is_static(judge):
    signature = judge.public.signature
    inputs = tuple(replace(tensor, static=False) for tensor in signature.inputs)
    bench = replace(judge._bench(), signature=replace(signature, inputs=inputs))
    found = Session.start(*built(judge.builder, packed()), bench, (judge.checks, judge.pool))
    assert isinstance(found, Rejected)
    assert (found.stage, found.reason) == ("load", "bad_declaration")
    assert "no input of this problem is static" in found.diagnostic


def test_what_is_lent_is_cold_and_out_of_sight_between_calls(judge, monkeypatch):
    evicted, blank = [], []
    throw_out, make_ready = judge.pool.throw_out, Session.make_ready

    def noted(array):
        evicted.append((array.ctypes.data, array.nbytes))
        if throw_out is not None:
            throw_out(array)

    def looking(session, pool, case):
        if judge._prepared.lent is not None:
            blank.append(bool((judge._prepared.lent.view() == POISON).all()))
        return make_ready(session, pool, case)

    monkeypatch.setattr(judge.pool, "throw_out", noted)
    monkeypatch.setattr(Session, "make_ready", looking)
    report = judge.screen(*built(judge.builder, packed()))
    assert isinstance(report.verdict, Measured), report.verdict
    lent = judge._prepared.lent.view(OFFSET, report.verdict.workloads[0].prepared_bytes)
    assert (lent.ctypes.data, lent.nbytes) in evicted
    assert len(blank) > 6
    assert all(blank)
