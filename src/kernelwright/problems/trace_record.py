"""Recording what a reference does: one tape of tensor operations per setting of the sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch._decomp import decomposition_table
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from kernelwright.errors import Unsupported
from kernelwright.model import Dtype
from kernelwright.problems.rounding import computing_for
from kernelwright.problems.trace_call import LOWERINGS


@dataclass(frozen=True)
class Ref:
    """A tensor on a tape, by position of its creation."""

    position: int


@dataclass(frozen=True)
class Recorded:
    """One operation: its arguments by the schema's names, tensors as references."""

    op: str
    arguments: dict[str, Any]
    outputs: tuple[Ref, ...]


@dataclass(frozen=True)
class Tape:
    """Everything that one run of the reference did."""

    calls: tuple[Recorded, ...]
    shapes: dict[Ref, tuple[int, ...]]
    dtypes: dict[Ref, torch.dtype]
    constants: dict[Ref, Any]
    """Values of tensors of one element that came from outside the tape."""
    inputs: dict[str, Ref]
    results: tuple[Ref, ...]


class _Mutates(Exception):
    """The reference changes a tensor that has aliases, in place; says by which operation."""


class _OneAlgorithm(TorchFunctionMode):
    """Keeps torch from choosing between equivalent algorithms by size."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.cdist:
            args = args[:3]
            kwargs["compute_mode"] = "donot_use_mm_for_euclid_dist"
        return func(*args, **kwargs)


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Recorded] = []
        self.tensors: list[torch.Tensor] = []
        self.constants: dict[Ref, Any] = {}
        self._refs: dict[int, Ref] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # nothing is compiled here, and loading the compiler takes seconds
        return False

    def add(self, tensor: torch.Tensor) -> Ref:
        ref = Ref(len(self.tensors))
        self.tensors.append(tensor)  # kept alive, so that its id stays its own
        self._refs[id(tensor)] = ref
        return ref

    def ref(self, tensor: torch.Tensor) -> Ref:
        found = self._refs.get(id(tensor))
        if found is None:
            if tensor.numel() != 1:
                raise Unsupported(
                    f"the reference uses a tensor of shape {tuple(tensor.shape)} that is no input"
                )
            found = self.add(tensor)
            self.constants[found] = tensor.detach().clone()
        return found

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = f"{func.namespace}.{func._schema.name.split('::')[1]}"
        if name in LOWERINGS:
            return self._record(func, name, args, kwargs)
        if func._schema.is_mutable:
            functional = name.removesuffix("_")
            if functional not in LOWERINGS or self._has_alias(args[0]):
                raise _Mutates(name)
            return self._record(func, functional, args, kwargs)
        decomposition = decomposition_table.get(func)
        if decomposition is not None:
            with self:
                result = decomposition(*args, **kwargs)
            if result is not NotImplemented:
                return result
        with self:
            result = func.decompose(*args, **kwargs)
        if result is NotImplemented:
            raise Unsupported(f"the operation {name} has no place in the expression form")
        return result

    def _has_alias(self, tensor: torch.Tensor) -> bool:
        """Whether another tensor on the tape shares memory with this one."""
        storage = tensor.untyped_storage().data_ptr()
        return any(
            other is not tensor and other.untyped_storage().data_ptr() == storage
            for other in self.tensors
        )

    def _record(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        arguments: dict[str, Any] = {}
        for position, argument in enumerate(func._schema.arguments):
            if position < len(args):
                value = args[position]
            else:
                value = kwargs.get(argument.name, argument.default_value)
            arguments[argument.name] = self._refer(value)
        if name == "aten.as_strided" and not args[0].is_contiguous():
            raise Unsupported("as_strided has no place in the expression form")
        result = func(*args, **kwargs)
        if isinstance(result, torch.Tensor):
            outputs = (self.add(result),)
        else:
            outputs = tuple(self.add(r) for r in result if isinstance(r, torch.Tensor))
        self.calls.append(Recorded(name, arguments, outputs))
        return result

    def _refer(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self.ref(value)
        if isinstance(value, list | tuple):
            return [self._refer(v) for v in value]
        return value


def record(
    function: Callable[..., Any],
    inputs: Mapping[str, torch.Tensor],
    scalars: Mapping[str, Any],
) -> Tape:
    """Run the reference and write down its tensor operations, without mutation.

    Raises:
        Unsupported: an operation has no place in the expression form, or values steer Python.
    """
    try:
        return _run(function, inputs, scalars)
    except _Mutates:
        pass

    # in-place operations become functional ones, at some cost in time
    def functional(*tensors: torch.Tensor) -> Any:
        return function(**dict(zip(inputs, tensors, strict=True)), **scalars)

    remade = torch.func.functionalize(functional)
    try:
        return _run(lambda **named: remade(*(named[name] for name in inputs)), inputs, {})
    except _Mutates as mutation:
        raise Unsupported(f"the in-place operation {mutation} cannot be made functional") from None


def _run(
    function: Callable[..., Any],
    inputs: Mapping[str, torch.Tensor],
    scalars: Mapping[str, Any],
) -> Tape:
    recorder = _Recorder()
    refs = {name: recorder.add(tensor) for name, tensor in inputs.items()}
    with (
        torch.no_grad(),
        torch.backends.opt_einsum.flags(enabled=False),
        computing_for(Dtype.F32),
        _OneAlgorithm(),
        recorder,
    ):
        result = function(**inputs, **scalars)
    results = result if isinstance(result, list | tuple) else (result,)
    for value in results:
        if not isinstance(value, torch.Tensor):
            raise Unsupported(f"the reference returns a {type(value).__name__}, not a tensor")
    outputs = tuple(recorder.ref(value) for value in results)
    every = {Ref(position): tensor for position, tensor in enumerate(recorder.tensors)}
    return Tape(
        calls=tuple(recorder.calls),
        shapes={ref: tuple(tensor.shape) for ref, tensor in every.items()},
        dtypes={ref: tensor.dtype for ref, tensor in every.items()},
        constants={ref: value.item() for ref, value in recorder.constants.items()},
        inputs=refs,
        results=outputs,
    )
