"""What the tests of building and running share: compilers, caches, small kernels."""

import os
from functools import lru_cache
from pathlib import Path

from kernelwright.build import Artifact, CppBuilder, build_clock, build_runtime, discover_toolchains
from kernelwright.execution import Arena, Call, CallReport, Failure, Limits, Pointer, Worker
from kernelwright.model import Candidate, FrozenMap, Host, Toolchain

THREADS = 2
SHORT = Limits(call_s=1.0, start_s=10.0, memory_bytes=1 << 30)
PROTOTYPE = (
    'extern "C" int kernel(const float* x, float* y, int64_t n, const void*, void*, int64_t, void*)'
)


@lru_cache(maxsize=1)
def toolchains() -> tuple[Toolchain, ...]:
    return discover_toolchains()[0]


def source(body: str, includes: str = "") -> str:
    lines = "\n".join(f"#include <{name}>" for name in includes.split())
    return f'#include "kernelwright.h"\n{lines}\n{PROTOTYPE} {{ {body} }}\n'


def candidate(text: str, **tunables: int | str) -> Candidate:
    return Candidate("cpp", "kernel", text, FrozenMap(tunables))


def built(cache: Path, text: str, **tunables: int | str) -> Artifact:
    """A library that nobody inspected: the worker has to withstand it alone."""
    artifact = CppBuilder(toolchains(), cache, inspects=False).build(candidate(text, **tunables))
    assert isinstance(artifact, Artifact), artifact
    return artifact


def started(
    artifact: Artifact, arenas: list[Arena], cache: Path, limits: Limits = SHORT, entry="kernel"
) -> Worker | Failure:
    runtime = build_runtime(artifact.toolchain, cache)
    host = Host((str(runtime),), build_clock(artifact.toolchain))
    return Worker.start(artifact.path, entry, host, arenas, THREADS, limits)


def arguments(n: int = 1000) -> Call:
    return Call((Pointer("x"), Pointer("y"), n, 0, 0, 0, 0))


def run_once(
    cache: Path, text: str, limits: Limits = SHORT, entry: str = "kernel", **tunables: int | str
) -> CallReport | Failure:
    """Build, start, call once, close; `x` is sealed, `y` is writable, both 1 MiB."""
    artifact = built(cache, text, **tunables)
    with Arena("x", 1 << 20) as x, Arena("y", 1 << 20) as y:
        x.seal()
        worker = started(artifact, [x, y], cache, limits, entry)
        if isinstance(worker, Failure):
            return worker
        with worker:
            return worker.call(arguments())


def descendants() -> set[int]:
    """Processes below this one, zombies included."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                stat = Path(f"/proc/{name}/stat").read_text()
            except OSError:
                continue
            parents[int(name)] = int(stat.rpartition(") ")[2].split()[1])
    found: set[int] = set()
    for pid in parents:
        above = pid
        while above in parents and above != os.getpid():
            above = parents[above]
        if above == os.getpid() and pid != os.getpid():
            found.add(pid)
    return found


def open_descriptors() -> set[str]:
    return {
        os.readlink(f"/proc/self/fd/{name}")
        for name in os.listdir("/proc/self/fd")
        if os.path.lexists(f"/proc/self/fd/{name}")
    }
