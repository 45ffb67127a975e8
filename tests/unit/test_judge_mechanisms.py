"""Mechanisms that make cheating useless, each shown to catch what wins without it."""

import os
import signal
import time
from dataclasses import replace
from statistics import median

import numpy as np
import pytest
from execution_support import arguments, source, started
from execution_support import built as built_kernel
from judging import rms_norm

from kernelwright.build import CppBuilder
from kernelwright.evaluation import Judge, JudgeSettings
from kernelwright.evaluation.clocks import agreed_us
from kernelwright.evaluation.layout import POISON
from kernelwright.evaluation.session import Session
from kernelwright.execution import Arena, CallReport, Limits, Worker
from kernelwright.machine import probe
from kernelwright.model import Candidate, Dtype, FrozenMap, Measured, Reason, Rejected
from kernelwright.numerics import POISONS, ScreenRule, band
from kernelwright.suite import find

SIZES = FrozenMap({"T": 512, "H": 1024})
SETTINGS = replace(
    JudgeSettings.quick(), secret_sets=4, baselines=(), limits=Limits(call_s=5.0),
    screen=ScreenRule(first=10, most=10), heldout=0,
)  # fmt: skip
HASH = """
static uint64_t hash_of(const float* x, int64_t n) {
  uint64_t h = 1469598103934665603ull;
  for (int64_t i = 0; i < n; ++i) { uint32_t b; std::memcpy(&b, x + i, 4); h = (h ^ b) * 1099511628211ull; }
  return h;
}
"""  # noqa: E501
# Tells that it would have known the answer by an error code: no clock is needed to see it win.
REMEMBERS = rms_norm(
    before=HASH + "static uint64_t met[4096]; static int count = 0;",
    start="uint64_t h = hash_of(x, T * H); if (bench(T, H)) { "
    "for (int i = 0; i < count; ++i) if (met[i] == h) return 77; met[count++] = h; }",
)
KEEPS_IN_WORKSPACE = rms_norm(
    before='extern "C" int64_t kernel_workspace(int64_t T, int64_t H, double) { return 64; }',
    start='if (std::memcmp(workspace, "I was here", 10) == 0) return 78; '
    'std::memcpy(workspace, "I was here", 10);',
)
LOOKS_AROUND = rms_norm(
    before="static const float* seen[64]; static int count = 0;",
    start="for (int i = 0; i < count; ++i) { uint32_t b; std::memcpy(&b, seen[i] + 5, 4); "
    "if (seen[i] != out && b != 0xFFFFFFFFu) return 79; } "
    "if (bench(T, H) && count < 64) seen[count++] = out;",
)
BEYOND_WORKSPACE = rms_norm(
    before='extern "C" int64_t kernel_workspace(int64_t T, int64_t H, double) { return 64; }',
    start="((char*)workspace)[64 + 7] = 1;",
)


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    machine = probe()
    builder = CppBuilder(machine.toolchains, tmp_path_factory.mktemp("cache"))
    opened = Judge(find("rms_norm"), "f32", SIZES, machine, builder, settings=SETTINGS).open()
    with opened:
        yield opened


def built(judge, text):
    flags = FrozenMap({"FLAGS": "-O2 -march=native"})
    candidate = Candidate("cpp", "kernel", text, flags)
    artifact = judge.builder.build(candidate)
    assert not isinstance(artifact, Rejected), artifact.diagnostic
    return candidate, artifact


def test_no_worker_meets_contents_twice(judge):
    report = judge.screen(*built(judge, REMEMBERS))
    assert isinstance(report.verdict, Measured), report.verdict
    assert report.verdict.workloads[0].rounds > len(judge.pool.cases)


def test_without_fresh_contents_the_one_that_remembers_is_seen_to_win(judge, monkeypatch):
    monkeypatch.setattr(Session, "met", lambda self, pool, case: False)
    verdict = judge.screen(*built(judge, REMEMBERS)).verdict
    assert isinstance(verdict, Rejected)
    assert "returned 77" in verdict.diagnostic


def test_champions_meet_nothing_twice_either(judge):
    pair = built(judge, REMEMBERS)
    for _ in range(2):
        report = judge.screen(*built(judge, rms_norm()), champion=pair)
        assert report.champion_fault is None
        assert report.ratio is not None


def test_workspace_holds_nothing_of_the_last_call(judge):
    report = judge.screen(*built(judge, KEEPS_IN_WORKSPACE))
    assert isinstance(report.verdict, Measured), report.verdict


def test_a_workspace_left_alone_would_hold_the_last_call(judge, monkeypatch):
    workspaces = type(judge._workspaces)
    monkeypatch.setattr(workspaces, "poison", lambda self, nbytes: None)
    monkeypatch.setattr(workspaces, "broken_zone", lambda self, nbytes: None)
    verdict = judge.screen(*built(judge, KEEPS_IN_WORKSPACE)).verdict
    assert "returned 78" in verdict.diagnostic


def marks_left(judge):
    """Marks that a process made all over what it was lent, and that the next one can read."""
    session = judge.session(*built(judge, rms_norm()))
    mark = np.frombuffer(b"I was here, says who ran before", dtype=np.uint8)
    lent = [pool.outputs.view() for pool in session.pools]
    for memory in lent:
        for start in range(512, memory.size - 64, 4096):
            memory[start : start + mark.size] = mark
    try:
        assert session.renew(judge.pool) is None
        return sum(memory.tobytes().count(mark.tobytes()) for memory in lent)
    finally:
        session.close()


def test_nothing_that_was_lent_outlives_a_process(judge):
    assert marks_left(judge) == 0


def test_memory_that_is_not_overwritten_would_outlive_it(judge, monkeypatch):
    monkeypatch.setattr(type(judge.pool), "admit", lambda self, guest: None)
    assert marks_left(judge) > 100


def test_writing_beyond_the_workspace_is_noticed(judge):
    verdict = judge.screen(*built(judge, BEYOND_WORKSPACE)).verdict
    assert isinstance(verdict, Rejected)
    assert verdict.reason is Reason.RED_ZONE
    assert "past the end of its workspace, first 7 bytes after" in verdict.diagnostic


def test_answers_of_former_calls_are_out_of_sight(judge):
    report = judge.screen(*built(judge, LOOKS_AROUND), champion=built(judge, rms_norm()))
    assert isinstance(report.verdict, Measured), report.verdict


def test_inputs_are_blank_until_the_clock_runs(judge):
    pair = built(judge, rms_norm())
    session = judge.session(*pair)
    seen = []
    wake = session.worker._order

    def order(command, timeout_s, where):
        seen.append((judge.pool.holds[:], judge.checks.holds[:]))
        return wake(command, timeout_s, where)

    session.worker._order = order
    with_inputs = judge.pool.usable()[0]
    assert isinstance(session.timed(judge.pool, with_inputs, (0, 0)), float)
    session.close()
    assert seen
    assert all(case == -1 for holds in seen for slots in holds for case in slots)
    judge.pool.blank()
    place = judge.pool.input_slots[0][0]
    assert (place.bytes_in(judge.pool.inputs.view()) == POISON).all()


@pytest.mark.parametrize("dtype", [Dtype.F32, Dtype.I64, Dtype.BOOL])
def test_one_poison_at_least_is_wrong_everywhere(dtype):
    values = (
        np.array([-1, 1, 0][dtype is Dtype.BOOL :])
        if not dtype.is_float
        else np.array([np.nan, 1.0, -2.0])
    )
    expected = band(values, np.full(values.size, 0.1), dtype)
    words = {byte: np.full(dtype.itemsize, byte, np.uint8) for byte in POISONS}
    wrong = [byte for byte, word in words.items() if not expected.accepts_anywhere(word)]
    assert (0xFF in wrong) == (dtype is Dtype.BOOL)  # NaN, or -1, is right somewhere
    assert len(wrong) >= 2


FORGED_CLOCK = """
#include <link.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
static int slow_clock(clockid_t id, timespec* t) {
    int r = (int)syscall(SYS_clock_gettime, id, t);
    int64_t ns = (t->tv_sec * 1000000000LL + t->tv_nsec) / 10;
    t->tv_sec = ns / 1000000000LL, t->tv_nsec = ns % 1000000000LL;
    return r;
}
static int patch(dl_phdr_info* info, size_t, void* done) {
    for (int i = 0; i < info->dlpi_phnum; ++i) {
        if (info->dlpi_phdr[i].p_type != PT_DYNAMIC) continue;
        const char* names = 0; const ElfW(Sym)* symbols = 0;
        const ElfW(Rela)* tables[2] = {0, 0}; size_t sizes[2] = {0, 0};
        for (auto* d = (ElfW(Dyn)*)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr); d->d_tag; ++d) {
            if (d->d_tag == DT_STRTAB) names = (const char*)d->d_un.d_ptr;
            if (d->d_tag == DT_SYMTAB) symbols = (const ElfW(Sym)*)d->d_un.d_ptr;
            if (d->d_tag == DT_JMPREL) tables[0] = (const ElfW(Rela)*)d->d_un.d_ptr;
            if (d->d_tag == DT_PLTRELSZ) sizes[0] = d->d_un.d_val;
            if (d->d_tag == DT_RELA) tables[1] = (const ElfW(Rela)*)d->d_un.d_ptr;
            if (d->d_tag == DT_RELASZ) sizes[1] = d->d_un.d_val;
        }
        for (int k = 0; k < 2; ++k)
            for (size_t j = 0; tables[k] && j < sizes[k] / sizeof(ElfW(Rela)); ++j) {
                const char* name = names + symbols[ELF64_R_SYM(tables[k][j].r_info)].st_name;
                if (strcmp(name, "clock_gettime") != 0) continue;
                char* slot = (char*)info->dlpi_addr + tables[k][j].r_offset;
                char* page = (char*)((uintptr_t)slot & ~4095ul);
                mprotect(page, 8192, PROT_READ | PROT_WRITE);
                *(void**)slot = (void*)slow_clock;
                ++*(int*)done;
            }
    }
    return 1;  // the main program only
}
"""
BUSY_2_MS = """
    static int patched = 0;
    if (!patched) dl_iterate_phdr(patch, &patched);
    timespec a, b;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &a);
    do syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &b);
    while ((b.tv_sec - a.tv_sec) * 1000000000L + b.tv_nsec - a.tv_nsec < 2000000);
    return patched > 0 ? 0 : 9;
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="relocations of x86-64")
def test_a_forged_inner_clock_gains_at_most_one_percent(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    text = "#include <sys/syscall.h>\n#include <unistd.h>\n#include <stdint.h>\n" + FORGED_CLOCK
    forged = built_kernel(cache, text + source(BUSY_2_MS))
    with (
        Arena("x", 1 << 20) as x,
        Arena("y", 1 << 20) as y,
        started(forged, [x, y], cache) as worker,
    ):
        found = [worker.call(arguments()) for _ in range(9)]
        overhead = worker.handshake_overhead_us
    assert all(isinstance(report, CallReport) and report.code == 0 for report in found)
    assert median(report.elapsed_us for report in found[1:]) < 400  # the forgery works …
    assert min(agreed_us(report, overhead) for report in found) > 2000 * 0.98  # … for nothing


def test_what_is_computed_before_the_call_is_charged(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    text = source(
        "static bool once = (std::thread([] { for (;;) asm volatile(\"\"); }).detach(), true); "
        "return !once;", "thread",
    )  # fmt: skip
    with (
        Arena("x", 1 << 20) as x,
        Arena("y", 1 << 20) as y,
        started(built_kernel(cache, text), [x, y], cache) as worker,
    ):
        worker.call(arguments())
        report = worker.call(arguments(), before=lambda: time.sleep(0.2))
    assert report.outside_us > 500
    assert agreed_us(report, 0.0) > 400


def test_the_judge_is_bound_to_one_processor_during_a_call_only(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    before = os.sched_getaffinity(0)
    with Arena("x", 4096) as x, started(built_kernel(cache, source("return 0;")), [x], cache) as w:
        assert w.handshake_overhead_us < 200
    assert os.sched_getaffinity(0) == before


def test_one_kill_is_excused_and_no_more(judge, monkeypatch):
    kills, made, real = [0], [0], Worker.call

    def killed(worker, *arguments, **options):
        made[0] += 1
        if kills[0] and made[0] > 2:
            kills[0] -= 1
            os.killpg(worker._child.process.pid, signal.SIGKILL)
        return real(worker, *arguments, **options)

    monkeypatch.setattr(Worker, "call", killed)
    pair = built(judge, rms_norm())
    kills[0] = 1
    assert isinstance(judge.screen(*pair).verdict, Measured)
    kills[0], made[0] = 2, 0
    verdict = judge.screen(*pair).verdict
    assert isinstance(verdict, Rejected)
    assert verdict.reason is Reason.KILLED
    assert kills == [0]
