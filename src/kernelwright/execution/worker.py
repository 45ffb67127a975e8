"""The process that runs one candidate, seen from the judge."""

import array
import contextlib
import ctypes
import mmap
import os
import socket
import statistics
import struct
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from kernelwright.errors import HarnessError
from kernelwright.execution import page as layout
from kernelwright.execution.arena import Arena
from kernelwright.execution.diagnose import Evidence, explain_end, explain_problem
from kernelwright.execution.page import Page
from kernelwright.execution.process import (
    Channel,
    Child,
    clock_ns,
    role_environment,
    shared_libraries,
    spawn,
)
from kernelwright.execution.report import Call, CallReport, Failure, Limits, Pointer
from kernelwright.sandbox import View, confine, isolation, real_paths

DEFAULT_LIMITS = Limits()
_CALIBRATION_CALLS = 9


class Worker:
    """One process, one candidate. After any `Failure` it is gone and `alive` is False.

    Made by `Worker.start`; usable as a context manager, which closes it. It must be closed by
    the thread that started it or while that thread lives: a worker dies with its thread.
    """

    def __init__(self, arenas: Sequence[Arena], threads: int, limits: Limits) -> None:
        """Not for callers: see `start`."""
        self.limits = limits
        self.threads = threads
        self.isolation = isolation()
        """`sandbox` (bubblewrap) or `process`."""
        self.handshake_overhead_us = 0.0
        """Median of bracket minus elapsed over calls of a null kernel in this very process."""
        self.team = 0
        """Threads on which the artifact's OpenMP runtime ran its probe."""
        self.syscall_filter = False
        """Whether the system-call filter is in place."""
        self._arenas = {arena.name: (0, arena.nbytes) for arena in arenas}
        self._tasks_before = 0
        self._child: Child | None = None
        fd = os.memfd_create("kernelwright-page", os.MFD_CLOEXEC)
        os.ftruncate(fd, -(-ctypes.sizeof(Page) // mmap.PAGESIZE) * mmap.PAGESIZE)
        self._page_fd = fd
        self._memory = mmap.mmap(fd, 0)
        self._page = Page.from_buffer(self._memory)

    @classmethod
    def start(
        cls,
        artifact: Path,
        entry: str,
        runtime: Path,
        arenas: Sequence[Arena],
        threads: int,
        limits: Limits = DEFAULT_LIMITS,
    ) -> "Worker | Failure":
        """Start a worker, load the artifact, find `entry`, prove that it runs on `threads`.

        Args:
            artifact: The shared library (`Artifact.path`).
            entry: Name of the kernel.
            runtime: `build_runtime(artifact.toolchain)`.
            arenas: Mapped into the worker; sealed ones read-only. Guard pages surround each.
            threads: Size of the OpenMP team.
            limits: When to stop it.

        Raises:
            HarnessError: our own machinery failed before the candidate was loaded.
        """
        worker = cls(arenas, threads, limits)
        try:
            worker._launch(artifact, entry, runtime, arenas)
            failure = worker._load()
        except BaseException:
            worker.close()
            raise
        return failure or worker

    def _launch(self, artifact: Path, entry: str, runtime: Path, arenas: Sequence[Arena]) -> None:
        """Start the host; afterwards it has mapped everything and sleeps, with its limits on."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            visible = _visible_files(runtime, artifact)
            channel = Channel.open()
            numbers = [theirs.fileno(), self._page_fd, channel.go, channel.done, self.threads]
            numbers += [self.limits.memory_bytes, self.limits.output_bytes]
            lent = [f"{arena.fd}:{arena.nbytes}:{int(not arena.sealed)}" for arena in arenas]
            command = [str(runtime), *map(str, numbers), str(artifact), entry, *lent]
            descriptors = [theirs.fileno(), self._page_fd, *(arena.fd for arena in arenas)]
            confined = confine(command, View(read_only=visible))
            self._child = spawn(confined, descriptors, role_environment(self.threads), channel)
            theirs.close()
            ours.settimeout(self.limits.start_s)
            self._child.pid = _sender(ours) or self._child.pid
        outcome = self._child.wait(self.limits.start_s)
        if outcome != "done" or self._page.problem or self._page.bytes != ctypes.sizeof(Page):
            text = self._page.text.decode(errors="replace")
            raise HarnessError(f"the worker did not start ({outcome}): {text}{self._child.tail()}")
        self.syscall_filter = bool(self._page.syscall_filter)
        self._arenas = {
            arena.name: (int(self._page.arena_address[i]), arena.nbytes)
            for i, arena in enumerate(arenas)
        }
        self._tasks_before = self._child.tasks()

    def _load(self) -> Failure | None:
        """Load the candidate and calibrate the handshake."""
        failure = self._order(layout.LOAD, self.limits.start_s, "while it was loaded")
        if failure:
            return failure
        self.team = int(self._page.team)
        extra: list[float] = []
        for _ in range(_CALIBRATION_CALLS):
            report = self.null_call()
            if isinstance(report, Failure):
                return report
            extra.append(report.bracket_us - report.elapsed_us)
        self.handshake_overhead_us = statistics.median(extra)
        return None

    def call(self, call: Call, flush_bytes: int = 0, park: bool = False) -> CallReport | Failure:
        """Flush `flush_bytes` with the worker's own team, then time one call.

        With `park` the worker is thawed before and frozen after the call; it is certainly stopped
        when this returns, so that outputs can be read.
        """
        self._write_arguments(call)
        return self._timed(layout.CALL, flush_bytes, park)

    def null_call(self, flush_bytes: int = 0) -> CallReport | Failure:
        """Time a call of a kernel that does nothing (the clock's own floor)."""
        return self._timed(layout.NULL_CALL, flush_bytes, False)

    def workspace_bytes(
        self, integers: Sequence[int], doubles: Sequence[float] = ()
    ) -> int | Failure:
        """What `ENTRY_workspace(dimensions…, scalars…)` returns; 0 where it is not exported."""
        self._write_arguments(Call((*integers, *doubles)))
        self.thaw()
        failure = self._order(layout.WORKSPACE, self.limits.call_s, "in its workspace function")
        return failure or int(self._page.result)

    def _write_arguments(self, call: Call) -> None:
        integers: list[int] = []
        doubles: list[float] = []
        for argument in call.arguments:
            if isinstance(argument, Pointer):
                integers.append(self._address(argument))
            elif isinstance(argument, float):
                doubles.append(argument)
            else:
                integers.append(int(argument))
        for i, value in enumerate(integers):
            self._page.integers[i] = value
        for i, value in enumerate(doubles):
            self._page.doubles[i] = value

    def _address(self, pointer: Pointer) -> int:
        if pointer.arena not in self._arenas:
            raise HarnessError(f"the worker has no arena '{pointer.arena}'")
        base, nbytes = self._arenas[pointer.arena]
        if not 0 <= pointer.offset <= nbytes:
            raise HarnessError(f"offset {pointer.offset} is outside arena '{pointer.arena}'")
        return base + pointer.offset

    def _timed(self, command: int, flush_bytes: int, park: bool) -> CallReport | Failure:
        self.thaw()
        self._page.flush_bytes = flush_bytes
        failure = self._order(layout.FLUSH, self.limits.call_s, "while the caches were flushed")
        if failure:
            return failure
        start = clock_ns()
        failure = self._order(command, self.limits.call_s, "in the kernel")
        end = clock_ns()
        if failure:
            return failure
        child = self._require()
        if park:
            child.freeze()
        page = self._page
        return CallReport(
            code=int(ctypes.c_int32(page.result).value),
            elapsed_us=page.elapsed_ns / 1000,
            bracket_us=(end - start) / 1000,
            minor_faults=int(page.minor_faults),
            major_faults=int(page.major_faults),
            team=int(page.team),
            stray_threads=max(0, child.tasks() - self._tasks_before),
            mxcsr_changed=bool(page.mxcsr_changed),
        )

    def _order(self, command: int, timeout_s: float, where: str) -> Failure | None:
        """One command and its answer; a failure ends the worker."""
        child = self._require()
        self._page.command = command
        child.go()
        outcome = child.wait(timeout_s, self.limits.threads)
        if outcome == "done" and not self._page.signal and not self._page.problem:
            return None
        if outcome == "done" and self._page.problem and not self._page.signal:
            text = self._page.text.decode(errors="replace")
            failure = explain_problem(int(self._page.problem), text)
        else:
            evidence = Evidence(self._page, child, self._arenas, outcome, where, timeout_s)
            failure = explain_end(evidence, self.limits)
        self.close()
        return failure

    def _require(self) -> Child:
        if self._child is None:
            raise HarnessError("the worker has been closed")
        return self._child

    @property
    def pid(self) -> int:
        """The process that runs the candidate, in the judge's numbering."""
        return self._require().pid

    @property
    def alive(self) -> bool:
        """Whether it can be called."""
        return self._child is not None and self._child.running

    def freeze(self) -> None:
        """Stop every thread of the worker (SIGSTOP) and wait until they are stopped."""
        self._require().freeze()

    def thaw(self) -> None:
        """Let it run again."""
        self._require().thaw()

    def close(self) -> None:
        """End the process and everything it started; safe to call twice."""
        if self._child is not None:
            self._child.close()
            self._child = None
        if self._page_fd >= 0:
            os.close(self._page_fd)
            self._page_fd = -1
            self._page = Page.from_buffer_copy(self._memory)  # lets the mapping go
            with contextlib.suppress(BufferError):
                self._memory.close()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _visible_files(runtime: Path, artifact: Path) -> tuple[Path, ...]:
    """All that a worker sees of the file system: host, artifact and the libraries they load.

    The vector mathematics library and both OpenMP runtimes are there whoever links them, so that
    an artifact with the wrong one is told that it is not parallel rather than not loadable.
    """
    libraries = shared_libraries(str(runtime))
    folders = dict.fromkeys(Path(path).parent for path in libraries)
    extra = [d / n for d in folders for n in ("libmvec.so.1", "libgomp.so.1", "libomp.so.5")]
    return real_paths([runtime, artifact, *libraries, *extra])


def _sender(ours: socket.socket) -> int:
    """Process id, in our numbering, of the one who sends the first byte; 0 when nobody does."""
    size = struct.calcsize("3i")
    try:
        _, ancillary, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(size))
    except OSError:
        return 0
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            return array.array("i", data[:size])[0]
    return 0
