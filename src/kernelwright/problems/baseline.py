"""What a user would run instead: eager, the framework's compiler, and named peers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kernelwright.model import Scalar
from kernelwright.problems.declaration import Problem
from kernelwright.problems.elements import torch_dtype


@dataclass(frozen=True, slots=True)
class Baseline:
    """A named way to compute a problem, called with inputs and scalars by name.

    A call may raise anything: a baseline that cannot run here (missing library, dtype that it
    lacks, memory) is absent from the results.
    """

    name: str
    run: Callable[..., tuple[Tensor, ...]]

    def __call__(
        self, inputs: Mapping[str, Tensor], scalars: Mapping[str, Scalar]
    ) -> tuple[Tensor, ...]:
        """The outputs in the signature's order, integers in their declared dtypes."""
        with torch.no_grad():
            return self.run(**inputs, **scalars)


def baselines(problem: Problem) -> dict[str, Baseline]:
    """`eager`, `compile` and every peer, by name; `compile` compiles at its first call."""
    whole = _typed(problem, problem.function)
    found = {
        "eager": Baseline("eager", whole),
        "compile": Baseline("compile", torch.compile(whole, dynamic=False)),
    }
    for name, peer in problem.peers.items():
        found[name] = Baseline(name, _typed(problem, peer))
    return found


def _typed(problem: Problem, function: Callable[..., Any]) -> Callable[..., tuple[Tensor, ...]]:
    """The function with a tuple as its result and index outputs in their declared integer type.

    Delivering the declared type is part of the work, so it lies inside what is compiled and timed.
    """
    fixed = [
        None if output.dtype is None else torch_dtype(output.dtype)
        for output in problem.signature.outputs
    ]

    def typed(**arguments: Any) -> tuple[Tensor, ...]:
        result = function(**arguments)
        outputs = result if isinstance(result, tuple | list) else (result,)
        return tuple(
            value if dtype is None else value.to(dtype)
            for value, dtype in zip(outputs, fixed, strict=True)
        )

    return typed
