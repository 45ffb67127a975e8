"""The admission gate in a confined process: for problem files that nobody has looked at."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernelwright.errors import HarnessError, ProblemError, Unsupported
from kernelwright.execution import RoleProcess, python_view, serve
from kernelwright.expr import pretty, skeleton
from kernelwright.model import Dtype, PublicProblem
from kernelwright.problems import ProblemReference, public_from_json, public_to_json

_MOST_SHOWN = 12
_DTYPES = 2
_CPU_BYTES = 4 << 30
_TIMEOUT_S = 300.0
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class GateReport:
    """What the gate says of a file; its texts come from where that was run: show them escaped."""

    public: PublicProblem | None
    """None: it does not load."""
    findings: tuple[str, ...]
    """Why it is refused; empty: it is admitted."""
    expression: str = ""
    """Index notation; empty where the reference is outside of the expression form."""
    skeleton: str = "none"

    @property
    def ok(self) -> bool:
        """Whether the problem is admitted."""
        return self.public is not None and not self.findings


def examine_file(path: Path, timeout_s: float = _TIMEOUT_S) -> GateReport:
    """Load a problem file and run the gate on it, for its first element types.

    The file is run in a process of its own, which is confined as an oracle is.

    Args:
        path: a file with one problem; its folder is visible there, so it should hold nothing else.
        timeout_s: longest.
    """
    reference = ProblemReference(str(path.resolve()), None)
    try:
        with RoleProcess.start(__name__, threads=1, view=python_view([path])) as role:
            reply = role.request("gate", {"reference": reference.to_json()}, timeout_s)
        public = public_from_json(reply["public"]) if reply["public"] else None
        findings = tuple(str(finding)[:600] for finding in reply["findings"])
        return GateReport(public, findings, str(reply["expression"]), str(reply["skeleton"]))
    except ProblemError as error:
        return GateReport(None, (str(error)[:1500],))
    except HarnessError as error:
        return GateReport(None, (f"the process that ran it gave no answer: {str(error)[-1500:]}",))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return GateReport(None, (f"the process that ran it gave a wrong answer: {error}",))


def _gate(payload: Json) -> Json:
    """In the confined process."""
    from kernelwright.problems import load_problem

    problem = load_problem(ProblemReference.from_json(payload["reference"]))
    found: Json = {
        "public": public_to_json(problem.public()),
        "findings": [],
        "expression": "",
        "skeleton": "none",
    }
    try:
        found["findings"] = _findings(problem)[:_MOST_SHOWN]
        found |= _traced(problem)
    except Exception as error:  # somebody else's code: whatever it raises is a finding
        found["findings"].append(f"{type(error).__name__}: {error}")
    return found


def _findings(problem: Any) -> list[str]:
    from kernelwright.problems import admit

    public: PublicProblem = problem.public()
    found: list[str] = []
    if public.derived:
        found.append("the function is not decorated with @problem")
    if not public.sizes.get("cpu") and not public.sizes.get("gpu"):
        found.append("it declares no sizes")
    for sizes in public.sizes.get("cpu", ()):
        dtype = public.dtypes[0]
        nbytes = sum(tensor.nbytes(sizes, dtype) for tensor in public.signature.tensors)
        if nbytes > _CPU_BYTES:
            found.append(
                f"its tensors at {dict(sizes)} take {nbytes >> 30} GiB, too much for a CPU"
            )
    for dtype in public.dtypes[:_DTYPES]:
        found += [f"{dtype}: {finding}" for finding in admit(problem, Dtype(dtype)).findings]
    return found


def _traced(problem: Any) -> Json:
    from kernelwright.problems import trace_program

    try:
        program = trace_program(problem)
    except Unsupported:
        return {}
    return {"expression": pretty(program), "skeleton": skeleton(program)}


if __name__ == "__main__":
    serve({"gate": _gate}, {}, lambda _: None)
