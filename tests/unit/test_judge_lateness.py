"""The judge's own waiting for a processor is no worker's lie, and no worker's gain."""

import contextlib
import ctypes
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from execution_support import arguments, built, source, started, toolchains

from kernelwright.build import build_clock
from kernelwright.evaluation.clocks import agreed_us, excess_us
from kernelwright.execution import Arena, CallReport
from kernelwright.execution.clock import Order, _native_clock, late_ns  # pyright: ignore
from kernelwright.execution.page import CALL, WAKE, Arguments, Page
from kernelwright.execution.process import places

MS = 1_000_000
SPIN = "for (int64_t k = 0; k < 20 * n; ++k) asm volatile(\"\"); return 0;"  # fmt: skip


@pytest.mark.parametrize(
    ("before_sleep", "after_sleep", "busiest", "late"),
    [
        (0, 0, 2 * MS, 0),
        (2 * MS, 0, 2 * MS, 0),  # the worker had the judge's processor while it worked
        (5 * MS, 0, 2 * MS, 3 * MS),  # … and a stranger had it afterwards
        (0, 3 * MS, 2 * MS, 3 * MS),  # the judge slept, was woken, and had to wait
        (1 * MS, 3 * MS, 2 * MS, 3 * MS),
    ],
)
def test_only_waiting_for_strangers_counts(before_sleep, after_sleep, busiest, late):
    before = {"7": 10 * MS, "8": 50 * MS}
    after = {"7": 10 * MS + busiest, "8": 50 * MS + busiest // 2, "9": 0}
    assert late_ns(before_sleep, after_sleep, before, after) == late


def test_a_partner_without_account_is_a_stranger():
    assert late_ns(5, 1, {}, {}) == 6


def report(elapsed: float, bracket: float, late: float) -> CallReport:
    return CallReport(0, elapsed, bracket, 0, 0, 2, 0, False, late_us=late)


def test_waiting_explains_an_excess_and_shortens_no_time():
    honest, forged = report(1000, 4005, 3000), report(400, 4005, 3000)
    assert excess_us(honest, 5.0) == 0
    assert excess_us(forged, 5.0) == 600
    for call in (honest, forged):
        assert agreed_us(call, 5.0) == agreed_us(report(call.elapsed_us, 4005, 0), 5.0) > 3900


def bracket_with(schedstat: int, written: bytes = b"") -> list[int]:
    """One bracket around a thread that rewrites the judge's account before it answers."""
    page, secret, seen = Page(), Arguments(), []
    secret.integers[5] = 77
    go, done = os.eventfd(0), os.eventfd(0)
    pidfd = os.pidfd_open(os.getpid())

    def partner() -> None:
        for _ in range(2):
            os.eventfd_read(go)
            seen.append((page.command, page.arguments.integers[5]))
            if len(seen) == 1:
                os.eventfd_write(done, 1)
        if written:
            os.pwrite(schedstat, written, 0)
        os.eventfd_write(done, 1)

    thread = threading.Thread(target=partner)
    thread.start()
    found = (ctypes.c_int64 * 4)()
    cpu = int(places(1).strip("{}"))
    try:
        clock = _native_clock(build_clock(toolchains()[0]))
        order = Order(page, CALL, secret, 10.0, 10.0, 9)
        wake = order.waking(time.CLOCK_PROCESS_CPUTIME_ID, (ctypes.c_int * 0)())
        asked = cpu, schedstat, ctypes.addressof(wake), found
        assert clock(go, done, pidfd, 10_000, *asked) == 1
    finally:
        thread.join()
        for fd in (go, done, pidfd):
            os.close(fd)
    assert found[1] > found[0]
    assert seen == [(WAKE, 0), (CALL, 77)]
    assert wake.used_ns > 0
    return list(found[2:])


def test_the_native_clock_reads_the_second_number_of_an_account():
    fd = os.memfd_create("schedstat")
    try:
        os.write(fd, b"111 2000000 3\n")
        assert bracket_with(fd) == [0, 0]
        assert sum(bracket_with(fd, b"999 7000000 4\n")) == 5 * MS
    finally:
        os.close(fd)


def test_without_an_account_nobody_waited():
    assert bracket_with(-1) == [0, 0]
    fd = os.memfd_create("schedstat")
    try:
        assert bracket_with(fd) == [0, 0]  # empty
    finally:
        os.close(fd)


@contextlib.contextmanager
def busy_loops(count: int):
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="no scheduling accounts")
def test_beside_busy_loops_honest_clocks_agree_and_forged_ones_do_not(tmp_path):
    honest = built(tmp_path, source(SPIN), FLAGS="-O1")
    found: list[CallReport] = []
    with (
        Arena("x", 4096) as x,
        Arena("y", 4096) as y,
        started(honest, [x, y], tmp_path) as worker,
        busy_loops(2),
    ):
        overhead = worker.handshake_overhead_us
        for _ in range(30):
            found.append(worker.call(arguments(100_000), flush_bytes=1 << 20, park=True))
    assert all(isinstance(call, CallReport) for call in found), found
    assert min(excess_us(call, overhead) for call in found) < 50
    # what was taken off was never more than there was: a forged clock would still stand out
    forged = [report(call.elapsed_us / 2, call.bracket_us, call.late_us) for call in found]
    shares = sorted(excess_us(call, overhead) / call.elapsed_us for call in forged)
    assert shares[len(shares) // 4] > 0.5
