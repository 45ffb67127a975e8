"""What `problems` and `show` say: facts of problems, from their files and their expression form."""

from pathlib import Path
from typing import Any

from kernelwright import suite
from kernelwright.errors import ProblemError, Unsupported, UserError
from kernelwright.execution import RoleProcess, python_view, serve
from kernelwright.expr import Program, operations, pretty, unit_of
from kernelwright.expr import skeleton as skeleton_of
from kernelwright.machine import probe
from kernelwright.model import Dtype, Language, Signature
from kernelwright.problems import Problem, ProblemReference, load_problem, trace_program
from kernelwright.roofline import Rates, bound

Document = dict[str, Any]


def catalogue(scenario: str | None, chosen_set: str | None = None) -> list[Document]:
    """One row for each shipped problem of a scenario and of a set (None: of all).

    Raises:
        ProblemError: there is no such set.
    """
    known = suite.names(chosen_set)
    chosen = [name for name in known if scenario in (None, suite.scenario(name))]
    return [_row(load_problem(suite.find(name))) for name in chosen]


def _row(problem: Problem) -> Document:
    public = problem.public()
    program = _traced(problem)
    return {
        "name": public.name,
        "scenario": public.scenario,
        "skeleton": skeleton_of(program) if program else "none",
        "dtypes": [str(dtype) for dtype in public.dtypes],
        "limiter": _limiter(problem, program),
        "summary": public.summary,
        "source": public.source,
    }


def describe_safely(
    reference: ProblemReference, dtype: Dtype | None, language: Language = "cpp"
) -> Document:
    """What `describe` says; a file that is not shipped is imported in a sandbox.

    Raises:
        ProblemError: as `describe`.
        HarnessError: the process that imports it died.
    """
    file = Path(reference.path)
    if file.is_relative_to(Path(suite.__file__).parent):
        return describe(reference, dtype, language)
    payload = {"reference": reference.to_json(), "dtype": dtype, "language": language}
    with RoleProcess.start(__name__, threads=1, view=python_view([file])) as role:
        return role.request("describe", payload)


def describe(
    reference: ProblemReference, dtype: Dtype | None, language: Language = "cpp"
) -> Document:
    """Everything public about one problem, and a minimal correct kernel in a language.

    Raises:
        ProblemError: the problem cannot be loaded, or has no such dtype.
        UserError: no minimal kernel can be written in this language.
    """
    if language not in ("cpp", "python"):
        raise UserError(f"there is no prototype in '{language}': choose from cpp, python")
    problem = load_problem(reference)
    public = problem.public()
    dtype = dtype or public.dtypes[0]
    if dtype not in public.dtypes:
        known = ", ".join(public.dtypes)
        raise ProblemError(f"'{public.name}' is not declared for {dtype}: choose from {known}")
    program = _traced(problem)
    return {
        "name": public.name,
        "scenario": public.scenario,
        "summary": public.summary,
        "skeleton": skeleton_of(program) if program else "none",
        "dtypes": [str(d) for d in public.dtypes],
        "sizes": {target: [dict(s) for s in many] for target, many in public.sizes.items()},
        "ranges": {name: list(pair) for name, pair in public.ranges.items()},
        "distributions": list(public.distributions),
        "peers": list(public.peers),
        "derived": list(public.derived),
        "reference": public.reference_text,
        "expression": pretty(program) if program else "",
        "language": language,
        "prototype": _prototype(public.signature, dtype, language),
        "prepare_prototypes": _prepare_prototypes(public.signature, dtype, language),
        "kernel": _minimal_kernel(problem, program, dtype, language),
    }


def _traced(problem: Problem) -> Program | None:
    try:
        return trace_program(problem)
    except Unsupported:
        return None


def _limiter(problem: Problem, program: Program | None) -> str:
    """What bounds the first workload on this machine: `memory` or `compute`."""
    public = problem.public()
    workload = problem.bench_workload(0, public.dtypes[0])
    cost = problem.cost_of(workload.sizes, workload.dtype)
    machine = probe()
    unit, peak = machine.arithmetic(unit_of(program, workload.dtype) if program else "fma")
    rates = Rates("copy", machine.copy_gbs, peak, unit)
    count = cost.operations
    if count is None:
        count = operations(program, workload.sizes) if program else 0.0
    return bound(cost.bytes_read + cost.bytes_written, count, rates).limiter


def _prototype(signature: Signature, dtype: Dtype, language: Language) -> str:
    if language == "python":
        return f"def {signature.python_call('kernel')} -> None"
    return f'extern "C" {signature.prototype("kernel", dtype)}'


def _prepare_prototypes(signature: Signature, dtype: Dtype, language: Language) -> list[str]:
    """Of the optional functions that pack static inputs, as far as there are any."""
    if language == "python":
        return []
    return [f'extern "C" {text}' for text in signature.prepare_prototypes("kernel", dtype)]


def _minimal_kernel(
    problem: Problem, program: Program | None, dtype: Dtype, language: Language
) -> str:
    if language == "python":
        from kernelwright.problems.plain_python import plain_python_kernel

        return plain_python_kernel(problem, dtype)
    from kernelwright.codegen.plain import plain_kernel

    return plain_kernel(problem.public().signature, program, dtype)


def _serve() -> None:
    def answer(payload: Document) -> Document:
        dtype = Dtype(payload["dtype"]) if payload["dtype"] else None
        return describe(
            ProblemReference.from_json(payload["reference"]), dtype, payload["language"]
        )

    serve({"describe": answer}, {}, lambda _: None)


if __name__ == "__main__":
    _serve()
