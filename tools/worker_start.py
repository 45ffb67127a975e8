"""What a sandbox costs a candidate: a worker's start and end in both modes, paired.

python tools/worker_start.py [PAIRS]
"""

import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from kernelwright.build import Artifact, CppBuilder, build_clock, build_runtime, discover_toolchains
from kernelwright.execution import Arena, Worker
from kernelwright.model import Candidate, Host

SOURCE = '#include "kernelwright.h"\nextern "C" int kernel(const float*, float*) { return 0; }\n'
MODES = ("sandbox", "process")


def one(artifact: Artifact, host: Host, arenas: list[Arena], mode: str) -> float:
    """Milliseconds of a start with loading and calibration, and the end."""
    os.environ["KERNELWRIGHT_ISOLATION"] = mode
    start = time.perf_counter()
    worker = Worker.start(artifact.path, "kernel", host, arenas, len(os.sched_getaffinity(0)))
    assert isinstance(worker, Worker), worker
    assert worker.isolation == mode, "bubblewrap does not work here"
    worker.close()
    return 1000 * (time.perf_counter() - start)


def main(pairs: int) -> None:
    """Print medians, and the median of the differences with their middle 90 %."""
    toolchains = discover_toolchains()[0]
    with tempfile.TemporaryDirectory() as name, Arena("x", 1 << 20) as x, Arena("y", 1 << 20) as y:
        artifact = CppBuilder(toolchains, Path(name)).build(Candidate("cpp", "kernel", SOURCE))
        assert isinstance(artifact, Artifact), artifact
        runtime = build_runtime(artifact.toolchain)
        host = Host((str(runtime),), build_clock(artifact.toolchain))
        rounds: list[dict[str, float]] = []
        for _ in range(pairs + 3):
            order = random.sample(MODES, 2)
            rounds.append({mode: one(artifact, host, [x, y], mode) for mode in order})
    rounds = rounds[3:]
    for mode in MODES:
        print(f"{mode}: {statistics.median(r[mode] for r in rounds):.1f} ms")
    extra = [r["sandbox"] - r["process"] for r in rounds]
    cuts = statistics.quantiles(extra, n=20)
    median = statistics.median(extra)
    print(f"difference: {median:.1f} ms, middle 90 % {cuts[0]:.1f} to {cuts[-1]:.1f} ms")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
