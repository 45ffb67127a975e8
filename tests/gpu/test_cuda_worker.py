"""A worker of CUDA kernels: lent device memory, its clock, and one failure at a time."""

import numpy as np
import pytest
from gpu_support import SCALE, arguments, built, filled, run_once, started

from kernelwright.execution import CallReport, DeviceArena, Failure, Pointer, Poison
from kernelwright.model import Reason

COUNT = 100_000


def test_memory_is_lent_and_read_back():
    values = np.arange(COUNT, dtype=np.float32)
    with DeviceArena("x", 4 * COUNT) as x, DeviceArena("y", 4 * COUNT) as y:
        x.put(0, values.view(np.uint8))
        y.fill(0, y.nbytes, 0xFF)
        worker = started(built(filled(SCALE)), [x, y])
        assert not isinstance(worker, Failure), worker
        with worker:
            report = worker.call(arguments(COUNT), flush_bytes=120 << 20, park=True)
            assert isinstance(report, CallReport), report
            now = y.fetch(0, 4 * COUNT).view(np.float32)
            np.testing.assert_array_equal(now, 2 * values)
            assert 0 < report.elapsed_us < 1000
            assert report.stray_threads == 0
            assert worker.syscall_filter


def test_arenas_copy_flood_and_fill():
    with DeviceArena("a", 1 << 16) as a, DeviceArena("b", 1 << 16) as b:
        a.flood(0x1234567890ABCDEF)
        assert set(a.fetch(0, 1 << 16).view(np.uint32)) == {0x90ABCDEF}
        b.fill(0, b.nbytes, 7)
        b.copy(64, 128, a)
        seen = b.fetch(0, 256)
        assert set(seen[:64]) == set(seen[192:]) == {7}
        np.testing.assert_array_equal(seen[64:192], a.view(64, 128))


FAILING = {
    "illegal access": (
        filled(SCALE, DEVICE="if (i == 5) y[1ll << 40] = 1;"), Reason.CRASH, "illegal memory",
    ),
    "trap": (filled(SCALE, DEVICE='if (i == 5) asm("trap;");'), Reason.CRASH, "on the GPU"),
    "misaligned": (
        filled(SCALE, DEVICE="if (i == 5) *(double*)((char*)y + 4) = 1;"), Reason.CRASH, "misalign",
    ),
    "hang": (
        filled(SCALE, DEVICE="if (i == 5) while (((volatile float*)x)[0] == x[0]) {}"),
        Reason.HANG, "no answer",
    ),
    "error code": (filled(SCALE, HOST="return 17;"), Reason.ERROR_CODE, "17"),
    "launch fails unnoticed": (
        filled(SCALE, HOST="scale<<<1, 4096, 0, s>>>(x, y, n); cudaGetErrorString(cudaSuccess);")
        .replace("return cudaGetLastError();", "return 0;"),
        Reason.ERROR_CODE, "a launch failed: invalid",
    ),
    "device memory": (
        filled(SCALE, HOST="void* p; return cudaMalloc(&p, 1ull << 45);"),
        Reason.OUT_OF_MEMORY, "memory",
    ),
    "host crash": (filled(SCALE, HOST="*(volatile int*)8 = 1;"), Reason.CRASH, "SIGSEGV"),
    "exit": (
        filled(SCALE, HOST="_exit(0);").replace("#include", "#include <unistd.h>\n#include", 1),
        Reason.EXITED, "ended by itself",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILING)
def test_each_failure_has_its_reason_and_costs_one_worker(name):
    text, reason, words = FAILING[name]
    found = run_once(text)
    assert isinstance(found, Failure), found
    assert found.reason is reason, found
    assert words in found.detail, found
    after = run_once(filled(SCALE))
    assert isinstance(after, CallReport), after


@pytest.mark.parametrize("flags", [0, 1], ids=["blocking", "not blocking"])
def test_work_on_another_stream_is_in_the_time(flags):
    text = filled(
        SCALE,
        HOST=f"static cudaStream_t t = 0; if (!t) cudaStreamCreateWithFlags(&t, {flags}); s = t;",
        DEVICE="for (int k = 0; k < 20; ++k) __nanosleep(1000000);",
    )
    found = run_once(text)
    assert isinstance(found, CallReport), found
    assert 5000 < found.elapsed_us < found.bracket_us


def test_what_is_written_before_the_clock_starts_is_lost():
    """A side stream does not wait for what keeps the device busy before the call."""
    text = filled(
        SCALE, HOST="static cudaStream_t t = 0; if (!t) cudaStreamCreateWithFlags(&t, 1); s = t;"
    )
    with DeviceArena("x", 4 * COUNT) as x, DeviceArena("y", 4 * COUNT) as y:
        worker = started(built(text), [x, y])
        assert not isinstance(worker, Failure), worker
        with worker:
            poison = [Poison(Pointer("y"), 4 * COUNT, 0xFF)]
            report = worker.call(arguments(COUNT), park=True, poison=poison)
            assert isinstance(report, CallReport), report
            assert set(y.fetch(0, 4 * COUNT)) == {0xFF}


def test_what_a_legitimate_second_stream_does_is_counted_once():
    text = filled(
        SCALE,
        HOST="""
  static cudaStream_t t = 0;
  static cudaEvent_t fork, join;
  if (!t) {
    cudaStreamCreate(&t);
    cudaEventCreateWithFlags(&fork, cudaEventDisableTiming);
    cudaEventCreateWithFlags(&join, cudaEventDisableTiming);
  }
  cudaEventRecord(fork, s);
  cudaStreamWaitEvent(t, fork);
  scale<<<1, 256, 0, t>>>(x, y, n < 256 ? n : 256);
  cudaEventRecord(join, t);
  cudaStreamWaitEvent(s, join);
""",
    )
    found = run_once(text)
    assert isinstance(found, CallReport), found
    assert found.elapsed_us < 500
