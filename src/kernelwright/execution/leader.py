"""The two kinds of processes that a judge holds: its own children, and a fork server's."""

import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
from collections.abc import Sequence

from kernelwright.sandbox import Tie, end_group

_STATUS = struct.Struct("i")
_END_S = 10.0


def readable(descriptors: Sequence[int], timeout_s: float | None) -> int | None:
    """The first of these that can be read, or whose other side has ended; None after a while."""
    poll = select.poll()
    for fd in descriptors:
        poll.register(fd, select.POLLIN)
    ready = dict(poll.poll(None if timeout_s is None else 1000 * max(0.0, timeout_s)))
    return next((fd for fd in descriptors if fd in ready), None)


class Started:
    """A child in a session of its own, tied to this process."""

    def __init__(self, process: subprocess.Popen[bytes], tie: Tie) -> None:
        """Both are closed by `end`."""
        self.pid = process.pid
        """Leader of its process group."""
        self.end_fd = os.pidfd_open(process.pid)
        """Readable as soon as it has ended."""
        self._process = process
        self._tie = tie

    @property
    def returncode(self) -> int | None:
        """Exit status, or the negative signal; None as long as nobody asked for it."""
        return self._process.returncode

    def poll(self) -> int | None:
        """Exit status, or the negative signal; None while it runs."""
        return self._process.poll()

    def wait(self, timeout: float | None = None) -> int:
        """Sleep until it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not within so many seconds.
        """
        return self._process.wait(timeout)

    def kill(self) -> None:
        """End its group, and reap it."""
        end_group(self._process)

    def close(self) -> None:
        """End it and all that it started; safe to call twice."""
        if self.end_fd >= 0:
            self.kill()
            self._tie.close()
            os.close(self.end_fd)
            self.end_fd = -1


class Forked:
    """The first process of the namespaces that a fork server made for one worker.

    It is nobody's child here: it says over `connection` how the worker ended, and its own end ends
    everything in its namespaces. It dies with its server, which dies with this process.
    """

    def __init__(self, pid: int, connection: socket.socket) -> None:
        """`connection` is closed by `close`."""
        self.pid = pid
        """Leader of its process group."""
        self.end_fd = connection.fileno()
        """Readable as soon as the worker has ended."""
        self.returncode: int | None = None
        """Exit status, or the negative signal; None as long as nobody asked for it."""
        self._connection = connection
        self._pidfd = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """Exit status, or the negative signal; None while it runs."""
        if self.returncode is None and self.end_fd >= 0 and readable([self.end_fd], 0):
            data = b""
            with contextlib.suppress(OSError):
                data = self._connection.recv(_STATUS.size)
            killed = len(data) != _STATUS.size  # with its namespaces
            self.returncode = -signal.SIGKILL if killed else _STATUS.unpack(data)[0]
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Sleep until it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not within so many seconds.
        """
        if self.returncode is None:
            readable([self.end_fd], timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired("a forked worker", timeout or 0)
        return code

    def kill(self) -> None:
        """End all processes in its namespaces, and wait until they are gone."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        readable([self._pidfd], _END_S)

    def close(self) -> None:
        """End it and all that it started; safe to call twice."""
        if self.end_fd >= 0:
            self.kill()
            self.poll()
            os.close(self._pidfd)
            self._connection.close()
            self.end_fd = -1


def start(
    command: Sequence[str], descriptors: Sequence[int], env: dict[str, str], output: int
) -> Started:
    """Start a child that inherits descriptors and writes to `output`.

    Raises:
        OSError: it cannot be started.
    """
    tie = Tie()
    try:
        process = subprocess.Popen(
            tie.command(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=env,
            pass_fds=[*descriptors, tie.read_fd],
            start_new_session=True,
        )
    except OSError:
        tie.close()
        raise
    tie.started()
    return Started(process, tie)


def output_file() -> int:
    """Descriptor of a memory file for what a process writes, at the end of what is there."""
    file = os.memfd_create("kernelwright-output", os.MFD_CLOEXEC)
    try:
        return os.open(f"/proc/self/fd/{file}", os.O_RDWR | os.O_APPEND)
    finally:
        os.close(file)
