"""The process that runs one candidate, seen from the judge."""

import contextlib
import ctypes
import mmap
import os
import socket
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from kernelwright.errors import HarnessError
from kernelwright.execution import page as layout
from kernelwright.execution.arena import Arena
from kernelwright.execution.clock import Order, bracket
from kernelwright.execution.diagnose import Evidence, explain_end, explain_problem, oom_kills
from kernelwright.execution.fork_server import fork_server
from kernelwright.execution.page import Arguments, Page
from kernelwright.execution.process import (
    Channel,
    Child,
    first_sender,
    host_files,
    role_environment,
    spawn,
)
from kernelwright.execution.report import Call, CallReport, Failure, Limits, Pointer, Poison, Stream
from kernelwright.model import Host
from kernelwright.sandbox import View, confine, isolation

DEFAULT_LIMITS = Limits()
_CALIBRATION_CALLS = 9


class Worker:
    """One process, one candidate. After any `Failure` it is gone and `alive` is False.

    Made by `Worker.start`; usable as a context manager, which closes it. It must be closed by
    the thread that started it or while that thread lives: a worker dies with its thread.
    """

    def __init__(self, host: Host, arenas: Sequence[Arena], threads: int, limits: Limits) -> None:
        """Not for callers: see `start`."""
        self._clock = host.clock
        self._has_device = bool(host.devices)
        self._rehearses = host.rehearses
        self._rehearsed: set[tuple[int | float, ...]] = set()
        self.limits = limits
        self.threads = threads
        self.isolation = isolation()
        """`sandbox` (bubblewrap) or `process`."""
        self.handshake_overhead_us = 0.0
        """Bracket minus elapsed of a null kernel, measured before the candidate was loaded."""
        self.team = 0
        """Threads on which the artifact's OpenMP runtime ran its probe."""
        self.exports_prepare = False
        self.exports_prepared = False
        """Whether the artifact has `ENTRY_prepare` and `ENTRY_prepared`."""
        self.syscall_filter = False
        """Whether the system-call filter is in place."""
        self._arenas = {arena.name: (0, arena.nbytes) for arena in arenas}
        self._tasks_before = 0
        self._stream = 0
        self._oom_kills = oom_kills()
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
        host: Host,
        arenas: Sequence[Arena],
        threads: int,
        limits: Limits = DEFAULT_LIMITS,
        flush_bytes: int = 0,
    ) -> "Worker | Failure":
        """Start a worker, load the artifact, find `entry`, prove that it runs on `threads`.

        Args:
            artifact: What the host loads (`Artifact.path`).
            entry: Name of the kernel.
            host: What the artifact's builder says (`Builder.host`).
            arenas: Mapped into the worker; sealed ones read-only. Guard pages surround each.
            threads: Size of the OpenMP team.
            limits: When to stop it.
            flush_bytes: On a device what calls flush, which lies in the judge's bracket there: the
                handshake is calibrated with it.

        Raises:
            HarnessError: our own machinery failed before the candidate was loaded.
        """
        worker = cls(host, arenas, threads, limits)
        try:
            worker._launch(artifact, entry, host, arenas)
            worker._calibrate(flush_bytes if worker._has_device else 0)
            failure = worker._load()
        except BaseException:
            worker.close()
            raise
        return failure or worker

    def _launch(self, artifact: Path, entry: str, host: Host, arenas: Sequence[Arena]) -> None:
        """Start the host; afterwards it has mapped everything and sleeps, with its limits on."""
        environment = role_environment(self.threads, host.environment)
        server = fork_server(host, environment)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs, open(artifact, "rb") as file:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            channel = Channel.open()
            numbers = [theirs.fileno(), self._page_fd, channel.go, channel.done, self.threads]
            numbers += [self.limits.memory_bytes, self.limits.output_bytes]
            place = str(artifact if server is None else file.fileno())
            lent = [arena.specification for arena in arenas]
            words = [*map(str, numbers), place, entry, *lent]
            descriptors = [self._page_fd, *(fd for arena in arenas for fd in arena.descriptors)]
            if server is None:
                seen = host_files(host, artifact)
                view = View(read_only=seen, hidden=host.hidden, devices=host.devices)
                command = confine([*host.command, *words], view)
                inherited = [theirs.fileno(), *descriptors]
                self._child = spawn(command, inherited, environment, channel)
                theirs.close()
            else:
                words = [*host.command[len(host.server) :], *words]
                given, ends = [*descriptors, file.fileno()], (ours, theirs)
                self._child = server.fork(words, given, ends, channel, self.limits.start_s)
            if self._child.readable(ours, self.limits.start_s):
                self._child.pid = first_sender(ours) or self._child.pid
        outcome = self._child.wait(self.limits.start_s)
        if outcome != "done" or self._page.problem or self._page.bytes != ctypes.sizeof(Page):
            text = self._page.text.decode(errors="replace")
            raise HarnessError(f"the worker did not start ({outcome}): {text}{self._child.tail()}")
        self.syscall_filter = bool(self._page.syscall_filter)
        self._arenas = {
            arena.name: (int(self._page.arena_address[i]), arena.nbytes)
            for i, arena in enumerate(arenas)
        }
        self._stream = int(self._page.stream)
        self._tasks_before = self._child.tasks()

    def _calibrate(self, flush_bytes: int) -> None:
        """Measure the handshake while nothing but our own code is in the process."""
        extra: list[float] = []
        for _ in range(_CALIBRATION_CALLS):
            report = self.null_call(flush_bytes)
            if isinstance(report, Failure):
                raise HarnessError(f"the worker does not answer: {report.detail}")
            extra.append(report.bracket_us - report.elapsed_us)
        self.handshake_overhead_us = statistics.median(extra)

    def _load(self) -> Failure | None:
        """Load the candidate."""
        failure = self._order(layout.LOAD, self.limits.start_s, "while it was loaded")
        self.team = int(self._page.team)
        failure = failure or self._order(layout.EXPORTS, self.limits.start_s, "after the load")
        exports = 0 if failure else int(self._page.result)
        self.exports_prepare = bool(exports & layout.HAS_PREPARE)
        self.exports_prepared = bool(exports & layout.HAS_PREPARED)
        return failure

    def call(
        self,
        call: Call,
        flush_bytes: int = 0,
        park: bool = False,
        before: Callable[[], None] | None = None,
        poison: Sequence[Poison] = (),
    ) -> CallReport | Failure:
        """Flush `flush_bytes` with the worker's own team, then time one call.

        Args:
            call: the arguments; the worker does not see them before the call.
            flush_bytes: read by the team, which wakes it; the kernel cannot see how many.
            park: freeze the worker after the call; it is certainly stopped when this returns, so
                that outputs can be read.
            before: what to do right before the call while the worker sleeps, such as putting
                inputs in place that it must not see earlier.
            poison: what a device fills before the call; at most `page.MAX_POISON`.
        """
        failure = self._rehearse(call) if self._rehearses else None
        if failure:
            return failure
        page, ordered = self._page, sorted(poison, key=lambda part: part.last)
        page.poison_after = sum(part.last for part in ordered)
        page.poison_before = len(ordered) - page.poison_after
        for i, part in enumerate(ordered):
            page.poison_address[i] = self._address(part.where)
            page.poison_bytes[i], page.poison_byte[i] = part.nbytes, part.byte
        return self._timed(layout.CALL, flush_bytes, park, before, call)

    def null_call(self, flush_bytes: int = 0) -> CallReport | Failure:
        """Time a call of a kernel that does nothing (the clock's own floor)."""
        return self._timed(layout.NULL_CALL, flush_bytes, False, None, Call(()))

    def workspace_bytes(
        self, integers: Sequence[int], doubles: Sequence[float] = ()
    ) -> int | Failure:
        """What `ENTRY_workspace(dimensions…, scalars…)` returns; 0 where it is not exported."""
        return self._asked(layout.WORKSPACE, "in its workspace function", integers, doubles)

    def prepared_bytes(
        self, integers: Sequence[int], doubles: Sequence[float] = ()
    ) -> int | Failure:
        """What `ENTRY_prepared(dimensions…, scalars…)` returns; it must be exported."""
        return self._asked(layout.PREPARED, "in its prepared function", integers, doubles)

    def prepare(self, call: Call) -> CallReport | Failure:
        """Time one call of `ENTRY_prepare`, which must be exported; the worker is frozen after."""
        return self._timed(layout.PREPARE, 0, True, None, call)

    def _rehearse(self, call: Call) -> Failure | None:
        """Have it compile for the shape of a call, once for each; it gets no address."""
        blank = [0 if isinstance(a, Pointer | Stream) else a for a in call.arguments]
        if tuple(blank) in self._rehearsed:
            return None
        self._rehearsed.add(tuple(blank))
        self._write_arguments(Call(tuple(blank)))
        self.thaw()
        return self._order(layout.REHEARSE, self.limits.start_s, "while it was compiled")

    def _asked(
        self, command: int, where: str, integers: Sequence[int], doubles: Sequence[float]
    ) -> int | Failure:
        self._write_arguments(Call((*integers, *doubles)))
        self.thaw()
        return self._order(command, self.limits.call_s, where) or int(self._page.result)

    def _write_arguments(self, call: Call) -> None:
        self._page.arguments = self._arguments(call)

    def _arguments(self, call: Call) -> Arguments:
        integers: list[int] = []
        doubles: list[float] = []
        for argument in call.arguments:
            if isinstance(argument, Pointer):
                integers.append(self._address(argument))
            elif isinstance(argument, Stream):
                integers.append(self._stream)
            elif isinstance(argument, float):
                doubles.append(argument)
            else:
                integers.append(int(argument))
        found = Arguments()
        found.integers[: len(integers)] = integers
        found.doubles[: len(doubles)] = doubles
        return found

    def _address(self, pointer: Pointer) -> int:
        if pointer.arena not in self._arenas:
            raise HarnessError(f"the worker has no arena '{pointer.arena}'")
        base, nbytes = self._arenas[pointer.arena]
        if not 0 <= pointer.offset <= nbytes:
            raise HarnessError(f"offset {pointer.offset} is outside arena '{pointer.arena}'")
        return base + pointer.offset

    def _timed(
        self,
        command: int,
        flush_bytes: int,
        park: bool,
        before: Callable[[], None] | None,
        call: Call,
    ) -> CallReport | Failure:
        self.thaw()
        self._page.flush_bytes = flush_bytes
        # the host's own work: what a busy machine makes of it is no fault of the candidate's
        failure = self._order(layout.FLUSH, self.limits.start_s, "while the caches were flushed")
        if failure:
            return failure
        self._page.flush_bytes = 0
        try:
            return self._bracketed(command, park, before, call)
        except ProcessLookupError:  # outside of the call, where nobody waits for its answer
            where = "before the call, or right after its answer"
            return self._fatal("ended", self.limits.call_s, where)

    def _bracketed(
        self, command: int, park: bool, before: Callable[[], None] | None, call: Call
    ) -> CallReport | Failure:
        """The call itself; raises ProcessLookupError where the worker is found gone."""
        child, page, limits = self._require(), self._page, self.limits
        busy = 0
        if before is not None:
            child.rest()
            busy = child.cpu_ns()
            before()
            busy = child.cpu_ns() - busy
        order = Order(
            page, command, self._arguments(call), limits.start_s, limits.call_s, limits.threads
        )
        found = bracket(child, self._clock, order)
        where = "while it prepared" if command == layout.PREPARE else "in the kernel"
        failure = self._failure_of(found.outcome, limits.call_s, where)
        if failure:
            return failure
        if not self._has_device:  # there it is the device that wakes
            busy += found.waking_ns
        if park:
            busy -= child.cpu_ns()
            child.freeze()
            busy += child.cpu_ns()
        return CallReport(
            code=int(ctypes.c_int32(page.result).value),
            elapsed_us=page.elapsed_ns / 1000,
            threads=self.threads,
            outside_us=busy / 1000,
            bracket_us=found.elapsed_ns / 1000,
            late_us=found.late_ns / 1000,
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
        return self._failure_of(child.wait(timeout_s, self.limits.threads), timeout_s, where)

    def _failure_of(self, outcome: str, timeout_s: float, where: str) -> Failure | None:
        """What an answer, or its absence, means; a failure ends the worker."""
        if outcome == "done" and not self._page.signal and not self._page.problem:
            return None
        return self._fatal(outcome, timeout_s, where)

    def _fatal(self, outcome: str, timeout_s: float, where: str) -> Failure:
        """What an end means; the worker is closed."""
        if outcome == "done" and self._page.problem and not self._page.signal:
            text = self._page.text.decode(errors="replace")
            failure = explain_problem(int(self._page.problem), text)
        else:
            child = self._require()
            killed = oom_kills() - self._oom_kills
            evidence = Evidence(self._page, child, self._arenas, outcome, where, timeout_s, killed)
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
