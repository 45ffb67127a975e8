"""Confining hostile processes: bubblewrap where it works, sessions and limits everywhere.

The compilers (which read hostile source), the workers (which run hostile code) and the Python
processes that import a user's file start here. Without bubblewrap, or where user namespaces are
not permitted, only process limits remain; `isolation()` says which.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

Isolation = Literal["sandbox", "process"]

_SYSTEM = (
    *(f"/usr/{name}" for name in ("bin", "sbin", "lib", "lib32", "lib64", "libexec", "include")),
    *(f"/usr/local/{name}" for name in ("bin", "lib", "lib64", "libexec", "include")),
    *("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/alternatives", "/etc/ld.so.cache"),
)
"""Programs, libraries and headers. Not all of /usr: its `local/etc`, `src` and `share` are where a
machine keeps texts of its own."""
_LIMITED = 'ulimit -c 0; ulimit -v "$1"; ulimit -t "$2"; ulimit -f "$3"; shift 3; exec "$@"'
_FEW_PROCESSES = '{ ulimit -u "$1" || ulimit -p "$1"; } 2>/dev/null; shift; exec "$@"'
_TIED = (
    'setsid /bin/sh -c \'read gone; kill -KILL -"$1"\' sh $$ <"/proc/self/fd/$1" >/dev/null 2>&1 & '
    'shift; exec "$@" </dev/null'
)
_WATCH_S = 0.05


@lru_cache(maxsize=1)
def _bubblewrap() -> str | None:
    path = shutil.which("bwrap")
    if path is None:
        return None
    trial = [path, "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/"]
    trial += ["--proc", "/proc", "true"]
    try:
        done = subprocess.run(trial, capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return path if done.returncode == 0 else None


def isolation() -> Isolation:
    """How hostile processes are confined here.

    `KERNELWRIGHT_ISOLATION=process` in the environment turns bubblewrap off.
    """
    if os.environ.get("KERNELWRIGHT_ISOLATION") == "process":
        return "process"
    return "sandbox" if _bubblewrap() else "process"


def isolation_note(level: str) -> str:
    """What a level of isolation does not withstand, for every result; empty for `sandbox`."""
    if level == "sandbox":
        return ""
    return (
        "isolation is `process`: kernels, compilers and problem files can read what this user can "
        "read, compilers and problem files also reach the network, and nothing stops a fork bomb "
        "in them; install bubblewrap and permit user namespaces for `sandbox`"
    )


@dataclass(frozen=True, slots=True)
class View:
    """What a confined process sees of the file system; everything else does not exist."""

    read_only: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()
    """Folders inside readable ones that look empty, but for what is readable inside them."""
    writable: tuple[Path, ...] = ()
    devices: tuple[Path, ...] = ()
    """Device files that it may read and write, such as those of a GPU."""
    system: bool = False
    """Also programs, libraries and headers of the system, and a private /tmp: for compilers."""
    scratch_bytes: int = 1 << 30
    """How much /tmp holds, in memory."""
    folder: Path = field(default=Path("/"))
    """Working folder."""
    separates: bool = False
    """It may make namespaces in its sandbox: a process of ours that runs nothing of anybody
    else's, and whose children keep no capability."""


def confine(command: Sequence[str], view: View, info_fd: int | None = None) -> list[str]:
    """The command line that runs `command` with only `view` to see: no network, no home.

    Where `isolation()` is `process` the command itself, unchanged.

    Args:
        command: program and arguments.
        view: what it sees.
        info_fd: where bubblewrap writes the number of its first process, as `first_process` reads.
    """
    if isolation() == "process":
        return list(command)
    arguments = [_bubblewrap() or "bwrap", "--unshare-all", "--die-with-parent"]
    if info_fd is not None:
        arguments += ["--info-fd", str(info_fd)]
    if view.separates:
        arguments += ["--cap-drop", "ALL", "--cap-add", "CAP_SYS_ADMIN"]
    if view.system:
        for path in _SYSTEM:
            arguments += ["--ro-bind-try", path, path]
        arguments += ["--dev", "/dev", "--size", str(view.scratch_bytes), "--tmpfs", "/tmp"]
    else:
        arguments += ["--dir", "/dev", "--dev-bind", "/dev/null", "/dev/null"]
        arguments += ["--dev-bind", "/dev/urandom", "/dev/urandom"]
        arguments += ["--size", str(1 << 16), "--tmpfs", "/dev/shm"]  # LLVM's OpenMP wants it
    arguments += ["--proc", "/proc"]
    arguments += _mounts(view)
    for path in view.devices:
        arguments += ["--dev-bind", str(path), str(path)]
    for path in view.writable:
        arguments += ["--bind", str(path), str(path)]
    return [*arguments, "--remount-ro", "/", "--chdir", str(view.folder), "--", *command]


def _mounts(view: View) -> list[str]:
    """Readable and hidden paths, outer ones first; what an outer one shows needs no mount."""
    wanted = dict.fromkeys(view.read_only, True) | dict.fromkeys(view.hidden, False)
    mounted: dict[Path, bool] = {}
    arguments: list[str] = []
    for path in sorted(wanted, key=lambda path: len(path.parts)):
        outer = next((parent for parent in path.parents if parent in mounted), None)
        shown = outer is not None and mounted[outer]
        if shown == wanted[path]:
            continue
        mounted[path] = wanted[path]
        if wanted[path]:
            arguments += ["--ro-bind", str(path), str(path)]
        else:
            arguments += ["--size", str(1 << 16), "--tmpfs", str(path)]
    for path in (path for path, is_shown in mounted.items() if not is_shown):
        arguments += ["--remount-ro", str(path)]
    return arguments


class Tie:
    """Ends a process group with whoever started it, however that one ends.

    Bubblewrap asks the system to be killed with its parent, but each of its processes asks a few
    milliseconds after it was started; what loses its parent before lives on. So a shell reads a
    pipe that only the starter can write to: where that ends, it kills the group. It has a session
    of its own, or it would be stopped whenever the group is.
    Usable as a context manager, which ends the group too.
    """

    def __init__(self) -> None:
        self.read_fd, self._write_fd = os.pipe()

    def command(self, command: Sequence[str]) -> list[str]:
        """The command line for a process in a group of its own that inherits `read_fd`."""
        return ["/bin/sh", "-c", _TIED, "sh", str(self.read_fd), *command]

    def started(self) -> None:
        """The process is there and has inherited its end of the pipe."""
        if self.read_fd >= 0:
            os.close(self.read_fd)
            self.read_fd = -1

    def close(self) -> None:
        """End the group; safe to call twice."""
        self.started()
        if self._write_fd >= 0:
            os.close(self._write_fd)
            self._write_fd = -1

    def __enter__(self) -> "Tie":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process started in its own session with all that is in its group, and reap it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=10)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a confined command ended."""

    code: int | None
    """Exit status (negative: the signal); None when the time ran out."""
    output: str
    """Standard output and error, at most the first 64 KiB."""
    seconds: float


def run_confined(
    command: Sequence[str],
    view: View,
    timeout_s: float,
    memory_bytes: int = 8 << 30,
    env: Mapping[str, str] | None = None,
    processes: int = 256,
) -> Outcome:
    """Run a command to its end with limits on time, address space, file sizes and processes.

    In a sandbox RLIMIT_NPROC counts the processes of that sandbox alone, but never binds a
    superuser; there they are counted twenty times a second, and too many end them all.

    Args:
        command: program and arguments.
        view: what it sees; its working folder.
        timeout_s: longest time.
        memory_bytes: address space of each process.
        env: added to a minimal environment.
        processes: most at once; only where `isolation()` is `sandbox`.

    Raises:
        OSError: it cannot be started at all.
    """
    file_blocks = (256 << 20) // 512
    limits = [str(memory_bytes >> 10), str(int(2 * timeout_s) + 1), str(file_blocks)]
    sandboxed = isolation() == "sandbox" and view.system
    if sandboxed:
        command = ["/bin/sh", "-c", _FEW_PROCESSES, "sh", str(processes), *command]
    started = time.monotonic()
    info = os.memfd_create("kernelwright-info", os.MFD_CLOEXEC)
    with (
        Tie() as tie,
        open(info, "r+b", buffering=0),
        open(os.memfd_create("kernelwright-output", os.MFD_CLOEXEC), "r+b", buffering=0) as output,
    ):
        confined = confine(command, view, info if sandboxed else None)
        process = subprocess.Popen(
            tie.command(["/bin/sh", "-c", _LIMITED, "sh", *limits, *confined]),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=view.folder,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TMPDIR": "/tmp", **(env or {})},
            pass_fds=[info, tie.read_fd],
            start_new_session=True,
        )
        try:
            tie.started()
            crowded = _watch(process, info, started + timeout_s, processes)
            code = process.poll()
        finally:
            end_group(process)
        seconds = time.monotonic() - started
        output.seek(0)
        text = output.read(1 << 16).decode(errors="replace")
    if crowded:
        text += f"\nstopped: more than {processes} processes at once"
    return Outcome(code, text, seconds)


def _watch(process: subprocess.Popen[bytes], info: int, deadline: float, most: int) -> bool:
    """Wait for the end or the deadline; True as soon as the sandbox holds too many processes."""
    pidfd = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            if poll.poll(1000 * min(left, _WATCH_S) + 1):
                return False
            first = first_process(info)
            if first and processes_beside(first) > most:
                return True
        return False
    finally:
        os.close(pidfd)


def first_process(info_fd: int) -> int:
    """Our number of a sandbox's first process, from what bubblewrap wrote; 0 while unknown."""
    try:
        return int(json.loads(os.pread(info_fd, 1 << 12, 0))["child-pid"])
    except ValueError:
        return 0


def processes_beside(pid: int) -> int:
    """How many processes share the process namespace of this one, where that is its own."""
    try:
        return sum(name.isdigit() for name in os.listdir(f"/proc/{pid}/root/proc"))
    except OSError:
        return 0


def compiler_prefix(path: str) -> tuple[Path, ...]:
    """Folders outside /usr that the compiler at `path` needs, such as a conda environment."""
    prefixes = {Path(p).parent.parent for p in (os.path.abspath(path), os.path.realpath(path))}
    outside = [p for p in prefixes if p.parts[1:2] not in (("usr",), ("bin",), ())]
    return tuple(p for p in outside if not holds_home(p))


def holds_home(folder: Path) -> bool:
    """Whether the user's home is this folder, or lies in it."""
    home = Path.home()
    return folder.resolve() in {p.resolve() for p in (home, *home.parents)}


def real_paths(paths: Iterable[str | Path]) -> tuple[Path, ...]:
    """Existing paths, without repetition, in order."""
    return tuple(dict.fromkeys(Path(p) for p in paths if os.path.exists(p)))
