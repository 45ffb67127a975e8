"""What a worker and a role have in common: a process that is waited for, stopped and ended."""

import array
import contextlib
import os
import re
import select
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from kernelwright.errors import HarnessError
from kernelwright.execution.leader import Forked, Started, output_file, start
from kernelwright.model import Host
from kernelwright.sandbox import processes_beside, real_paths

FIRST_LOOK_MS = 50
"""How long a wait is not interrupted."""
_NEXT_LOOK_MS = 250
_LONGEST_REST_S, _LOOK_S = 5e-3, 1e-4
_ALL_THREADS = 2
"""CPUCLOCK_SCHED of `linux/posix-timers.h`: the scheduler's clock of a whole process."""


@lru_cache(maxsize=8)
def places(threads: int) -> str:
    """One processor for each thread as `OMP_PLACES`, whole cores before their second threads.

    The processors are spelt out: inside the sandbox a runtime cannot find the cores itself.
    """
    allowed = sorted(os.sched_getaffinity(0))

    def rank(cpu: int) -> tuple[int, int]:
        path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            siblings = re.findall(r"\d+", path.read_text())
        except OSError:
            siblings = []
        first = [int(sibling) for sibling in siblings if int(sibling) < cpu]
        return len(first), cpu

    chosen = sorted(allowed, key=rank)[:threads]
    return ",".join(f"{{{cpu}}}" for cpu in chosen)


def role_environment(threads: int, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment of every timed process: a fixed team whose threads wait awake, if not for long.

    As they do by default (libgomp: 300,000 turns, LLVM: 200 ms), shortened to 0.2 ms: beside other
    processes, who has waited awake for long gets no processor when it is time. LLVM before 19 knows
    no microseconds and waits awake for longer, which counts as time of its kernels.
    """
    return {
        "PATH": "/usr/bin:/bin",
        "LC_ALL": "C.UTF-8",
        "OMP_NUM_THREADS": str(threads),
        "OMP_THREAD_LIMIT": str(max(threads, 1)),
        "OMP_DYNAMIC": "false",
        # each thread on a core of its own: a woken team may otherwise share one for milliseconds
        "OMP_PROC_BIND": "true",
        "OMP_PLACES": places(threads),
        "GOMP_SPINCOUNT": "4000",
        "KMP_BLOCKTIME": "200us",
        "KMP_WARNINGS": "0",
        "MKL_NUM_THREADS": str(threads),
        "MKL_DYNAMIC": "false",
        "OPENBLAS_NUM_THREADS": "1",
        **(extra or {}),
    }


def _state(path: str) -> str:
    """The one-letter state of a task; Z for one that is gone."""
    try:
        with open(path, "rb") as file:
            return chr(file.read(512).rpartition(b") ")[2][0])
    except (OSError, IndexError):
        return "Z"


def settle_account(task: int) -> None:
    """Have the system write down what a thread has used, also since the last tick.

    Its account lags behind by milliseconds while it runs on another processor. Whenever its policy
    changes it is brought up to date; the policy is put back at once.
    """
    with contextlib.suppress(OSError):
        for policy in (os.SCHED_BATCH, os.SCHED_OTHER):
            os.sched_setscheduler(task, policy, os.sched_param(0))


@dataclass(slots=True)
class Child:
    """A process in a session of its own, its output in a memory file of bounded size.

    `pid` is the process that does the work: the leader itself, or the one inside the sandbox.
    """

    process: Started | Forked
    output_fd: int
    go_fd: int
    done_fd: int
    pid: int = 0
    frozen: bool = False
    _descriptors: list[int] = field(default_factory=list[int])
    _poll: select.poll = field(default_factory=select.poll)

    def __post_init__(self) -> None:
        self._descriptors = [self.output_fd, self.go_fd, self.done_fd]
        self._poll.register(self.done_fd, select.POLLIN)
        self._poll.register(self.process.end_fd, select.POLLIN)
        self.pid = self.pid or self.process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def go(self) -> None:
        """Wake the child."""
        os.eventfd_write(self.go_fd, 1)

    def wait(self, timeout_s: float, most_tasks: int = 1 << 30) -> str:
        """Sleep until the child has answered: `done`, `ended`, `timeout` or `crowd`.

        A wait that lasts is interrupted a few times a second to count the child's tasks.
        """
        deadline = time.monotonic() + timeout_s
        pause = min(FIRST_LOOK_MS, timeout_s * 1000)
        while True:
            ready = self._poll.poll(pause)
            if any(fd == self.done_fd for fd, _ in ready):
                os.eventfd_read(self.done_fd)
                return "done"
            if ready:
                return "ended"
            left = deadline - time.monotonic()
            if left <= 0:
                return "timeout"
            if self.tasks() > most_tasks:
                return "crowd"
            pause = min(_NEXT_LOOK_MS, left * 1000 + 1)

    def readable(self, connection: socket.socket, timeout_s: float) -> bool:
        """Sleep until a socket can be read, or the child has ended, which closes no socket.

        (The shell that ties it to us holds what it inherits.)
        """
        poll = select.poll()
        for fd in (connection.fileno(), self.process.end_fd):
            poll.register(fd, select.POLLIN)
        return any(fd == connection.fileno() for fd, _ in poll.poll(1000 * timeout_s))

    @property
    def cpu_clock(self) -> int:
        """The system's clock of the processor time of all its threads."""
        return (~self.pid << 3) | _ALL_THREADS

    def cpu_ns(self) -> int:
        """Processor time of all its threads so far, by the system's account.

        Raises:
            ProcessLookupError: it is gone.
        """
        for task in self.task_numbers():
            settle_account(task)
        try:
            return time.clock_gettime_ns(self.cpu_clock)
        except OSError as error:
            raise ProcessLookupError(f"process {self.pid} is gone") from error

    def task_numbers(self) -> list[int]:
        """Its threads, in our numbering."""
        return [int(task) for task in _entries(f"/proc/{self.pid}/task")]

    def runnable_ns(self) -> dict[str, int]:
        """How long each of its threads ran or waited to so far, by the system's account."""
        folder, found = f"/proc/{self.pid}/task", dict[str, int]()
        for task in _entries(folder):
            with contextlib.suppress(OSError, ValueError):
                account = Path(folder, task, "schedstat").read_text()
                found[task] = sum(map(int, account.split()[:2]))
        return found

    def tasks(self) -> int:
        """Threads of the working process at this moment, plus other processes beside it.

        Other processes can be seen where it has a process namespace of its own.
        """
        threads = len(_entries(f"/proc/{self.pid}/task"))
        if self.pid == self.process.pid:
            return threads
        return threads + max(
            0, processes_beside(self.pid) - 2
        )  # the sandbox's own first process, and the worker

    def rest(self) -> None:
        """Wait until every thread sleeps: a team waits awake a while. Milliseconds at most."""
        deadline = time.monotonic() + _LONGEST_REST_S
        folder = f"/proc/{self.pid}/task"
        for task in _entries(folder):
            while _state(f"{folder}/{task}/stat") == "R" and time.monotonic() < deadline:
                time.sleep(_LOOK_S)

    def freeze(self) -> None:
        """Stop the whole process group and wait until every thread has stopped.

        Raises:
            HarnessError: it does not stop within ten seconds.
        """
        self._signal(signal.SIGSTOP)
        self.frozen = True
        deadline = time.monotonic() + 10
        folder = f"/proc/{self.pid}/task"
        for task in _entries(folder):
            while _state(f"{folder}/{task}/stat") not in "TtZX":
                if time.monotonic() > deadline:
                    raise HarnessError(f"process {self.pid} does not stop")
                time.sleep(2e-5)

    def thaw(self) -> None:
        """Let the process group run again."""
        if self.frozen:
            self._signal(signal.SIGCONT)
            self.frozen = False

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)

    def tail(self, nbytes: int = 2000) -> str:
        """The end of what the child wrote to standard output and error."""
        if not self._descriptors:
            return ""
        size = os.fstat(self.output_fd).st_size
        text = os.pread(self.output_fd, nbytes, max(0, size - nbytes))
        return text.decode(errors="replace").strip()

    def output_bytes(self) -> int:
        """How much the child has written."""
        return os.fstat(self.output_fd).st_size if self._descriptors else 0

    def close(self) -> None:
        """Kill the group, reap the child, close every descriptor."""
        if self._descriptors:
            self.process.close()
            _remove_registration(self.pid)
            for fd in self._descriptors:
                os.close(fd)
            self._descriptors = []


def _remove_registration(pid: int) -> None:
    """LLVM's OpenMP registers itself in shared memory and cannot tidy up when it is killed."""
    with contextlib.suppress(OSError):
        os.unlink(f"/dev/shm/__KMP_REGISTERED_LIB_{pid}_{os.getuid()}")


def _entries(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def spawn(
    command: Sequence[str], descriptors: Sequence[int], env: Mapping[str, str], fds: "Channel"
) -> Child:
    """Start a child that inherits `descriptors` and the two event counters.

    Raises:
        HarnessError: it cannot be started.
    """
    output = output_file()
    try:
        process = start(command, [*descriptors, fds.go, fds.done], dict(env), output)
    except OSError as error:
        os.close(output)
        fds.close()
        raise HarnessError(f"{command[0]} cannot be started: {error}") from error
    return Child(process, output, fds.go, fds.done)


@dataclass(frozen=True, slots=True)
class Channel:
    """Two event counters: the judge says go, the child says done; both sleep on them."""

    go: int
    done: int

    @classmethod
    def open(cls) -> "Channel":
        """A fresh pair."""
        return cls(os.eventfd(0, os.EFD_CLOEXEC), os.eventfd(0, os.EFD_CLOEXEC))

    def close(self) -> None:
        """Close both."""
        os.close(self.go)
        os.close(self.done)


@lru_cache(maxsize=8)
def shared_libraries(program: str) -> tuple[str, ...]:
    """Paths of the loader and the libraries that a trusted program of ours loads.

    Raises:
        HarnessError: the loader refuses the program.
    """
    done = subprocess.run(
        [program], env={"LD_TRACE_LOADED_OBJECTS": "1"}, capture_output=True, text=True, check=False
    )
    words = [word for line in done.stdout.splitlines() for word in line.split()]
    if "not found" in done.stdout or not words:
        raise HarnessError(f"{program} cannot be loaded: {done.stdout}{done.stderr}")
    return tuple(dict.fromkeys(word for word in words if word.startswith("/")))


def host_files(host: Host, *artifacts: Path) -> tuple[Path, ...]:
    """All that a worker sees of the file system: host, artifacts and the libraries they load.

    The vector mathematics library and both OpenMP runtimes are there whoever links them, so that
    an artifact with the wrong one is told that it is not parallel rather than not loadable.
    """
    libraries = shared_libraries(host.command[0])
    folders = dict.fromkeys(Path(path).parent for path in libraries)
    extra = [d / n for d in folders for n in ("libmvec.so.1", "libgomp.so.1", "libomp.so.5")]
    return real_paths([host.command[0], *artifacts, *libraries, *extra, *host.visible])


def first_sender(ours: socket.socket) -> int:
    """Process id, in our numbering, of the one who sends the first byte; 0 when nobody does.

    The socket must have SO_PASSCRED.
    """
    size = struct.calcsize("3i")
    try:
        _, ancillary, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(size))
    except OSError:
        return 0
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            return array.array("i", data[:size])[0]
    return 0
