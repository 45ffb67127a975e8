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

from kernelwright.errors import HarnessError
from kernelwright.execution.arena import Arena
from kernelwright.execution.process import Channel, Child, clock_ns, role_environment, spawn
from kernelwright.execution.report import CallReport
from kernelwright.execution.serve import CHANNEL_VARIABLE
from kernelwright.execution.wire import MOST_DESCRIPTORS, receive_message, send_message

_CALIBRATION_CALLS = 9
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 40), "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
"""Never give memory back, so that a reference's intermediates do not fault at each call."""


class RoleProcess:
    """A process running `python -m MODULE ARGUMENTS…`, whose main calls `serve`.

    Requests are length-prefixed JSON over a socket; arenas travel as file descriptors. Usable as
    a context manager, which closes it. A role dies with the thread that started it.
    """

    def __init__(self, child: Child, connection: socket.socket, threads: int) -> None:
        """Not for callers: see `start`."""
        self.threads = threads
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
        start_s: float = 120.0,
    ) -> "RoleProcess":
        """Start the role and wait until it serves.

        Args:
            module: Python module to run.
            arguments: Its command line.
            arenas: Visible at once to `arena_view` there.
            env: Added to this process's environment and that of every role.
            threads: OpenMP team; default: the cores of this process's affinity.
            start_s: Longest wait until it serves.

        Raises:
            HarnessError: it died or did not answer; the message ends with its standard error.
        """
        threads = threads or len(os.sched_getaffinity(0))
        ours, theirs = socket.socketpair()
        with theirs:
            channel = Channel.open()
            numbers = f"{theirs.fileno()}:{channel.go}:{channel.done}"
            extra = {**_KEEP_MEMORY, CHANNEL_VARIABLE: numbers, **(env or {})}
            environment = {**os.environ, **role_environment(threads, extra)}
            environment["PATH"] = os.environ.get("PATH", os.defpath)
            environment.pop("OMP_THREAD_LIMIT")
            path = os.pathsep.join(entry for entry in sys.path if entry)
            environment["PYTHONPATH"] = path
            command = [sys.executable, "-m", module, *arguments]
            try:
                child = spawn(command, [theirs.fileno()], environment, channel)
            except HarnessError:
                ours.close()
                raise
        role = cls(child, ours, threads)
        try:
            role._exchange({"kind": "detach", "payload": {"names": []}}, start_s)
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
            listed = [[arena.name, arena.nbytes, not arena.sealed] for arena in group]
            message = {"kind": "attach", "payload": {"arenas": listed}}
            self._exchange(message, 60.0, [arena.fd for arena in group])

    def detach(self, names: Sequence[str]) -> None:
        """Forget arenas in the role; memory returns when no view is left there."""
        self._exchange({"kind": "detach", "payload": {"names": list(names)}}, 60.0)

    def request(
        self, op: str, payload: Mapping[str, Any] | None = None, timeout_s: float = 60.0
    ) -> dict[str, Any]:
        """Run `handlers[op](payload)` there and return its reply (JSON values).

        Raises:
            HarnessError: the role died, timed out, or replied with an error.
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
        outcome = child.wait(timeout_s)
        end = clock_ns()
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
        if "error" in answer:
            raise HarnessError(f"{answer['error']}\n{answer.get('trace', '')}".rstrip())
        return answer["reply"]

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
