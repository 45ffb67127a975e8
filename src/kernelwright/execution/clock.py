"""The judge's clock around one call; its native half is `worker/clock.cpp`."""

import contextlib
import ctypes
import os
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from kernelwright.execution.page import WAKE, Arguments, Page
from kernelwright.execution.process import FIRST_LOOK_MS, Child, places


def clock_ns() -> int:
    """The judge's clock: CLOCK_MONOTONIC_RAW, which no time service slews."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)


@dataclass(frozen=True, slots=True)
class Bracket:
    """A call seen from the judge."""

    outcome: str
    """As of `Child.wait`."""
    elapsed_ns: int
    """From "go" to "done" by the judge's clock."""
    late_ns: int = 0
    """How long of it the judge waited for a processor that strangers used; 0: nobody knows."""
    waking_ns: int = 0
    """Processor time of the child from the order to wake its team to the start of the clock."""


class _Wake(ctypes.Structure):
    """`Wake` of the native half."""

    _fields_ = (
        ("command", ctypes.c_void_p),
        ("wake", ctypes.c_uint32),
        ("then", ctypes.c_uint32),
        ("timeout_ms", ctypes.c_int32),
        ("clock", ctypes.c_int32),
        ("threads", ctypes.c_int64),
        ("thread", ctypes.c_void_p),
        ("arguments", ctypes.c_void_p),
        ("secret", ctypes.c_void_p),
        ("bytes", ctypes.c_uint64),
        ("used_ns", ctypes.c_int64),
    )


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker is told to do under the clock."""

    page: Page
    command: int
    arguments: Arguments
    """Put on the page right before the clock starts."""
    wake_s: float
    call_s: float
    most_tasks: int
    """See `Child.wait`."""

    def waking(self, clock: int, threads: "ctypes.Array[ctypes.c_int]") -> _Wake:
        """The same with the order to wake the team, which comes first.

        Args:
            clock: of the worker's processor time.
            threads: of the worker.
        """
        page = ctypes.addressof(self.page)
        return _Wake(
            page + Page.command.offset, WAKE, self.command, int(1000 * self.wake_s), clock,
            len(threads), ctypes.addressof(threads), page + Page.arguments.offset,
            ctypes.addressof(self.arguments), ctypes.sizeof(Arguments), 0,
        )  # fmt: skip


def bracket(child: Child, clock: Path, order: Order) -> Bracket:
    """Have a worker wake its team, raise "go" and wait as `Child.wait` does.

    Args:
        child: the worker.
        clock: what `build_clock` built.
        order: what it is told.
    """
    found = (ctypes.c_int64 * 4)()
    pause = int(min(FIRST_LOOK_MS, order.call_s * 1000))
    cpu = int(places(1).strip("{}"))
    sources = (child.go_fd, child.done_fd, child.process.end_fd)
    listed = child.task_numbers()
    threads = (ctypes.c_int * len(listed))(*listed)
    wake, runnable = order.waking(child.cpu_clock, threads), child.runnable_ns()
    with _own_schedstat() as schedstat:
        ready = _native_clock(clock)(*sources, pause, cpu, schedstat, ctypes.addressof(wake), found)
    if ready == 1:
        os.eventfd_read(child.done_fd)
        late = late_ns(found[2], found[3], runnable, child.runnable_ns())
        return Bracket("done", found[1] - found[0], late, wake.used_ns)
    if ready == _STILL_ASLEEP:
        return Bracket("timeout", 0)
    left = order.call_s - pause / 1000
    outcome = "ended" if ready == _ENDED else child.wait(left, order.most_tasks)
    return Bracket(outcome, clock_ns() - found[0])


_ENDED, _STILL_ASLEEP = 2, -2


@lru_cache(maxsize=8)
def _native_clock(path: Path) -> Any:
    """`kernelwright_bracket` of the judge's clock."""
    function = ctypes.CDLL(str(path)).kernelwright_bracket
    function.argtypes = [ctypes.c_int] * 6 + [ctypes.c_void_p] * 2
    return function


@contextlib.contextmanager
def _own_schedstat() -> Generator[int]:
    """Descriptor of this thread's scheduling account; -1 where the system keeps none."""
    try:
        fd = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield -1
        return
    try:
        yield fd
    finally:
        os.close(fd)


def late_ns(
    before_sleep: int, after_sleep: int, before: Mapping[str, int], after: Mapping[str, int]
) -> int:
    """How long the judge, who could have gone on, waited for a processor that strangers used.

    Args:
        before_sleep: its wait between "go" and its sleep. The partner woke on this processor and
            took it, perhaps for the whole call; strangers may have come after.
        after_sleep: its wait after it had been woken.
        before: `Child.runnable_ns` before the call. The busiest thread of the partner was runnable
            as long as the call lasted, or nearly; for so long it was not strangers who delayed us.
        after: the same after the call.
    """
    call = max((ns - before.get(task, 0) for task, ns in after.items()), default=0)
    return max(0, before_sleep - call) + after_sleep
