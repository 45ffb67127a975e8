"""Problems derived from a plain function and example inputs, and sentences on what was derived."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from kernelwright.errors import ProblemError
from kernelwright.model import Dtype, FrozenMap, Scalar, ScalarArgument, Signature, TensorArgument
from kernelwright.problems.declaration import Declaration, Problem, completed
from kernelwright.problems.elements import dtype_of
from kernelwright.problems.shapes import Shapes, infer_shapes, probe
from kernelwright.problems.signature import check_names, is_annotated, signature_of

_KINDS = {bool: "bool", int: "int", float: "float"}
_REFERENCE_DTYPES = (Dtype.F32, Dtype.BF16, Dtype.F16, Dtype.F64)


@dataclass(frozen=True, slots=True)
class Example:
    """What one example argument tells: not its values."""

    shape: tuple[int, ...] | None
    """None for a scalar."""
    dtype: Dtype | None
    low: float = 0.0
    high: float = 0.0
    """Least and greatest value of a tensor; equal where nothing is known."""
    scalar: Scalar | None = None


def describe_examples(
    function: Callable[..., Any], examples: Sequence[Any] | Mapping[str, Any]
) -> dict[str, Example]:
    """Examples by argument name, in the function's order.

    Args:
        function: Any Python function.
        examples: Tensors, scalars or (for float32 tensors) shapes, by position or name.

    Raises:
        ProblemError: they do not fit the function's arguments.
    """
    where = _where(function)
    try:
        parameters = inspect.signature(function)
    except (TypeError, ValueError):
        raise ProblemError(f"{where} has no readable signature: wrap it in a def") from None
    if isinstance(examples, Tensor):
        examples = (examples,)
    try:
        if isinstance(examples, Mapping):
            bound = parameters.bind(**{str(name): value for name, value in examples.items()})
        else:
            bound = parameters.bind(*examples)
    except TypeError as error:
        raise ProblemError(f"the example inputs of {where} do not fit: {error}") from None
    bound.apply_defaults()
    for parameter in parameters.parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ProblemError(f"{where} takes *{parameter.name}: name every argument")
    described = {n: _describe(value, n, where) for n, value in bound.arguments.items()}
    return {name: example for name, example in described.items() if example is not None}


def derive_problem(function: Callable[..., Any], examples: Mapping[str, Example]) -> Problem:
    """A problem from a plain function.

    Annotated functions keep their declared shapes; otherwise axes of equal length share a size
    only where the function does not run when they differ. Integers are drawn between the least
    and the greatest example; non-negative floats stay non-negative.

    Raises:
        ProblemError: the function cannot be a problem, in one sentence.
    """
    where = _where(function)
    tensors = {name: e for name, e in examples.items() if e.shape is not None}
    if not tensors:
        raise ProblemError(f"the example inputs of {where} hold no tensor")
    if is_annotated(function):
        signature, sizes, notes = _declared_shapes(function, tensors)
    else:
        known = {
            name: (e.shape, e.dtype)
            for name, e in tensors.items()
            if e.shape is not None and e.dtype is not None
        }
        shapes = infer_shapes(function, known, _scalars(examples))
        signature, sizes, notes = _inferred_signature(shapes, examples, where)
    dtype = _workload_dtype(tensors, where)
    positive = [n for n, e in tensors.items() if _is_float(e) and e.low < e.high and e.low >= 0]
    integers = [n for n, e in tensors.items() if not _is_float(e) and e.dtype is not Dtype.BOOL]
    notes += [f"'{n}' is never negative, as in the example" for n in positive]
    notes += [
        f"'{n}' holds integers from {e.low:.0f} to {e.high:.0f}, as in the example"
        for n, e in tensors.items()
        if n in integers
    ]
    problem = Problem(
        function,
        completed(
            Declaration(
                name=_name(function),
                signature=signature,
                scenario="user",
                dtypes=(dtype,),
                sizes=FrozenMap({"cpu": (sizes,), "gpu": (sizes,)}),
                ranges=FrozenMap(),
                scalar_choices=FrozenMap(),
                distributions=("normal", "outliers"),
                derived=tuple(notes),
            )
        ),
    )
    return _with_makers(problem, tensors, positive, integers)


def _describe(value: Any, name: str, where: str) -> Example | None:
    what = f"{where}: the example of '{name}'"
    if isinstance(value, Tensor):
        if value.numel() == 0:
            raise ProblemError(f"{what} is empty")
        exact = value.detach().double() if value.dtype is not torch.bool else value.long()
        return Example(tuple(value.shape), dtype_of(value), exact.min().item(), exact.max().item())
    if type(value) in _KINDS:
        return Example(None, None, scalar=value)
    if isinstance(value, tuple | list) and all(type(n) is int and n > 0 for n in value):
        return Example(tuple(value), Dtype.F32)
    if value is None:
        return None  # an optional argument that stays out
    raise ProblemError(f"{what} is a {type(value).__name__}: give tensors, float, int or bool")


def _where(function: Callable[..., Any]) -> str:
    return f"the function '{_name(function)}'"


def _name(function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", type(function).__name__)
    return name if name.isidentifier() else "function"


def _is_float(example: Example) -> bool:
    return example.dtype is not None and example.dtype.is_float


def _scalars(examples: Mapping[str, Example]) -> dict[str, Scalar]:
    return {n: e.scalar for n, e in examples.items() if e.scalar is not None}


def _workload_dtype(tensors: Mapping[str, Example], where: str) -> Dtype:
    found = {e.dtype for e in tensors.values() if e.dtype in _REFERENCE_DTYPES}
    if len(found) > 1:
        listed = ", ".join(sorted(str(dtype) for dtype in found))
        raise ProblemError(
            f"the example inputs of {where} mix {listed}: annotate the arguments to say which are "
            'fixed, such as Float32[Tensor, "H"]'
        )
    return next(iter(found), Dtype.F32) or Dtype.F32


def _declared_shapes(
    function: Callable[..., Any], tensors: Mapping[str, Example]
) -> tuple[Signature, FrozenMap[str, int], list[str]]:
    """An annotated function: only its sizes come from the examples."""
    signature = signature_of(function)
    where = _where(function)
    sizes: dict[str, int] = {}
    for argument in signature.inputs:
        example = tensors.get(argument.name)
        if example is None or example.shape is None or len(example.shape) != len(argument.dims):
            raise ProblemError(f"{where}: the example of '{argument.name}' is not {argument.dims}")
        for dim, size in zip(argument.dims, example.shape, strict=True):
            if dim.isidentifier() and sizes.setdefault(dim, size) != size:
                raise ProblemError(
                    f"{where}: the examples give '{dim}' two sizes, {sizes[dim]} and {size}"
                )
    for argument in signature.inputs:
        shape = tensors[argument.name].shape
        if argument.shape(sizes) != shape:
            raise ProblemError(
                f"{where}: the example of '{argument.name}' is {shape}, not {argument.dims}"
            )
    note = f"the bench sizes {_listed(sizes)} come from the example inputs"
    return signature, FrozenMap(sizes), [note, *_size_note(sizes)]


def _inferred_signature(
    shapes: Shapes, examples: Mapping[str, Example], where: str
) -> tuple[Signature, FrozenMap[str, int], list[str]]:
    workload = _workload_dtype({n: e for n, e in examples.items() if e.shape is not None}, where)
    signature = Signature(
        tuple(
            TensorArgument(n, shapes.inputs[n], None if e.dtype is workload else e.dtype)
            for n, e in examples.items()
            if e.shape is not None
        ),
        tuple(
            TensorArgument(name, dims, None if dtype is workload else dtype)
            for name, dims, dtype in shapes.outputs
        ),
        tuple(
            ScalarArgument(n, _KINDS[type(e.scalar)], e.scalar)  # pyright: ignore
            for n, e in examples.items()
            if e.scalar is not None
        ),
    )
    check_names(signature, where)
    notes = [
        "shapes were read from the example inputs: "
        + ", ".join(f"{t.name} [{', '.join(t.dims)}]" for t in signature.tensors),
        *shapes.notes,
        *_size_note(shapes.sizes),
    ]
    return signature, FrozenMap(shapes.sizes), notes


def _listed(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name}={size}" for name, size in sizes.items())


def _size_note(sizes: Mapping[str, int]) -> list[str]:
    if not sizes:
        return []
    return [
        f"the kernel must be right for every {', '.join(sizes)} from 1 to twice the example's size "
        "(at least 1024)"
    ]


def _with_makers(
    problem: Problem, tensors: Mapping[str, Example], positive: list[str], integers: list[str]
) -> Problem:
    """Input makers that keep to the examples' ranges where those matter."""
    if not positive and not integers:
        return problem
    arguments = {t.name: t for t in problem.signature.inputs}

    def make(scale: float, sizes: Mapping[str, int], generator: Generator) -> dict[str, Tensor]:
        made: dict[str, Tensor] = {}
        for name, argument in arguments.items():
            shape, example = argument.shape(sizes), tensors[name]
            if name in integers:
                low, high = int(example.low), int(example.high) + 1
                made[name] = torch.randint(low, high, shape, generator=generator)
            elif _is_float(example):
                values = torch.randn(shape, generator=generator)
                planted = torch.rand(shape, generator=generator) < 0.01
                if name in positive and example.high <= 1:
                    made[name] = torch.rand(shape, generator=generator)
                else:
                    values = torch.where(planted, values * scale, values)
                    made[name] = values.abs() if name in positive else values
        return made

    problem.inputs("normal")(lambda sizes, scalars, generator: make(1.0, sizes, generator))
    problem.inputs("outliers")(lambda sizes, scalars, generator: make(1e3, sizes, generator))
    return problem


__all__ = ["Example", "derive_problem", "describe_examples", "probe"]
