"""The gate: a problem is admitted when wrong answers fail and sound ones pass."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kernelwright.model import Dtype, FrozenMap, Workload
from kernelwright.problems import runs
from kernelwright.problems.declaration import Problem
from kernelwright.problems.judging import Expectation
from kernelwright.problems.runs import round_outputs, run_function
from kernelwright.problems.workloads import fit_sizes, work

_POINTS = 1 << 15
_SEEDS = (11, 12)


@dataclass(frozen=True, slots=True)
class Finding:
    """One reason against a problem."""

    distribution: str
    subject: str
    """What was tried: `trivial zeros`, `order reversed`, `input w`, ..."""
    detail: str

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.distribution}: {self.subject}: {self.detail}"


@dataclass(frozen=True, slots=True)
class AdmissionReport:
    """What the gate tried and what it found."""

    problem: str
    dtype: Dtype
    tried: int
    """Answers and perturbations that were judged."""
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether the problem is admitted."""
        return not self.findings


def admit(problem: Problem, dtype: Dtype) -> AdmissionReport:
    """Judge a problem by what it lets pass, at one moderate size under every distribution.

    - float32 can represent the computation (a distribution where it cannot is refused);
    - sound float32 runs in every summation order pass;
    - every trivial answer fails: zeros, the mean, an input, the first half only, a subsample of
      the data (each output apart), and the problem's own;
    - every input and every scalar with choices matters to some output, under some distribution,
      and no output stays the same when all inputs change;
    - a problem that says it can be sliced gives the same values in slices.
    """
    gate = _Gate(problem, dtype)
    for distribution in problem.distributions:
        gate.examine(distribution)
    gate.examine_scalars()
    for name in sorted(gate.unused):
        gate.findings.append(Finding("all", name, "changing it changes no output"))
    return AdmissionReport(problem.name, dtype, gate.tried, tuple(gate.findings))


class _Gate:
    """The state of one examination."""

    def __init__(self, problem: Problem, dtype: Dtype) -> None:
        self.problem = problem
        self.base = _moderate_workload(problem, dtype)
        self.tried = 0
        self.findings: list[Finding] = []
        self.unused = {f"input {argument.name}" for argument in problem.signature.inputs}
        self.expectations: dict[str, Expectation] = {}

    def examine(self, distribution: str) -> None:
        """Everything but the scalars, under one distribution."""
        workload = replace(self.base, distribution=distribution)
        inputs = self.problem.make_inputs(workload, _SEEDS[0])
        others = self.problem.make_inputs(workload, _SEEDS[1])
        expectation = Expectation.of(self.problem, inputs, workload.scalars)
        self.expectations[distribution] = expectation
        if not expectation.usable():
            self._find(distribution, "float32", "is itself off by more than 1 %: refused")
            return
        for number, run in enumerate(expectation.sound):
            right = expectation.accepts(round_outputs(self.problem, run, expectation.dtype))
            self._must(right, distribution, f"order {number}", "a sound run fails")
        for name, answer in trivial_answers(self.problem, expectation):
            passes = expectation.accepts(answer)
            self._must(not passes, distribution, f"trivial {name}", "a wrong answer passes")
        self._examine_dependence(distribution, expectation, others)
        self._examine_slices(distribution, expectation)

    def examine_scalars(self) -> None:
        """Every scalar with another choice must matter somewhere."""
        for name, choices in self.problem.declaration.scalar_choices.items():
            if len(choices) > 1:
                changes = ({name: choice} for choice in choices[1:])
                if not any(self._scalars_matter(change) for change in changes):
                    self.unused.add(f"scalar {name}")

    def _scalars_matter(self, change: Mapping[str, float | int | bool]) -> bool:
        for expectation in self.expectations.values():
            self.tried += 1
            answer = self._answer(expectation.inputs, FrozenMap({**expectation.scalars, **change}))
            if not expectation.accepts(answer):
                return True
        return False

    def _examine_dependence(
        self, distribution: str, expectation: Expectation, others: Mapping[str, Tensor]
    ) -> None:
        fixed = {output.name for output in self.problem.signature.outputs}
        for name in others:
            answer = self._answer({**expectation.inputs, name: others[name]}, expectation.scalars)
            changed = {output for output, error in expectation.worst(answer).items() if error > 1}
            self.tried += 1
            fixed -= changed
            if changed:
                self.unused.discard(f"input {name}")
        for output in sorted(fixed):
            self._find(distribution, f"output {output}", "depends on no input")

    def _examine_slices(self, distribution: str, expectation: Expectation) -> None:
        if self.problem.declaration.slices is None:
            return
        points = work(self.problem.declaration, self.base.sizes) // 3
        sliced = run_function(
            self.problem, self.problem.function, expectation.inputs, expectation.scalars,
            inside=torch.float64, slice_points=points,
        )  # fmt: skip
        same = all(
            torch.allclose(a.double(), b.double(), rtol=1e-12, atol=0, equal_nan=True)
            for a, b in zip(sliced, expectation.oracle, strict=True)
        )
        self._must(same, distribution, f"slices {self.problem.declaration.slices}", "values differ")

    def _answer(
        self, inputs: Mapping[str, Tensor], scalars: Mapping[str, float]
    ) -> tuple[Tensor, ...]:
        outputs = runs.run_reference(self.problem, inputs, scalars)
        return round_outputs(self.problem, outputs, self.base.dtype)

    def _must(self, holds: bool, distribution: str, subject: str, detail: str) -> None:
        self.tried += 1
        if not holds:
            self._find(distribution, subject, detail)

    def _find(self, distribution: str, subject: str, detail: str) -> None:
        self.findings.append(Finding(distribution, subject, detail))


def trivial_answers(
    problem: Problem, expectation: Expectation
) -> Iterator[tuple[str, tuple[Tensor, ...]]]:
    """Wrong answers with their names: the defaults for each output apart, then the problem's own.

    An answer that happens to equal the right one (an input that no element differs from) is left
    out only where it is not an answer at all: wrong shape, or nothing to leave out.
    """
    right = round_outputs(problem, expectation.oracle, expectation.dtype)
    for position, argument in enumerate(problem.signature.outputs):
        for name, wrong in _default_answers(problem, expectation, position, right[position]):
            answer = (*right[:position], wrong.to(right[position].dtype), *right[position + 1 :])
            yield f"{name} for {argument.name}", answer
    half = {name: _first_half_twice(tensor) for name, tensor in expectation.inputs.items()}
    if any(not torch.equal(half[n], t) for n, t in expectation.inputs.items()):
        yield "subsample", _computed(problem, problem.function, expectation, half)
    for name, function in problem.trivial_answers.items():
        yield name, _computed(problem, function, expectation, expectation.inputs)


def _default_answers(
    problem: Problem, expectation: Expectation, position: int, right: Tensor
) -> Iterator[tuple[str, Tensor]]:
    yield "zeros", torch.zeros_like(right)
    oracle = expectation.oracle[position].double()
    finite = oracle[oracle.isfinite()]
    if right.numel() > 1 and finite.numel():
        yield "the mean", torch.full_like(oracle, finite.mean().item())
        first = right.clone().view(-1)
        first[right.numel() // 2 :] = 0
        yield "the first half", first.view(right.shape)
    for name, tensor in expectation.inputs.items():
        if tensor.shape == right.shape:
            yield f"the input {name}", tensor


def _computed(
    problem: Problem,
    function: Callable[..., object],
    expectation: Expectation,
    inputs: Mapping[str, Tensor],
) -> tuple[Tensor, ...]:
    outputs = run_function(
        problem, function, inputs, expectation.scalars, inside=torch.float64, slice_points=None
    )
    return round_outputs(problem, outputs, expectation.dtype)


def _first_half_twice(tensor: Tensor) -> Tensor:
    """The first half along the last axis, repeated: what reading half of the data would give."""
    if tensor.ndim == 0 or tensor.shape[-1] < 2 or not tensor.is_floating_point():
        return tensor
    length = tensor.shape[-1]
    half = tensor[..., : (length + 1) // 2]
    return torch.cat((half, half), -1)[..., :length].contiguous()


def _moderate_workload(problem: Problem, dtype: Dtype) -> Workload:
    """Odd and distinct sizes whose index space has about 2^15 points."""

    def spread(each: int) -> dict[str, int]:
        return {name: (each | 1) + 2 * at for at, name in enumerate(problem.size_names)}

    each = 1
    while each < _POINTS and work(problem.declaration, spread(each + each // 8 + 1)) <= _POINTS:
        each += each // 8 + 1
    sizes = FrozenMap(fit_sizes(problem, spread(each), 2 * _POINTS))
    scalars = problem.default_scalars(sizes)
    return Workload(problem.name, dtype, sizes, scalars, "normal", "check")
