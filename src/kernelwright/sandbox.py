"""Confining hostile processes: bubblewrap where it works, sessions and limits everywhere.

Both the compilers (which read hostile source) and the workers (which run hostile code) start
here. Without bubblewrap, or where user namespaces are not permitted, only process limits remain;
`isolation()` says which.
"""

import contextlib
import os
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

_SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/etc/alternatives", "/etc/ld.so.cache")
_LIMITED = 'ulimit -c 0; ulimit -v "$1"; ulimit -t "$2"; ulimit -f "$3"; shift 3; exec "$@"'


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


@dataclass(frozen=True, slots=True)
class View:
    """What a confined process sees of the file system; everything else does not exist."""

    read_only: tuple[Path, ...] = ()
    writable: tuple[Path, ...] = ()
    system: bool = False
    """Also /usr and what belongs to it, and a small /tmp: for compilers."""
    folder: Path = field(default=Path("/"))
    """Working folder."""


def confine(command: Sequence[str], view: View) -> list[str]:
    """The command line that runs `command` with only `view` to see: no network, no home.

    Where `isolation()` is `process` the command itself, unchanged.
    """
    if isolation() == "process":
        return list(command)
    arguments = [_bubblewrap() or "bwrap", "--unshare-all", "--die-with-parent"]
    if view.system:
        for path in _SYSTEM:
            arguments += ["--ro-bind-try", path, path]
        arguments += ["--dev", "/dev", "--size", str(1 << 30), "--tmpfs", "/tmp"]
    else:
        arguments += ["--dir", "/dev", "--dev-bind", "/dev/null", "/dev/null"]
        arguments += ["--dev-bind", "/dev/urandom", "/dev/urandom"]
        arguments += ["--size", str(1 << 16), "--tmpfs", "/dev/shm"]  # LLVM's OpenMP wants it
    arguments += ["--proc", "/proc"]
    for path in view.read_only:
        arguments += ["--ro-bind", str(path), str(path)]
    for path in view.writable:
        arguments += ["--bind", str(path), str(path)]
    return [*arguments, "--remount-ro", "/", "--chdir", str(view.folder), "--", *command]


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
) -> Outcome:
    """Run a command to its end with limits on time, address space and file sizes.

    Raises:
        OSError: it cannot be started at all.
    """
    file_blocks = (256 << 20) // 512
    limits = [str(memory_bytes >> 10), str(int(2 * timeout_s) + 1), str(file_blocks)]
    wrapped = ["/bin/sh", "-c", _LIMITED, "sh", *limits, *confine(command, view)]
    started = time.monotonic()
    with open(os.memfd_create("kernelwright-output", os.MFD_CLOEXEC), "r+b", buffering=0) as output:
        process = subprocess.Popen(
            wrapped,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=view.folder,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TMPDIR": "/tmp", **(env or {})},
            start_new_session=True,
        )
        code: int | None = None
        try:
            code = process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            end_group(process)
        seconds = time.monotonic() - started
        output.seek(0)
        text = output.read(1 << 16).decode(errors="replace")
    return Outcome(code, text, seconds)


def real_paths(paths: Iterable[str | Path]) -> tuple[Path, ...]:
    """Existing paths, without repetition, in order."""
    return tuple(dict.fromkeys(Path(p) for p in paths if os.path.exists(p)))
