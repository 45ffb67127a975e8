"""What `problems` and `show` say: facts of problems, from their files and their expression form."""

from typing import Any

from kernelwright import suite
from kernelwright.errors import ProblemError, Unsupported
from kernelwright.expr import Program, operations, pretty
from kernelwright.expr import skeleton as skeleton_of
from kernelwright.machine import probe
from kernelwright.model import Dtype
from kernelwright.problems import Problem, ProblemReference, load_problem, trace_program
from kernelwright.roofline import Rates, bound

Document = dict[str, Any]


def catalogue(scenario: str | None) -> list[Document]:
    """One row for each shipped problem of a scenario (None: of all)."""
    chosen = [name for name in suite.names() if scenario in (None, suite.scenario(name))]
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


def describe(reference: ProblemReference, dtype: Dtype | None) -> Document:
    """Everything public about one problem, and a minimal correct kernel.

    Raises:
        ProblemError: the problem cannot be loaded, or has no such dtype.
    """
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
        "prototype": f'extern "C" {public.signature.prototype("kernel", dtype)}',
        "kernel": _minimal_kernel(problem, program, dtype),
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
    rates = Rates("copy", machine.copy_gbs, machine.fma_gflops)
    count = cost.operations
    if count is None:
        count = operations(program, workload.sizes) if program else 0.0
    return bound(cost.bytes_read + cost.bytes_written, count, rates).limiter


def _minimal_kernel(problem: Problem, program: Program | None, dtype: Dtype) -> str:
    from kernelwright.codegen.plain import plain_kernel

    return plain_kernel(problem.public().signature, program, dtype)
