"""What is public of a problem, read in a process that nothing else depends on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kernelwright.evaluation.wire import workload_from_json, workload_to_json
from kernelwright.execution import RoleProcess, python_view, serve
from kernelwright.model import Dtype, PublicProblem, Target, Workload
from kernelwright.problems import (
    ProblemReference,
    load_problem,
    public_from_json,
    public_to_json,
)

Json = dict[str, Any]


def read_public(
    reference: ProblemReference,
    dtype: Dtype | None,
    sizes: Mapping[str, int] | None,
    target: Target,
) -> tuple[PublicProblem, Workload]:
    """A problem, and the workload that is scored on a target; no device is needed.

    Raises:
        ProblemError: the problem cannot be loaded, or lacks the dtype or the sizes.
        HarnessError: the process that imports it died.
    """
    payload = {
        "reference": reference.to_json(),
        "dtype": None if dtype is None else str(dtype),
        "sizes": None if sizes is None else dict(sizes),
        "target": "gpu" if target == "cuda" else target,
    }
    view = python_view([Path(reference.path)])
    with RoleProcess.start(__name__, threads=1, view=view) as role:
        reply = role.request("read", payload)
    return public_from_json(reply["public"]), workload_from_json(reply["bench"])


def _read(payload: Json) -> Json:
    problem = load_problem(ProblemReference.from_json(payload["reference"]))
    bench = problem.bench_workload(payload["sizes"], payload["dtype"], payload["target"])
    return {"public": public_to_json(problem.public()), "bench": workload_to_json(bench)}


if __name__ == "__main__":
    serve({"read": _read}, {}, lambda _: None)
