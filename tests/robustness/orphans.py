"""Starts short process trees, kills their starter at moments that are swept, and says what is left.

    python orphans.py compiler|worker|frozen|server|forked TRIES CACHE

A program of its own, because it adopts orphans and forks.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

sys.path += [str(Path(__file__).parent), str(Path(__file__).parent.parent / "unit")]

from execution_support import THREADS, built, source, started, toolchains
from faults import descendants
from kills import orphans_adopted, reap

from kernelwright.build import PythonBuilder
from kernelwright.execution import Arena, Limits, Worker
from kernelwright.execution.fork_server import close_fork_servers
from kernelwright.model import Candidate, Dtype, Signature, TensorArgument
from kernelwright.sandbox import View, run_confined

_LAST_MS = 12.0
"""Both of bubblewrap's processes have asked to die with their parents by then."""
_PATIENCE_S = 20.0


def holders(name: str) -> list[str]:
    """Processes that map or hold open a memory file whose name contains this."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            links = [os.readlink(link) for link in (process / "fd").iterdir()]
            links.append((process / "maps").read_text())
        except OSError:
            continue
        if any(f"memfd:kernelwright-{name}" in link for link in links):
            found.append(process.name)
    return found


def die_after(milliseconds: float) -> None:
    """Kill this process so long after it has started its next one."""
    start = subprocess.Popen.__init__

    def killed(process, *arguments, **options):
        start(process, *arguments, **options)
        time.sleep(milliseconds / 1000)
        os.kill(os.getpid(), signal.SIGKILL)

    subprocess.Popen.__init__ = killed


def forked(cache: Path, arenas: list[Arena]) -> Worker:
    """A worker of a Python kernel, by way of a fork server."""
    builder = PythonBuilder(toolchains(), cache)
    artifact = builder.build(Candidate("python", "kernel", "def kernel(x, *, N): pass\n"))
    signature = Signature((), (TensorArgument("x", ("N",)),))
    host = builder.host(artifact, signature, Dtype.F32)
    return Worker.start(artifact.path, "kernel", host, arenas, THREADS, Limits())


def main(kind: str, tries: int, cache: Path) -> None:
    """Print one line for each try after which something was left."""
    artifact = built(cache, source("return 0;"))
    with Arena("warm", 4096) as arena:
        started(artifact, [arena], cache).close()  # everything is built
        if kind in ("server", "forked"):
            forked(cache, [arena]).close()
            close_fork_servers()
    with orphans_adopted():
        for number in range(tries):
            name = f"lost{os.getpid()}x{number}"
            moment = _LAST_MS * number / tries
            child = os.fork()
            if child == 0:
                os.setsid()
                with Arena(name, 1 << 20) as arena:
                    if kind == "frozen":
                        started(artifact, [arena], cache).freeze()
                        os.kill(os.getpid(), signal.SIGKILL)
                    if kind == "forked":
                        forked(cache, [arena]).freeze()
                        os.kill(os.getpid(), signal.SIGKILL)
                    die_after(moment)
                    if kind == "server":
                        forked(cache, [arena])
                    if kind == "worker":
                        started(artifact, [arena], cache)
                    else:
                        run_confined(["sleep", "60"], View(system=True), 60)
            os.waitpid(child, 0)
            end = time.monotonic() + _PATIENCE_S
            while (left := descendants() or holders(name)) and time.monotonic() < end:
                time.sleep(0.005)
                reap()
            if left:
                print(f"{len(left)} left after {moment:.1f} ms", flush=True)
                for pid in descendants():
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
