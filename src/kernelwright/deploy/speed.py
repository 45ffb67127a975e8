"""How fast the deployed operator is inside torch, beside the eager reference.

Run as a program in a process of its own (the judge's process never loads torch):
`python -m kernelwright.deploy.speed TASK`, with the task of `measure_operator` as JSON.
"""

import importlib.util
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernelwright.errors import HarnessError
from kernelwright.execution import environment, python_view
from kernelwright.machine.evict import build_evictor, flush_bytes, load_evictor
from kernelwright.model import Dtype, Estimate, Machine, Workload
from kernelwright.numerics import median_estimate, paired_ratio
from kernelwright.problems import ProblemReference
from kernelwright.sandbox import Tie, confine

MALLOC = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "4294967296"}
"""Both sides allocate their outputs; freed pages are kept, so that page faults are not timed."""


@dataclass(frozen=True, slots=True)
class OperatorSpeed:
    """Times of one call through `best.py` and of the eager reference, paired by round."""

    cold_us: Estimate
    """With inputs and outputs thrown out of the caches."""
    cold_eager_us: Estimate
    cold_speedup: Estimate
    warm_us: Estimate
    """Right after a call on the same tensors."""
    warm_eager_us: Estimate
    warm_speedup: Estimate
    rounds: int
    threads: int
    used_kernel: bool
    """False when `best.py` fell back to the reference, so that the times are not the kernel's."""
    note: str = ""
    """Why it fell back."""

    def document(self) -> dict[str, Any]:
        """As in `optimize --json`, under `operator_speed`."""
        cold = (self.cold_us, self.cold_eager_us, self.cold_speedup)
        warm = (self.warm_us, self.warm_eager_us, self.warm_speedup)
        return {
            "used_kernel": self.used_kernel,
            "note": self.note,
            "rounds": self.rounds,
            "threads": self.threads,
            **{
                state: {
                    "median_us": own.median,
                    "eager_us": eager.median,
                    "speedup": ratio.median,
                    "speedup_ci": [ratio.low, ratio.high],
                }
                for state, (own, eager, ratio) in (("cold", cold), ("warm", warm))
            },
        }


def measure_operator(
    folder: Path,
    reference: ProblemReference,
    workload: Workload,
    machine: Machine,
    rounds: int = 30,
) -> OperatorSpeed:
    """Time `best.py` of a run folder on one workload, in a fresh, confined process with torch.

    Args:
        folder: holds what `write_winner` wrote.
        reference: the problem, for its inputs and its eager reference.
        workload: sizes, scalars, dtype and distribution.
        machine: for the number of threads and the size of the cache to flush.
        rounds: paired rounds, cold and warm each.

    Raises:
        HarnessError: the process died or took too long.
    """
    evictor = build_evictor(machine.toolchains[0])
    task = {
        "folder": str(folder.absolute()),
        "reference": reference.to_json(),
        "sizes": dict(workload.sizes),
        "scalars": dict(workload.scalars),
        "dtype": str(workload.dtype),
        "distribution": workload.distribution,
        "rounds": rounds,
        "evictor": str(evictor),
        "flush_bytes": flush_bytes(machine, evicts=False),
        "private_bytes": flush_bytes(machine, evicts=True),
        "threads": machine.cores,
    }
    threads = str(machine.cores)
    inherited = environment(MALLOC | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads})
    command = [sys.executable, "-m", "kernelwright.deploy.speed", json.dumps(task)]
    seen = python_view([Path(reference.path), folder.absolute(), evictor.parent])
    try:
        with Tie() as tie:
            done = subprocess.run(
                tie.command(confine(command, seen)),
                env=inherited,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
                pass_fds=[tie.read_fd],
                start_new_session=True,
            )
    except subprocess.TimeoutExpired:
        raise HarnessError("timing the operator inside torch took more than 300 s") from None
    if done.returncode != 0:
        raise HarnessError(
            f"timing the operator inside torch ended with code {done.returncode}: "
            f"{done.stderr[-2000:]}"
        )
    return _speed_from(json.loads(done.stdout.splitlines()[-1]))


def _speed_from(found: Mapping[str, Any]) -> OperatorSpeed:
    cold, warm = found["cold"], found["warm"]
    return OperatorSpeed(
        cold_us=median_estimate(cold["kernel"]),
        cold_eager_us=median_estimate(cold["eager"]),
        cold_speedup=paired_ratio(cold["eager"], cold["kernel"]),
        warm_us=median_estimate(warm["kernel"]),
        warm_eager_us=median_estimate(warm["eager"]),
        warm_speedup=paired_ratio(warm["eager"], warm["kernel"]),
        rounds=len(cold["kernel"]),
        threads=found["threads"],
        used_kernel=not found["note"],
        note=found["note"],
    )


def _main() -> None:
    import warnings

    import torch

    from kernelwright.problems import load_problem

    task = json.loads(sys.argv[1])
    torch.set_num_threads(task["threads"])
    problem = load_problem(ProblemReference.from_json(task["reference"]))
    workload = _workload(problem.name, task)
    inputs = problem.make_inputs(workload, seed=1)
    arguments = {**inputs, **task["scalars"]}
    operator = _operator(Path(task["folder"]), problem.name)
    with warnings.catch_warnings(record=True) as said, torch.no_grad():
        warnings.simplefilter("always")
        operator(**arguments)
    note = "; ".join(str(w.message) for w in said if "runs the reference" in str(w.message))
    sides: dict[str, Callable[[], Any]] = {
        "kernel": lambda: operator(**arguments),
        "eager": lambda: problem(**arguments),
    }
    with torch.no_grad():
        cold = _paired(sides, _flush(task, arguments), task["rounds"])
        warm = _paired(sides, _warm_up, task["rounds"])
    print(json.dumps({"cold": cold, "warm": warm, "threads": task["threads"], "note": note}))


def _flush(task: Mapping[str, Any], arguments: Mapping[str, Any]) -> Callable[..., Any]:
    """What makes the next call's inputs and outputs cold: freed outputs are handed out again.

    Reading only: modified lines would be written back during the timed call.
    """
    import torch
    from torch.utils._pytree import tree_leaves

    evict = load_evictor(Path(task["evictor"]))
    others = torch.ones(task["flush_bytes" if evict is None else "private_bytes"] // 4)

    def flush(_: Callable[[], Any], last: Any) -> None:
        for leaf in tree_leaves((dict(arguments), last)) if evict else ():
            if evict and isinstance(leaf, torch.Tensor):
                evict(leaf.detach().reshape(-1).view(torch.uint8).numpy())
        others.sum()

    return flush


def _warm_up(call: Callable[[], Any], _: Any) -> None:
    call()


def _workload(problem: str, task: Mapping[str, Any]) -> Workload:
    from kernelwright.model import FrozenMap

    return Workload(
        problem, Dtype(task["dtype"]), FrozenMap(task["sizes"]), FrozenMap(task["scalars"]),
        task["distribution"],
    )  # fmt: skip


def _operator(folder: Path, name: str) -> Callable[..., Any]:
    spec = importlib.util.spec_from_file_location("best", folder / "best.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def _paired(
    sides: Mapping[str, Callable[[], Any]], before: Callable[..., Any], rounds: int
) -> dict[str, list[float]]:
    """Microseconds of each side, `rounds` times in random order after three unmeasured calls.

    `before` gets the side and the last result, which is freed right after it.
    """
    rng = random.Random(0)
    times: dict[str, list[float]] = {name: [] for name in sides}
    result: Any = None
    for call in sides.values():
        for _ in range(3):
            result = call()
    for _ in range(rounds):
        for name in rng.sample(sorted(sides), len(sides)):
            before(sides[name], result)
            result = None
            start = time.perf_counter_ns()
            result = sides[name]()
            times[name].append((time.perf_counter_ns() - start) / 1000)
    return times


if __name__ == "__main__":
    _main()
