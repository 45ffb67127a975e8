"""Input values of a workload."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from kernelwright.errors import ProblemError
from kernelwright.model import TensorArgument, Workload, content_hash
from kernelwright.problems.distributions import STANDARD
from kernelwright.problems.elements import torch_dtype

if TYPE_CHECKING:
    from kernelwright.problems.declaration import Problem


def make_inputs(
    problem: Problem, workload: Workload, seed: int, device: str = "cpu"
) -> dict[str, Tensor]:
    """Inputs by name in the reference's order; the same workload and seed give the same values.

    Drawn on the device, whose generators give other values than the processor's. What the
    distribution's maker leaves out is drawn by the maker of `normal`, then by the
    standard distribution of that name (floats), or evenly (booleans).

    Raises:
        ProblemError: an unknown distribution, an integer input without a maker, or a maker that
            returned something of another name, shape or kind.
    """
    made: dict[str, Tensor] = {}
    with torch.device(device):
        for distribution in dict.fromkeys(("normal", workload.distribution)):
            made |= _from_maker(problem, workload, distribution, seed, device)
        inputs: dict[str, Tensor] = {}
        for argument in problem.signature.inputs:
            value = made.get(argument.name)
            if value is None:
                generator = _generator(seed, workload, argument.name, device)
                value = _standard(problem, workload, argument, generator)
            inputs[argument.name] = _fitted(problem, workload, argument, value)
    return inputs


def _generator(seed: int, workload: Workload, use: str, device: str) -> Generator:
    """A generator of its own for every use, so that adding one input leaves the others alone."""
    digest = content_hash(str(seed), workload.problem, workload.label(), use)
    return Generator(device).manual_seed(int(digest[:16], 16) - (1 << 63))


def _from_maker(
    problem: Problem, workload: Workload, distribution: str, seed: int, device: str
) -> dict[str, Tensor]:
    maker = problem.makers.get(distribution)
    if maker is None:
        if distribution not in problem.distributions:
            known = ", ".join(problem.distributions)
            raise ProblemError(
                f"the problem '{problem.name}' has no distribution '{distribution}', only {known}"
            )
        return {}
    generator = _generator(seed, workload, f"maker of {distribution}", device)
    made = maker(workload.sizes, workload.scalars, generator)
    names = {argument.name for argument in problem.signature.inputs}
    for name in made:
        if name not in names:
            raise ProblemError(
                f"the problem '{problem.name}': the distribution '{distribution}' makes "
                f"'{name}', which is no input"
            )
    return made


def _standard(
    problem: Problem, workload: Workload, argument: TensorArgument, generator: Generator
) -> Tensor:
    dtype = argument.resolve(workload.dtype)
    shape = argument.shape(workload.sizes)
    if dtype.is_float:
        # A distribution that leaves this input out wants it ordinary.
        custom = workload.distribution in problem.makers
        return STANDARD["normal" if custom else workload.distribution](shape, generator)
    if str(dtype) == "bool":
        return torch.rand(shape, generator=generator) < 0.5
    raise ProblemError(
        f"the problem '{problem.name}': nothing says which integers '{argument.name}' may hold, "
        'make them with @p.inputs("normal")'
    )


def _fitted(
    problem: Problem, workload: Workload, argument: TensorArgument, value: Tensor
) -> Tensor:
    dtype = argument.resolve(workload.dtype)
    shape = argument.shape(workload.sizes)
    where = f"the problem '{problem.name}' under '{workload.distribution}': '{argument.name}'"
    if tuple(value.shape) != shape:
        raise ProblemError(f"{where} has the shape {tuple(value.shape)}, declared is {shape}")
    if value.is_floating_point() != dtype.is_float:
        raise ProblemError(f"{where} holds {value.dtype}, declared is {dtype}")
    return value.to(torch_dtype(dtype)).contiguous()
