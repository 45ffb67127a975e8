"""What a user would run instead: eager, the framework's compiler, and named peers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from kernelwright.model import Scalar, Target
from kernelwright.problems.declaration import Packed, Problem
from kernelwright.problems.elements import torch_dtype

MAX_AUTOTUNE = "max-autotune"


@dataclass(frozen=True, slots=True)
class Baseline:
    """A named way to compute a problem, called with inputs and scalars by name.

    A call may raise anything: a baseline that cannot run here (missing library, dtype that it
    lacks, memory) is absent from the results.
    """

    name: str
    run: Callable[..., tuple[Tensor, ...]]
    prepare: Callable[[Mapping[str, Tensor]], Packed] = lambda inputs: {}
    """What takes the place of static inputs; made before the clock starts."""
    further: bool = False
    """Only runs where it is asked for by name."""

    def __call__(
        self, inputs: Mapping[str, Tensor], scalars: Mapping[str, Scalar]
    ) -> tuple[Tensor, ...]:
        """The outputs in the signature's order, integers in their declared dtypes."""
        return self.bind(inputs, scalars)[0]()

    def bind(
        self, inputs: Mapping[str, Tensor], scalars: Mapping[str, Scalar]
    ) -> tuple[Callable[[], tuple[Tensor, ...]], list[Tensor]]:
        """The call alone, static inputs packed; and what they were packed into."""
        with torch.no_grad():
            packed = self.prepare(inputs)
        arguments = {**inputs, **packed, **scalars}

        def call() -> tuple[Tensor, ...]:
            with torch.no_grad():
                return self.run(**arguments)

        return call, [
            tensor
            for value in packed.values()
            for tensor in (value if isinstance(value, tuple) else (value,))
        ]


def baselines(problem: Problem, target: Target = "cpu") -> dict[str, Baseline]:
    """`eager`, `compile` and every peer, by name; `compile` compiles at its first call.

    On a GPU there is `max-autotune` further: the compiler in its mode `max-autotune-no-cudagraphs`,
    in which it tries many variants of each kernel, and templates for products.

    Args:
        problem: what they compute.
        target: where they run.
    """
    whole = _typed(problem, problem.function)
    found = {
        "eager": Baseline("eager", whole),
        "compile": Baseline("compile", _compiled(whole, None)),
    }
    if target == "cuda":
        thorough = _compiled(whole, f"{MAX_AUTOTUNE}-no-cudagraphs")
        found[MAX_AUTOTUNE] = Baseline(MAX_AUTOTUNE, thorough, further=True)
    for name, peer in problem.peers.items():
        found[name] = Baseline(name, _typed(problem, peer))
        if name in problem.preparations:
            found[name] = replace(found[name], prepare=_of_static(problem, name))
    return found


def _compiled(
    function: Callable[..., tuple[Tensor, ...]], mode: str | None
) -> Callable[..., tuple[Tensor, ...]]:
    """Compiles at its first call: merely loading the compiler takes seconds."""
    compiled: list[Callable[..., tuple[Tensor, ...]]] = []

    def call(**arguments: Any) -> tuple[Tensor, ...]:
        if not compiled:
            compiled.append(torch.compile(function, dynamic=False, mode=mode))
        return compiled[0](**arguments)

    return call


def _of_static(problem: Problem, name: str) -> Callable[[Mapping[str, Tensor]], Packed]:
    static = [argument.name for argument in problem.signature.inputs if argument.static]
    prepare = problem.preparations[name]
    return lambda inputs: prepare(**{n: inputs[n] for n in static})


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
