"""Declaring, loading and tracing problems; the only package that runs references through torch.

Importing it does not import torch: a process without torch may hold a `ProblemReference` and read
a `PublicProblem`. Everything else is loaded when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kernelwright.problems.cost import Cost
from kernelwright.problems.public import public_from_json, public_to_json
from kernelwright.problems.reference import ProblemReference, parse_reference

if TYPE_CHECKING:
    from kernelwright.problems.admission import AdmissionReport, Finding, admit
    from kernelwright.problems.baseline import Baseline, baselines
    from kernelwright.problems.declaration import Problem, Trial, problem
    from kernelwright.problems.elements import (
        dtype_of,
        from_storage,
        to_storage,
        torch_dtype,
    )
    from kernelwright.problems.judging import (
        Expectation,
        equivalence_errors,
        equivalence_units,
        plainly_wrong,
    )
    from kernelwright.problems.loading import load_problem, reference_from_callable
    from kernelwright.problems.rounding import round_to, rounded_operand_errors, softmax_terms
    from kernelwright.problems.runs import (
        run_function,
        run_reference,
        run_terms,
        sound_runs,
        workload_dtype,
    )
    from kernelwright.problems.trace import trace_program  # pyright: ignore

_LAZY = {
    "AdmissionReport": "admission",
    "Baseline": "baseline",
    "Finding": "admission",
    "Problem": "declaration",
    "Trial": "declaration",
    "Expectation": "judging",
    "admit": "admission",
    "baselines": "baseline",
    "dtype_of": "elements",
    "equivalence_errors": "judging",
    "equivalence_units": "judging",
    "from_storage": "elements",
    "load_problem": "loading",
    "plainly_wrong": "judging",
    "problem": "declaration",
    "reference_from_callable": "loading",
    "round_to": "rounding",
    "rounded_operand_errors": "rounding",
    "softmax_terms": "rounding",
    "run_function": "runs",
    "run_reference": "runs",
    "run_terms": "runs",
    "sound_runs": "runs",
    "to_storage": "elements",
    "torch_dtype": "elements",
    "trace_program": "trace",
    "workload_dtype": "runs",
}

__all__ = [
    "AdmissionReport",
    "Baseline",
    "Cost",
    "Expectation",
    "Finding",
    "Problem",
    "ProblemReference",
    "Trial",
    "admit",
    "baselines",
    "dtype_of",
    "equivalence_errors",
    "equivalence_units",
    "from_storage",
    "load_problem",
    "parse_reference",
    "plainly_wrong",
    "problem",
    "public_from_json",
    "public_to_json",
    "reference_from_callable",
    "round_to",
    "rounded_operand_errors",
    "run_function",
    "run_reference",
    "run_terms",
    "softmax_terms",
    "sound_runs",
    "to_storage",
    "torch_dtype",
    "trace_program",
    "workload_dtype",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    globals()[name] = value
    return value
