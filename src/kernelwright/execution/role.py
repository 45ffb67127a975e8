"""A Python role (such as the oracle), seen from the judge."""

import contextlib
import os
import socket
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from kernelwright import errors
from kernelwright.errors import HarnessError
from kernelwright.execution.arena import Arena
from kernelwright.execution.clock import clock_ns
from kernelwright.execution.confined_python import environment, python_view
from kernelwright.execution.process import (
    Channel,
    Child,
    first_sender,
    role_environment,
    spawn,
)
from kernelwright.execution.report import CallReport
from kernelwright.execution.serve import CHANNEL_VARIABLE
from kernelwright.execution.wire import MOST_DESCRIPTORS, receive_message, send_message
from kernelwright.sandbox import View, confine, isolation

_CALIBRATION_CALLS = 9
_START_S = 120.0
_LOOK_S = 0.1
_MEMORY_SHARE = 0.8
_PROCESSES = 128
_AWAKE = {"GOMP_SPINCOUNT": "400000", "KMP_BLOCKTIME": "20"}
"""Teams wait awake for 20 ms, about as long as by default: an interpreter lies between a role's
flush and its call, and between the operators of a call."""
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 40), "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
"""Never give memory back, so that a reference's intermediates do not fault at each call."""


class RoleProcess:
    """A process running `python -m MODULE ARGUMENTS…`, whose main calls `serve`.

    It may import files that nobody has looked at: where `isolation()` is `sandbox` it has no
    network, no home, none of this process's secrets, a /tmp of its own, and sees nothing but
    Python, compilers, our package and the files named. Its memory and its processes are limited.

    Requests are length-prefixed JSON over a socket; arenas travel as file descriptors. Usable as
    a context manager, which closes it. A role dies with the thread that started it.
    """

    def __init__(self, child: Child, connection: socket.socket, threads: int) -> None:
        """Not for callers: see `start`."""
        self.threads = threads
        self.isolation = isolation()
        """`sandbox` (bubblewrap) or `process`."""
        self.handshake_overhead_us = 0.0
        """Median of bracket minus elapsed over calls that do nothing."""
        self._child: Child | None = child
        self._connection = connection

    @classmethod
    def start(
        cls,
        module: str,
        arguments: Sequence[str] = (),
        arenas: Sequence[Arena] = (),
        env: Mapping[str, str] | None = None,
        threads: int | None = None,
        view: View | None = None,
    ) -> "RoleProcess":
        """Start the role and wait until it serves.

        Args:
            module: Python module to run.
            arguments: Its command line.
            arenas: Visible at once to `arena_view` there.
            env: Added to what is inherited (`confined_python.environment`) and every role's own.
            threads: OpenMP team; default: the cores of this process's affinity.
            view: What it sees of the file system; default: `python_view()`.

        Raises:
            HarnessError: it died or did not answer; the message ends with its standard error.
        """
        threads = threads or len(os.sched_getaffinity(0))
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            channel = Channel.open()
            numbers = [theirs.fileno(), channel.go, channel.done, *_limits(threads)]
            own = {
                **_KEEP_MEMORY,
                **_AWAKE,
                CHANNEL_VARIABLE: ":".join(map(str, numbers)),
                **(env or {}),
            }
            inherited = environment(role_environment(threads))
            inherited["PATH"] = os.environ.get("PATH", os.defpath)
            inherited.pop("OMP_THREAD_LIMIT")
            command = [sys.executable, "-m", module, *arguments]
            try:
                confined = confine(command, view or python_view())
                child = spawn(confined, [theirs.fileno()], inherited | own, channel)
            except HarnessError:
                ours.close()
                raise
        role = cls(child, ours, threads)
        try:
            ours.settimeout(_START_S)
            if child.readable(ours, _START_S):
                child.pid = first_sender(ours) or child.pid
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
            role._exchange({"kind": "detach", "payload": {"names": []}}, _START_S)
            role.attach(arenas)
            role._calibrate()
        except BaseException:
            role.close()
            raise
        return role

    def _calibrate(self) -> None:
        reports = [self.timed("") for _ in range(_CALIBRATION_CALLS)]
        self.handshake_overhead_us = statistics.median(
            report.bracket_us - report.elapsed_us for report in reports
        )

    def attach(self, arenas: Sequence[Arena]) -> None:
        """Map more arenas in the role (sealed ones read-only)."""
        for first in range(0, len(arenas), MOST_DESCRIPTORS):
            group = arenas[first : first + MOST_DESCRIPTORS]
            listed = [[arena.name, arena.nbytes, not arena.sealed, arena.handle] for arena in group]
            message = {"kind": "attach", "payload": {"arenas": listed}}
            self._exchange(message, 60.0, [arena.fd for arena in group if arena.handle is None])

    def detach(self, names: Sequence[str]) -> None:
        """Forget arenas in the role; memory returns when no view is left there."""
        self._exchange({"kind": "detach", "payload": {"names": list(names)}}, 60.0)

    def request(
        self, op: str, payload: Mapping[str, Any] | None = None, timeout_s: float = 60.0
    ) -> dict[str, Any]:
        """Run `handlers[op](payload)` there and return its reply (JSON values).

        Raises:
            ProblemError: a handler raised a `UserError`; with its sentence.
            HarnessError: the role died, timed out, or replied with another error.
        """
        message = {"kind": "request", "op": op, "payload": dict(payload or {})}
        return self._exchange(message, timeout_s)

    def timed(
        self,
        op: str,
        payload: Mapping[str, Any] | None = None,
        flush_bytes: int = 0,
        park: bool = False,
        timeout_s: float = 60.0,
    ) -> CallReport:
        """Time the callable that `timed[op](payload)` returns there; making it is not timed.

        With `park` the role is thawed before and frozen (surely stopped) after the call.

        Raises:
            HarnessError: the role died, timed out, or replied with an error.
        """
        prepare = {"kind": "prepare", "op": op, "payload": dict(payload or {})}
        self._exchange({**prepare, "flush_bytes": flush_bytes}, timeout_s)
        child = self._require()
        tasks = child.tasks()
        self._await_sleep()
        start = clock_ns()
        child.go()
        outcome = child.wait(timeout_s, self._most_tasks)
        end = clock_ns()
        if outcome == "crowd":
            raise self._crowded()
        if outcome != "done":
            raise self._lost(f"'{op}' got no answer ({outcome})")
        reply = self._receive(timeout_s)
        stray = max(0, child.tasks() - tasks)
        if park:
            child.freeze()
        return CallReport(
            code=0,
            elapsed_us=reply["elapsed_ns"] / 1000,
            bracket_us=(end - start) / 1000,
            minor_faults=reply["minor_faults"],
            major_faults=reply["major_faults"],
            team=self.threads,
            stray_threads=stray,
            mxcsr_changed=False,
        )

    def _await_sleep(self) -> None:
        """Wait until the role sleeps on the counter, so that its reply is not in the bracket."""
        path = f"/proc/{self._require().pid}/stat"
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), open(path, "rb") as file:
                if file.read(512).rpartition(b") ")[2].startswith(b"S"):
                    return
            time.sleep(2e-5)

    def _exchange(
        self, message: dict[str, Any], timeout_s: float, descriptors: Sequence[int] = ()
    ) -> dict[str, Any]:
        self.thaw()
        self._send(message, descriptors)
        return self._receive(timeout_s)

    def _send(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        self._require()
        try:
            send_message(self._connection, message, descriptors)
        except OSError as error:
            raise self._lost(f"it cannot be reached: {error}") from error

    def _receive(self, timeout_s: float) -> dict[str, Any]:
        self._await_answer(timeout_s)
        self._connection.settimeout(timeout_s)
        try:
            answer, _ = receive_message(self._connection)
        except TimeoutError as error:
            raise self._lost(f"no answer within {timeout_s:g} s") from error
        except (EOFError, OSError) as error:
            raise self._lost("it ended") from error
        finally:
            with contextlib.suppress(OSError):
                self._connection.settimeout(None)
        if "user_error" in answer:
            raise getattr(errors, answer["user_error"])(answer["sentence"])
        if "error" in answer:
            raise HarnessError(f"{answer['error']}\n{answer.get('trace', '')}".rstrip())
        return answer["reply"]

    def _await_answer(self, timeout_s: float) -> None:
        """Sleep until it answers; look now and then whether it breeds processes."""
        child = self._require()
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            if child.readable(self._connection, min(left, _LOOK_S)):
                return
            if not child.running and not child.readable(self._connection, 0):
                raise self._lost("it ended")
            if child.tasks() > self._most_tasks:
                raise self._crowded()

    @property
    def _most_tasks(self) -> int:
        return _PROCESSES + 16 * self.threads

    def _crowded(self) -> HarnessError:
        self._require().process.kill()  # at once: `_lost` waits for last words
        return self._lost(f"it started more than {self._most_tasks} threads and processes")

    def _lost(self, what: str) -> HarnessError:
        """The error for a role that cannot be used any more; closes it."""
        child = self._require()
        with contextlib.suppress(Exception):
            child.process.wait(timeout=0.5)
        code, tail = child.process.returncode, child.tail()
        self.close()
        status = "" if code is None else f" (status {code})"
        return HarnessError(f"a role process was lost: {what}{status}\n{tail}".rstrip())

    def _require(self) -> Child:
        if self._child is None:
            raise HarnessError("the role has been closed")
        return self._child

    @property
    def pid(self) -> int:
        """The role's process."""
        return self._require().pid

    def freeze(self) -> None:
        """Stop every thread of the role and wait until they are stopped."""
        self._require().freeze()

    def thaw(self) -> None:
        """Let it run again."""
        self._require().thaw()

    def close(self) -> None:
        """End the process and everything it started; safe to call twice."""
        if self._child is not None:
            self._child.close()
            self._child = None
            self._connection.close()

    def __enter__(self) -> "RoleProcess":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _limits(threads: int) -> tuple[int, int]:
    """Bytes of private memory of each process, and threads and processes of the sandbox; 0: any.

    Processes are limited inside a sandbox only: outside, the user's other processes count too.
    """
    memory = int(_MEMORY_SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return memory, _PROCESSES + 16 * threads if isolation() == "sandbox" else 0
