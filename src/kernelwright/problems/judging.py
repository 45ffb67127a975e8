"""Whether outputs are right for given inputs: the oracle, the error budget, equivalence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kernelwright.errors import ProblemError
from kernelwright.model import Dtype, Scalar
from kernelwright.numerics import compare, distribution_usable, norm_tolerance, tolerance
from kernelwright.problems.baseline import Baseline
from kernelwright.problems.declaration import Problem, Trial
from kernelwright.problems.elements import to_storage
from kernelwright.problems.runs import run_reference, run_terms, sound_runs, workload_dtype

Errors = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Expectation:
    """What is right for one set of inputs, and how far off is still right."""

    problem: Problem
    inputs: Mapping[str, Tensor]
    scalars: Mapping[str, Scalar]
    dtype: Dtype
    oracle: tuple[Tensor, ...]
    """float64, or the declared integer type."""
    sound: list[tuple[Tensor, ...]]
    """As computed, not rounded to the outputs' dtypes."""
    tolerances: tuple[Errors, ...]
    """Per element, in the outputs' shapes."""
    norm_tolerances: tuple[float, ...]

    @staticmethod
    def of(
        problem: Problem, inputs: Mapping[str, Tensor], scalars: Mapping[str, Scalar]
    ) -> "Expectation":
        """Run the oracle and the sound runs; inputs in the workload's dtypes."""
        dtype = workload_dtype(problem, inputs)
        oracle = run_reference(problem, inputs, scalars, "oracle")
        sound = sound_runs(problem, inputs, scalars)
        terms = run_terms(problem, inputs, scalars)
        budgets: list[tuple[Errors, float]] = []
        for position, output in enumerate(problem.signature.outputs):
            arguments = (
                oracle[position].contiguous().numpy(),
                [to_storage(run[position]) for run in sound],
                output.resolve(dtype),
                _as_float64(terms[output.name]),
            )
            budgets.append((tolerance(*arguments), norm_tolerance(*arguments)))
        elementwise, norms = zip(*budgets, strict=True)
        return Expectation(problem, inputs, scalars, dtype, oracle, sound, elementwise, norms)

    def usable(self) -> bool:
        """Whether float32 can represent this computation on these inputs (within 1 %)."""
        judged = self._judged_by_problem(self.sound[0])
        return all(
            distribution_usable(expected.numpy(), run.double().numpy())
            for output, expected, run in self._outputs(self.sound[0])
            if output not in judged
        )

    def worst(self, actual: Sequence[Tensor]) -> dict[str, float]:
        """Greatest error of each output in units of what is allowed; more than 1 is wrong.

        Args:
            actual: outputs in their declared dtypes.
        """
        judged = self._judged_by_problem(actual)
        found: dict[str, float] = {}
        for position, (output, expected, value) in enumerate(self._outputs(actual)):
            if output in judged:
                found[output] = float(np.max(judged[output], initial=0.0))
                continue
            dtype = self.problem.signature.outputs[position].resolve(self.dtype)
            comparison = compare(
                to_storage(value),
                expected.contiguous().numpy(),
                self.tolerances[position],
                dtype,
                self.norm_tolerances[position],
            )
            # a norm beyond its limit is an error too, though every element is inside its own
            found[output] = (
                comparison.max_error if comparison.ok else max(comparison.max_error, 1.01)
            )
        return found

    def accepts(self, actual: Sequence[Tensor]) -> bool:
        """Whether every output is right."""
        return all(error <= 1 for error in self.worst(actual).values())

    def _outputs(self, actual: Sequence[Tensor]) -> list[tuple[str, Tensor, Tensor]]:
        names = [output.name for output in self.problem.signature.outputs]
        return list(zip(names, self.oracle, actual, strict=True))

    def _judged_by_problem(self, actual: Sequence[Tensor]) -> dict[str, Errors]:
        names = [output.name for output in self.problem.signature.outputs]
        return equivalence_errors(
            self.problem,
            self.inputs,
            self.scalars,
            dict(zip(names, actual, strict=True)),
            dict(zip(names, self.oracle, strict=True)),
        )


def equivalence_errors(
    problem: Problem,
    inputs: Mapping[str, Tensor],
    scalars: Mapping[str, Scalar],
    actual: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
) -> dict[str, Errors]:
    """Errors of the outputs that the problem judges itself, in units of what is allowed.

    Args:
        problem: The problem.
        inputs: By name, in the workload's dtypes.
        scalars: By name.
        actual: Outputs by name, in any dtype that holds them.
        expected: The oracle's outputs by name.

    Returns:
        By output name, in the output's shape: 0 is exact, up to 1 is right, infinity is wrong.
        Empty where the problem has no `equivalent`.

    Raises:
        ProblemError: `equivalent` returned an unknown name or another shape.
    """
    found = equivalence_units(problem, inputs, scalars, actual, expected)
    return {name: units.cpu().numpy() for name, units in found.items()}


def equivalence_units(
    problem: Problem,
    inputs: Mapping[str, Tensor],
    scalars: Mapping[str, Scalar],
    actual: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """The same as `equivalence_errors`, as tensors on the device of the inputs."""
    if problem.equivalence is None:
        return {}
    trial = Trial(
        {name: _wide(tensor, integers=False) for name, tensor in inputs.items()},
        scalars,
        workload_dtype(problem, inputs),
        {name: _wide(tensor) for name, tensor in actual.items()},
        {name: _wide(tensor) for name, tensor in expected.items()},
    )
    found: dict[str, Tensor] = {}
    for name, result in problem.equivalence(trial).items():
        if name not in expected or result.shape != expected[name].shape:
            raise ProblemError(
                f"the problem '{problem.name}': equivalent must return errors by output name in "
                f"the output's shape, not '{name}' of {tuple(result.shape)}"
            )
        if result.dtype is torch.bool:
            result = torch.where(result, 0.0, torch.inf)
        found[name] = torch.nan_to_num(result.double(), nan=torch.inf, posinf=torch.inf)
    return found


def plainly_wrong(problem: Problem, baseline: Baseline, dtype: Dtype) -> str:
    """Where a peer gives what the problem itself calls wrong, however small the difference.

    Inputs are one small check workload of every distribution. Only problems with an `equivalent`
    have such answers: ties in another order, indices that point elsewhere.

    Returns:
        A sentence; empty where nothing is wrong, or the peer runs at none of these sizes.
    """
    chosen = {w.distribution: w for w in problem.check_workloads(dtype, 0)}
    for workload in chosen.values() if problem.equivalence is not None else ():
        scalars = dict(workload.scalars)
        inputs = problem.make_inputs(workload, 0)
        try:
            results = baseline(inputs, scalars)
        except Exception:
            continue  # a peer that cannot run at a size is absent there, not wrong
        names = [output.name for output in problem.signature.outputs]
        actual = dict(zip(names, results, strict=True))
        oracle = run_reference(problem, inputs, scalars, "oracle")
        expected = dict(zip(names, oracle, strict=True))
        errors = equivalence_errors(problem, inputs, scalars, actual, expected)
        for name, found in errors.items():
            count = int(np.isinf(found).sum())
            if count:
                distribution = workload.distribution
                return f"{count} of {found.size} in '{name}' are wrong under '{distribution}'"
    return ""


def _as_float64(tensor: Tensor | None) -> Errors | None:
    return None if tensor is None else tensor.double().contiguous().numpy()


def _wide(tensor: Tensor, integers: bool = True) -> Tensor:
    if tensor.is_floating_point():
        return tensor.double()
    return tensor.long() if integers else tensor
