"""Every way in which a candidate fails costs its own verdict, says why, and leaves nothing."""

import os
import signal
import time
from pathlib import Path

import pytest
from execution_support import (
    SHORT,
    THREADS,
    arguments,
    built,
    descendants,
    open_descriptors,
    run_once,
    source,
    started,
    toolchains,
)

from kernelwright.build import Artifact
from kernelwright.errors import HarnessError
from kernelwright.execution import Arena, Call, CallReport, Failure, Limits, Pointer, Worker
from kernelwright.execution.diagnose import oom_kills
from kernelwright.model import Reason

COMPILERS = [toolchain.name for toolchain in toolchains()]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def nothing_is_left(cache, tmp_path, monkeypatch):
    """No process, descriptor or temporary file may outlive a test."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = descendants(), open_descriptors()
    yield
    assert descendants() <= before[0]
    assert open_descriptors() <= before[1]
    assert list(tmp_path.iterdir()) == []
    assert not (cache / "scratch").exists() or list((cache / "scratch").iterdir()) == []


def failure(cache, body, includes="", limits=SHORT, **tunables) -> Failure:
    result = run_once(cache, source(body, includes), limits, **tunables)
    assert isinstance(result, Failure), result
    return result


@pytest.mark.parametrize("compiler", COMPILERS)
def test_a_correct_kernel_comes_back(cache, compiler):
    report = run_once(cache, source("y[0] = x[0]; return 0;"), CXX=compiler)
    assert isinstance(report, CallReport)
    assert (report.code, report.team, report.stray_threads) == (0, THREADS, 0)
    assert not report.mxcsr_changed


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("*(volatile int*)nullptr = 1; return 0;", ("SIGSEGV", "writing", "null pointer")),
        ("return *(volatile int*)24;", ("SIGSEGV", "reading", "0x18")),
        ("y[(1 << 18) + 16] = 1; return 0;", ("SIGSEGV", "64 bytes past the end of arena 'y'")),
        ("return (int)x[-(1 << 9)];", ("reading", "2048 bytes before arena 'x'")),
        ("((float*)x)[5] = 1; return 0;", ("writing", "byte 20 of the read-only arena 'x'")),
        ("volatile int zero = 0; return 5 / zero;", ("SIGFPE",)),
        ("__builtin_trap();", ("SIGILL",)),
    ],
)
def test_a_crash_names_signal_and_place(cache, body, words):
    result = failure(cache, body)
    assert result.reason is Reason.CRASH
    assert all(word in result.detail for word in words), result.detail


def test_a_crash_in_a_thread_of_the_team_is_named(cache):
    result = failure(cache, "\n#pragma omp parallel\n{ *(volatile int*)16 = 1; }\nreturn 0;")
    assert result.reason is Reason.CRASH
    assert "SIGSEGV" in result.detail


def test_an_exhausted_stack_is_named(cache):
    body = "volatile char a[4096]; a[0] = n; return kernel(x, y, n + 1, 0, 0, 0, 0) + a[0];"
    result = failure(cache, body)
    assert result.reason is Reason.CRASH
    assert "the stack is exhausted" in result.detail


def test_abort_shows_standard_error(cache):
    result = failure(cache, 'throw std::runtime_error("out of luck");', "stdexcept")
    assert result.reason is Reason.CRASH
    assert "SIGABRT" in result.detail
    assert "out of luck" in result.detail


def test_an_endless_loop_is_stopped(cache):
    result = failure(cache, "for (volatile int i = 0;;) {}", limits=Limits(call_s=0.3))
    assert result.reason is Reason.HANG
    assert "0.3 s" in result.detail


def test_an_endless_constructor_is_stopped(cache):
    text = "__attribute__((constructor)) static void f() { for (volatile int i = 0;;) {} }\n"
    result = run_once(cache, text + source("return 0;"), Limits(start_s=1.0))
    assert isinstance(result, Failure)
    assert result.reason is Reason.HANG
    assert "while it was loaded" in result.detail


def test_processes_cannot_be_started(cache):
    report = run_once(cache, source("return fork() < 0 ? errno : 0;", "unistd.h errno.h"))
    assert isinstance(report, CallReport)
    assert report.code == 1  # EPERM


def test_a_fork_bomb_stays_in_its_process(cache):
    result = failure(cache, "for (;;) fork();", "unistd.h", Limits(call_s=0.3))
    assert result.reason is Reason.HANG


def test_a_crowd_of_threads_is_stopped(cache):
    body = "for (;;) { std::thread([] { for (;;) pause(); }).detach(); usleep(1000); }"
    limits = Limits(call_s=10, threads=16, memory_bytes=64 << 30)
    result = failure(cache, body, "thread unistd.h", limits)
    assert result.reason is Reason.STRAY_THREADS
    assert "more than 16" in result.detail


@pytest.mark.parametrize(
    ("body", "includes"),
    [
        ("for (;;) *(volatile char*)malloc(1 << 26) = 1;", "stdlib.h"),
        ("for (;;) *(volatile char*)new char[1 << 26] = 1;", "new"),
    ],
)
def test_exhausted_memory_is_named(cache, body, includes):
    result = failure(cache, body, includes)
    assert result.reason is Reason.OUT_OF_MEMORY
    assert "limit 1024 MiB" in result.detail


def test_endless_output_is_stopped(cache):
    result = failure(cache, 'for (;;) puts("hello");', "stdio.h")
    assert result.reason is Reason.ENDLESS_OUTPUT


@pytest.mark.parametrize("call", ["exit(0)", "_exit(0)", "quick_exit(0)"])
def test_leaving_is_not_success(cache, call):
    result = failure(cache, f"{call}; return 0;", "stdlib.h unistd.h")
    assert result.reason is Reason.EXITED
    assert "status 0" in result.detail


def test_an_error_code_is_reported(cache):
    report = run_once(cache, source("return -42;"))
    assert isinstance(report, CallReport)
    assert report.code == -42


def test_a_missing_entry_is_named_without_paths(cache):
    result = run_once(cache, source("return 0;"), entry="other")
    assert isinstance(result, Failure)
    assert result.reason is Reason.MISSING_SYMBOL
    assert "other" in result.detail
    assert str(cache) not in result.detail


def test_a_library_that_does_not_load_is_named(cache):
    artifact = built(cache, source("return 0;"))
    broken = cache / "broken.so"
    broken.write_bytes(b"not a library")
    values = (artifact.candidate, artifact.key, artifact.toolchain, 0.0, False, "", "")
    result = started(Artifact(broken, *values), [], cache)
    assert isinstance(result, Failure)
    assert result.reason is Reason.LOAD_FAILED
    assert "invalid ELF header" in result.detail or "file too short" in result.detail


def test_pragmas_without_effect_are_noticed(cache):
    result = failure(cache, "return 0;", FLAGS="-O2 -fno-openmp")
    assert result.reason is Reason.NOT_PARALLEL
    assert "1 of 2 threads" in result.detail


@pytest.mark.skipif("clang++-19" not in COMPILERS, reason="needs clang++-19")
def test_a_foreign_openmp_runtime_is_noticed(cache):
    result = failure(cache, "return 0;", CXX="clang++-19", FLAGS="-O2 -fopenmp=libgomp")
    assert result.reason is Reason.NOT_PARALLEL


def test_a_thread_left_behind_is_counted(cache):
    body = "std::thread([] { for (;;) pause(); }).detach(); return 0;"
    report = run_once(cache, source(body, "thread unistd.h"))
    assert isinstance(report, CallReport)
    assert report.stray_threads == 1


def test_a_changed_denormal_mode_is_noticed_and_restored(cache):
    if os.uname().machine != "x86_64":
        pytest.skip("MXCSR is of x86-64")
    body = "if (n == 1) _mm_setcsr(_mm_getcsr() | 0x8040); return _mm_getcsr() & 0x8040 ? 1 : 0;"
    artifact = built(cache, source(body, "immintrin.h"))
    with Arena("x", 4096) as x, Arena("y", 4096) as y, started(artifact, [x, y], cache) as worker:
        first, second = worker.call(arguments(1)), worker.call(arguments(2))
    assert (first.mxcsr_changed, first.code) == (True, 1)
    assert (second.mxcsr_changed, second.code) == (False, 0)


def test_a_library_that_flushes_denormals_when_loaded_is_refused(cache):
    artifact = built(cache, source("return 0;"), FLAGS="-O1 -ffast-math")
    if not artifact.toolchain.name.startswith("g++"):
        pytest.skip("only g++ links the start-up code that does it")
    if int(artifact.toolchain.version.split()[-1].split(".")[0]) >= 13:
        pytest.skip("since version 13 g++ leaves that code out of libraries")
    failure = run_once(cache, source("return 0;"), FLAGS="-O1 -ffast-math")
    assert isinstance(failure, Failure)
    assert failure.reason is Reason.LOAD_FAILED
    assert "denormal mode" in failure.detail


def test_denormals_are_kept(cache):
    body = "volatile float tiny = 1e-40f; return tiny * 0.5f == 0.0f;"
    report = run_once(cache, source(body), FLAGS="-O1")
    assert isinstance(report, CallReport)
    assert report.code == 0


@pytest.mark.parametrize(
    ("body", "includes"),
    [
        ("return socket(2, 1, 0) < 0 ? errno : 0;", "sys/socket.h errno.h"),
        ("return kill(-1, 9) < 0 ? errno : 0;", "signal.h errno.h"),
        ('return open("/tmp/x", O_CREAT | O_RDWR, 0600) < 0 ? errno : 0;', "fcntl.h errno.h"),
        ('return execl("/bin/true", "true", nullptr) < 0 ? errno : 0;', "unistd.h errno.h"),
        ("rlimit r{}; return setrlimit(RLIMIT_AS, &r) < 0 ? errno : 0;",
         "sys/resource.h errno.h"),
        ("return ptrace(PTRACE_TRACEME, 0, 0, 0) < 0 ? errno : 0;", "sys/ptrace.h errno.h"),
    ],
)  # fmt: skip
def test_the_outside_is_out_of_reach(cache, body, includes):
    report = run_once(cache, source(body, includes))
    assert isinstance(report, CallReport)
    assert report.code == 1  # EPERM


def test_the_judge_survives_and_can_go_on(cache):
    crash = built(cache, source("if (n == 1) abort(); y[0] = 7; return 0;", "stdlib.h"))
    with Arena("x", 4096) as x, Arena("y", 4096) as y:
        worker = started(crash, [x, y], cache)
        assert isinstance(worker.call(arguments(1)), Failure)
        assert not worker.alive
        with pytest.raises(HarnessError, match="closed"):
            worker.call(arguments(2))
        with started(crash, [x, y], cache) as second:
            assert isinstance(second.call(arguments(2)), CallReport)
        assert y.view()[:4].view("float32")[0] == 7


def test_a_worker_that_is_gone_before_its_call_fails_alone(cache):
    artifact = built(cache, source("return 0;"))
    with Arena("x", 4096) as x, Arena("y", 4096) as y, started(artifact, [x, y], cache) as worker:
        group, pid = worker._child.process, worker.pid

        def kill() -> None:
            os.killpg(group.pid, signal.SIGKILL)
            group.wait()
            while os.path.exists(f"/proc/{pid}"):
                time.sleep(0.001)

        result = worker.call(arguments(), before=kill)
        assert isinstance(result, Failure)
        assert result.reason is Reason.KILLED
        assert "before the call" in result.detail
        assert not worker.alive


def test_a_kill_is_for_memory_only_where_the_system_says_so(cache, monkeypatch):
    body = "return (int)syscall(SYS_tgkill, getpid(), getpid(), 9);"
    assert failure(cache, body, "unistd.h sys/syscall.h").reason is Reason.KILLED
    monkeypatch.setattr("kernelwright.execution.worker.oom_kills", iter(range(9)).__next__)
    short = failure(cache, body, "unistd.h sys/syscall.h")
    assert short.reason is Reason.OUT_OF_MEMORY
    assert "want of memory" in short.detail


def test_the_account_of_ended_processes_can_be_read():
    if "oom_kill" not in Path("/proc/vmstat").read_text():
        pytest.skip("the system keeps no account")
    assert oom_kills() >= 0


def test_files_of_the_machine_are_not_there_in_the_sandbox(cache):
    artifact = built(cache, source('return access("/etc/passwd", R_OK);', "unistd.h"))
    with Arena("x", 4096) as x, Arena("y", 4096) as y, started(artifact, [x, y], cache) as worker:
        if worker.isolation != "sandbox":
            pytest.skip("bubblewrap does not work here")
        assert worker.call(arguments()).code == -1


def test_process_limits_remain_without_the_sandbox(cache, monkeypatch):
    monkeypatch.setenv("KERNELWRIGHT_ISOLATION", "process")
    shared = set(os.listdir("/dev/shm"))
    for compiler in COMPILERS:
        result = failure(cache, "for (;;) fork();", "unistd.h", Limits(call_s=0.2), CXX=compiler)
        assert result.reason is Reason.HANG
        crash = failure(cache, "((float*)x)[5] = 1; return 0;", CXX=compiler)
        assert "read-only arena 'x'" in crash.detail
    artifact = built(cache, source("return 0;"))
    with Arena("x", 4096) as x, Arena("y", 4096) as y, started(artifact, [x, y], cache) as worker:
        assert isinstance(worker, Worker)
        assert worker.isolation == "process"
        assert worker.syscall_filter
    ours = f"_{os.getuid()}"
    new = set(os.listdir("/dev/shm")) - shared
    assert not [
        n for n in new if n.endswith(ours) and not os.path.exists(f"/proc/{n.split('_')[-2]}")
    ]


def test_a_call_that_does_not_fit_is_our_error():
    with pytest.raises(HarnessError, match="9 doubles"):
        Call(tuple(float(i) for i in range(9)))
    with pytest.raises(HarnessError, match="33 pointers and integers"):
        Call(tuple(range(33)))


def test_pointers_outside_an_arena_are_our_error(cache):
    artifact = built(cache, source("return 0;"))
    with Arena("x", 4096) as x, started(artifact, [x], cache) as worker:
        with pytest.raises(HarnessError, match="outside arena 'x'"):
            worker.call(Call((Pointer("x", 4097),)))
        with pytest.raises(HarnessError, match="no arena 'z'"):
            worker.call(Call((Pointer("z"),)))
