"""The serving side of a Python role."""

import contextlib
import ctypes
import mmap
import os
import re
import resource
import socket
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernelwright.errors import UserError
from kernelwright.execution.clock import clock_ns
from kernelwright.execution.wire import receive_message, send_message

Handler = Callable[[dict[str, Any]], dict[str, Any]]
Timed = Callable[[], float | None]
"""What is timed; it returns nanoseconds where it has a better clock of its own."""
TimedHandler = Callable[[dict[str, Any]], Timed]
CHANNEL_VARIABLE = "KERNELWRIGHT_ROLE"

_views: dict[str, NDArray[np.uint8]] = {}
_handles: dict[str, tuple[str, int]] = {}


def arena_view(name: str, offset: int = 0, nbytes: int | None = None) -> NDArray[np.uint8]:
    """View of an attached arena; read-only when the arena was sealed before it was attached.

    Raises:
        KeyError: no arena of that name is attached.
    """
    whole = _views[name]
    return whole[offset : len(whole) if nbytes is None else offset + nbytes]


def device_arenas() -> Mapping[str, tuple[str, int]]:
    """Attached arenas that lie on a device: handle and size in bytes, by name."""
    return _handles


def serve(
    handlers: Mapping[str, Handler],
    timed: Mapping[str, TimedHandler],
    flush: Callable[[int], None],
) -> None:
    """Answer the judge until it hangs up.

    Args:
        handlers: op → function of the payload that returns the reply. What it raises becomes an
            error reply; the role goes on.
        timed: op → function of the payload that returns the callable to time.
        flush: Evicts that many bytes from the caches with the team that the callables use: a role
            with torch uses torch, so that no second OpenMP runtime comes in.
    """
    numbers = [int(number) for number in os.environ.pop(CHANNEL_VARIABLE).split(":")]
    _die_with_judge()
    with socket.socket(fileno=numbers[0]) as connection:
        connection.send(b"r")  # its credentials tell the judge which process this is
        _limit(*numbers[3:])
        server = _Server(handlers, timed, flush, *numbers[1:3])
        while True:
            try:
                message, descriptors = receive_message(connection)
            except (EOFError, ConnectionError):
                return
            answer = server.answer(message, descriptors)
            with contextlib.suppress(BrokenPipeError):
                send_message(connection, answer)
                if message["kind"] == "prepare" and "error" not in answer:
                    send_message(connection, server.run())


def _die_with_judge() -> None:
    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL


def _limit(memory_bytes: int, processes: int) -> None:
    """Limits that foreign code cannot raise again; arenas are shared and do not count."""
    wanted = {resource.RLIMIT_CORE: 0, resource.RLIMIT_DATA: memory_bytes}
    if processes:
        wanted[resource.RLIMIT_NPROC] = processes
    for what, most in wanted.items():
        hard = resource.getrlimit(what)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (least, least))


class _Server:
    def __init__(
        self,
        handlers: Mapping[str, Handler],
        timed: Mapping[str, TimedHandler],
        flush: Callable[[int], None],
        go_fd: int,
        done_fd: int,
    ) -> None:
        self._handlers = handlers
        self._timed = timed
        self._flush = flush
        self._go_fd = go_fd
        self._done_fd = done_fd
        self._prepared: Timed = _nothing

    def answer(self, message: dict[str, Any], descriptors: Sequence[int]) -> dict[str, Any]:
        """The reply to one message; what a handler raises is a reply too."""
        try:
            return self._dispatch(message, descriptors)
        except Exception as error:
            return _error_reply(error)

    def _dispatch(self, message: dict[str, Any], descriptors: Sequence[int]) -> dict[str, Any]:
        kind, op, payload = message["kind"], message.get("op", ""), message.get("payload", {})
        if kind == "request":
            return {"reply": self._handlers[op](payload)}
        if kind == "prepare":
            self._prepared = _nothing if op == "" else self._timed[op](payload)
            self._flush(int(message["flush_bytes"]))
            return {"reply": {}}
        if kind == "attach":
            remaining = iter(descriptors)
            for name, nbytes, writable, handle in payload["arenas"]:
                if handle is None:
                    _attach(name, next(remaining), nbytes, writable)
                else:
                    _handles[name] = handle, nbytes
            return {"reply": {}}
        for name in payload["names"]:
            _views.pop(name, None)
            _handles.pop(name, None)
        return {"reply": {}}

    def run(self) -> dict[str, Any]:
        """Sleep until the judge says go, time the prepared callable, say done."""
        os.eventfd_read(self._go_fd)
        try:
            before = resource.getrusage(resource.RUSAGE_SELF)
            start = clock_ns()
            own = self._prepared()
            end = clock_ns()
            after = resource.getrusage(resource.RUSAGE_SELF)
        except Exception as error:
            return _error_reply(error)
        finally:
            self._prepared = _nothing
            os.eventfd_write(self._done_fd, 1)
        reply = {
            "elapsed_ns": end - start if own is None else own,
            "minor_faults": after.ru_minflt - before.ru_minflt,
            "major_faults": after.ru_majflt - before.ru_majflt,
        }
        return {"reply": reply}


def _error_reply(error: Exception) -> dict[str, Any]:
    trace = "".join(traceback.format_exception(error, limit=-8))
    reply = {"error": f"{type(error).__name__}: {error}", "trace": trace}
    if isinstance(error, UserError):
        reply |= {"user_error": type(error).__name__, "sentence": str(error)}
    return reply


def _nothing() -> None:
    """What calibrates the handshake."""


def _attach(name: str, fd: int, nbytes: int, writable: bool) -> None:
    access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    mapping = mmap.mmap(fd, nbytes, mmap.MAP_SHARED | mmap.MAP_POPULATE, access)
    os.close(fd)
    with contextlib.suppress(OSError, ValueError):
        mapping.madvise(mmap.MADV_HUGEPAGE)
    _views[name] = np.frombuffer(mapping, np.uint8)


@contextmanager
def every_processor() -> Generator[None]:
    """Inside, this thread may run on the processors of its whole team, as `OMP_PLACES` lists them.

    A runtime of threads counts the processors that its starter may use, and torch's has bound this
    thread to one: numba ran on that one alone.
    """
    bound = os.sched_getaffinity(0)
    team = {int(number) for number in re.findall(r"\d+", os.environ.get("OMP_PLACES", ""))}
    os.sched_setaffinity(0, team or bound)
    try:
        yield
    finally:
        os.sched_setaffinity(0, bound)
