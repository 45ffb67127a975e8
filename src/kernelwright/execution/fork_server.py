"""Fork servers: processes of ours in which all is loaded that is slow to load; they fork workers.

A server runs nothing of a candidate and holds nothing of one: it is sent one connection for each
worker, forks, and goes on. What the worker is to do goes over that connection, to the worker. The
worker has namespaces of its own beneath the server's sandbox, and no capability.
"""

import json
import os
import socket
import threading
import warnings
import weakref
from collections.abc import Hashable, Mapping, Sequence

from kernelwright.errors import HarnessError
from kernelwright.execution.leader import Forked, Started, output_file, readable, start
from kernelwright.execution.process import Channel, Child, first_sender, host_files
from kernelwright.execution.wire import MOST_DESCRIPTORS
from kernelwright.model import Host
from kernelwright.sandbox import View, confine, isolation

_START_S = 120.0
_STANDARD_OUTPUT = 1
_MOST_FAILURES = 2


class ForkServer:
    """A sandboxed process that forks workers for the thread that started it, and dies with it."""

    def __init__(self, process: Started, connection: socket.socket) -> None:
        """Not for callers: see `start`."""
        self._process = process
        self._connection = connection
        self.close = weakref.finalize(self, _end, process, connection, os.getpid())
        """End it, and all workers that it has forked; safe to call twice."""

    @classmethod
    def start(cls, host: Host, environment: Mapping[str, str]) -> "ForkServer":
        """Start the server of a host and wait until it can fork.

        Raises:
            HarnessError: it cannot; the message ends with what it said.
        """
        seen = host_files(host)
        view = View(read_only=seen, hidden=host.hidden, devices=host.devices, separates=True)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        output = output_file()
        try:
            with theirs:
                number = theirs.fileno()
                command = confine([*host.server, str(number)], view)
                process = start(command, [number], dict(environment), output)
            if readable([ours.fileno(), process.end_fd], _START_S) != ours.fileno():
                process.close()
                said = os.pread(output, 2000, 0).decode(errors="replace").strip()
                raise HarnessError(f"a fork server did not start: {said}")
            ours.recv(1)
        except BaseException as error:
            ours.close()
            if isinstance(error, OSError):
                raise HarnessError(f"a fork server cannot be started: {error}") from error
            raise
        finally:
            os.close(output)
        return cls(process, ours)

    @property
    def alive(self) -> bool:
        """Whether it can fork."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """The leader of its process group."""
        return self._process.pid

    def fork(
        self,
        words: Sequence[str],
        descriptors: Sequence[int],
        ends: tuple[socket.socket, socket.socket],
        channel: Channel,
        timeout_s: float,
    ) -> Child:
        """Fork a worker.

        Args:
            words: what `Host.command` and the protocol say after the words that the server got.
            descriptors: those named in `words` beside the last one of `ends` and the counters;
                they have the same numbers in the worker, which has no others.
            ends: a pair of sockets; the worker greets over the second one, which is closed here.
            channel: the two event counters.
            timeout_s: longest wait for the process, which may not have greeted then.

        Raises:
            HarnessError: the server is gone, or no process came.
        """
        ours, theirs = ends
        output = output_file()
        try:
            lent = {fd: fd for fd in (*descriptors, channel.go, channel.done)}
            lent |= {output: _STANDARD_OUTPUT}
            numbers = [*lent.values(), theirs.fileno()]
            with theirs:
                socket.send_fds(self._connection, [b"f"], [theirs.fileno()])
                _send_work(ours, words, numbers, list(lent))
            ready = readable([ours.fileno(), self._process.end_fd], timeout_s)
            first = first_sender(ours) if ready == ours.fileno() else 0
            if not first:
                raise HarnessError("the fork server is gone" if ready else "it forks nothing")
            return Child(Forked(first, ours.dup()), output, channel.go, channel.done)
        except BaseException as error:
            os.close(output)
            channel.close()
            if isinstance(error, OSError):
                raise HarnessError(f"the fork server is gone: {error}") from error
            raise


def _send_work(
    ours: socket.socket, words: Sequence[str], numbers: list[int], descriptors: list[int]
) -> None:
    text = json.dumps({"words": list(words), "descriptors": numbers})
    with open(os.memfd_create("kernelwright-work", os.MFD_CLOEXEC), "w+b") as file:
        file.write(text.encode())
        file.seek(0)
        socket.send_fds(ours, [b"w"], [file.fileno()])
    for first in range(0, len(descriptors), MOST_DESCRIPTORS):
        socket.send_fds(ours, [b"d"], descriptors[first : first + MOST_DESCRIPTORS])


def _end(process: Started, connection: socket.socket, owner: int) -> None:
    if os.getpid() == owner:  # and not a process that was forked from it
        process.close()
        connection.close()


class _Servers(threading.local):
    """Those of one thread: they die with it."""

    def __init__(self) -> None:
        self.running: dict[Hashable, ForkServer] = {}
        self.failures: dict[Hashable, int] = {}


_servers = _Servers()


def fork_server(host: Host, environment: Mapping[str, str]) -> ForkServer | None:
    """This thread's server for a host; None where each worker has to load everything itself.

    That is so where the host has none, where there is no sandbox, and where namespaces cannot be
    made inside of one (a warning says why).
    """
    if not host.server or isolation() != "sandbox":
        return None
    variables = tuple(sorted(environment.items()))
    key = os.getpid(), host.server, host.visible, host.hidden, variables
    server = _servers.running.get(key)
    if server is not None and server.alive:
        return server
    _servers.running.pop(key, None)
    if _servers.failures.get(key, 0) >= _MOST_FAILURES:
        return None
    try:
        server = _servers.running[key] = ForkServer.start(host, environment)
    except HarnessError as error:
        _servers.failures[key] = _servers.failures.get(key, 0) + 1
        warnings.warn(f"each worker loads its own interpreter: {error}", stacklevel=2)
        return None
    return server


def close_fork_servers() -> None:
    """End this thread's servers, and with them the workers that they forked."""
    while _servers.running:
        _servers.running.popitem()[1].close()
