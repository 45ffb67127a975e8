"""Running references: in float64, as written, and with float32 inside in several orders."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import torch
from torch import Tensor

from kernelwright.errors import ProblemError
from kernelwright.model import Dtype, Scalar, dimension_names, evaluate_dimension
from kernelwright.problems.declaration import Problem
from kernelwright.problems.elements import dtype_of, torch_dtype
from kernelwright.problems.reorder import ORDERS, Order, ReorderedSums
from kernelwright.problems.rounding import computing_for
from kernelwright.problems.workloads import work

Mode = Literal["oracle", "eager"]
Tensors = Mapping[str, Tensor]
Scalars = Mapping[str, Scalar]
SLICE_POINTS = 1 << 22
"""Points of the index space that one slice of a sliced reference may cover."""
DEVICE_SLICE_POINTS = 1 << 28
"""The same on a GPU: 2 GiB for each float64 intermediate."""


def workload_dtype(problem: Problem, inputs: Tensors) -> Dtype:
    """The workload's dtype, told by its inputs (the first declared one where none tells)."""
    for argument in problem.signature.inputs:
        if argument.dtype is None:
            return dtype_of(inputs[argument.name])
    return problem.dtypes[0]


def run_reference(
    problem: Problem, inputs: Tensors, scalars: Scalars, mode: Mode = "oracle"
) -> tuple[Tensor, ...]:
    """Outputs of the reference.

    Args:
        problem: The problem.
        inputs: By name, in the workload's dtype.
        scalars: Every scalar, by name.
        mode: `oracle`: all floats in float64, outputs left so, slice by slice where the problem
            allows; `eager`: exactly as written, in the inputs' own dtypes.

    Raises:
        ProblemError: the reference failed, or returned other shapes than it declares.
    """
    if mode == "eager":
        outputs = run_function(problem, problem.function, inputs, scalars)
        return tuple(
            value.to(torch_dtype(argument.resolve(workload_dtype(problem, inputs))))
            for value, argument in zip(outputs, problem.signature.outputs, strict=True)
        )
    return run_function(problem, problem.function, inputs, scalars, inside=torch.float64)


def sound_runs(problem: Problem, inputs: Tensors, scalars: Scalars) -> list[tuple[Tensor, ...]]:
    """What sound implementations compute: float32 inside, in several summation orders.

    Returns:
        One tuple of outputs for each order of `reorder.ORDERS`, floats not yet rounded to the
        outputs' dtypes: that would hide most of the error. (A float64 workload is computed in
        float64.)
    """
    dtype = workload_dtype(problem, inputs)
    inside = torch.float64 if dtype is Dtype.F64 else torch.float32
    found: list[tuple[Tensor, ...]] = []
    modes: list[ReorderedSums] = []

    def ordered(order: Order) -> ReorderedSums:
        modes.append(ReorderedSums(order))
        return modes[-1]

    for order in ORDERS:
        if order == "sequential" and all(mode.only_running_sums for mode in modes):
            found.append(found[0])
            continue
        outputs = run_function(
            problem,
            problem.function,
            inputs,
            scalars,
            inside=inside,
            around=lambda o=order: ordered(o),
        )
        found.append(tuple(value.contiguous() for value in outputs))
    return found


def run_terms(problem: Problem, inputs: Tensors, scalars: Scalars) -> dict[str, Tensor | None]:
    """Σ|terms| of each output by name, in float64; None where the problem states none."""
    names = [output.name for output in problem.signature.outputs]
    if problem.terms_function is None:
        return dict.fromkeys(names)
    with torch.no_grad(), computing_for(workload_dtype(problem, inputs)):
        stated = problem.terms_function(**_widened(inputs, torch.float64), **scalars)
    stated = stated if isinstance(stated, tuple) else (stated,)
    return dict(zip(names, stated, strict=True))


def run_function(
    problem: Problem,
    function: Callable[..., Any],
    inputs: Tensors,
    scalars: Scalars,
    *,
    inside: torch.dtype | None = None,
    around: Callable[[], Any] = nullcontext,
    slice_points: int | None = SLICE_POINTS,
) -> tuple[Tensor, ...]:
    """Call the reference, or a function that is called like it.

    Args:
        problem: The problem whose signature holds.
        function: Takes inputs and scalars by name.
        inputs: By name.
        scalars: By name.
        inside: Compute in this floating dtype: inputs are widened, `round_to` rounds to the
            workload's dtype, and the problem is sliced where it allows. None: as given.
        around: Makes a context that each call runs in.
        slice_points: Points of the index space in one slice; None: never slice.

    Returns:
        The outputs, floats as computed, integers in their declared dtypes.

    Raises:
        ProblemError: the function failed, or its results do not fit the signature.
    """
    if inside is None:
        with torch.no_grad(), around():
            return _call(problem, function, inputs, scalars)
    dtype = workload_dtype(problem, inputs)
    wide = _widened(inputs, inside)
    if slice_points is not None and any(t.device.type != "cpu" for t in wide.values()):
        slice_points = max(slice_points, DEVICE_SLICE_POINTS)
    pieces: list[tuple[Tensor, ...]] = []
    with torch.no_grad(), computing_for(dtype):
        for piece in _slices(problem, wide, scalars, slice_points):
            with around():
                pieces.append(_call(problem, function, piece, scalars))
    if len(pieces) == 1:
        return pieces[0]
    axes = [
        output.dims.index(problem.declaration.slices or "") for output in problem.signature.outputs
    ]
    return tuple(
        torch.cat(parts, axis) for parts, axis in zip(zip(*pieces, strict=True), axes, strict=True)
    )


def round_outputs(problem: Problem, outputs: Sequence[Tensor], dtype: Dtype) -> tuple[Tensor, ...]:
    """Outputs rounded once to their declared dtypes."""
    return tuple(
        value.to(torch_dtype(argument.resolve(dtype))).contiguous()
        for value, argument in zip(outputs, problem.signature.outputs, strict=True)
    )


def _widened(inputs: Tensors, inside: torch.dtype) -> dict[str, Tensor]:
    return {n: t.to(inside) if t.is_floating_point() else t for n, t in inputs.items()}


def _call(
    problem: Problem, function: Callable[..., Any], inputs: Tensors, scalars: Scalars
) -> tuple[Tensor, ...]:
    try:
        result = function(**inputs, **scalars)
    except ProblemError:
        raise
    except Exception as error:
        shapes = ", ".join(f"{n} {list(t.shape)} {t.dtype}" for n, t in inputs.items())
        reason = str(error).strip().partition("\n")[0]
        raise ProblemError(
            f"the problem '{problem.name}' fails on {shapes}: {type(error).__name__}: {reason}"
        ) from error
    outputs = tuple(result) if isinstance(result, tuple | list) else (result,)
    declared = problem.signature.outputs
    if len(outputs) != len(declared) or not all(isinstance(o, Tensor) for o in outputs):
        raise ProblemError(
            f"the problem '{problem.name}' declares {len(declared)} tensors as its result but "
            f"returned {len(outputs)} ({', '.join(type(o).__name__ for o in outputs)})"
        )
    _check_shapes(problem, inputs, outputs, scalars)
    return tuple(
        value.to(torch_dtype(argument.dtype))
        if argument.dtype is not None and not argument.dtype.is_float
        else value
        for value, argument in zip(outputs, declared, strict=True)
    )


def _check_shapes(
    problem: Problem, inputs: Tensors, outputs: Sequence[Tensor], scalars: Scalars
) -> None:
    """Compare result shapes with the signature, as far as plain axes of the inputs tell sizes."""
    sizes = {name: value for name, value in scalars.items() if isinstance(value, int)}
    for argument in problem.signature.inputs:
        sizes |= zip(argument.dims, inputs[argument.name].shape, strict=True)
    for argument, value in zip(problem.signature.outputs, outputs, strict=True):
        if value.ndim == len(argument.dims):
            known = all(
                d not in sizes or sizes[d] == n
                for d, n in zip(argument.dims, value.shape, strict=True)
            )
            if known:
                continue
        raise ProblemError(
            f"the problem '{problem.name}': the result '{argument.name}' has the shape "
            f"{tuple(value.shape)}, declared is ({', '.join(argument.dims)}) with "
            f"{', '.join(f'{k}={v}' for k, v in sizes.items() if k.isidentifier())}"
        )


def _slices(
    problem: Problem, inputs: Tensors, scalars: Scalars, points: int | None
) -> Iterator[dict[str, Tensor]]:
    """Inputs cut along the problem's sliced size, so that no piece is large; else all at once."""
    name = problem.declaration.slices
    axes = {
        argument.name: argument.dims.index(name)
        for argument in problem.signature.inputs
        if name in argument.dims
    }
    if name is None or points is None or not axes:
        yield dict(inputs)
        return
    sizes = _sizes(problem, inputs, scalars)
    total = sizes[name]
    step = max(1, points // max(work(problem.declaration, {**sizes, name: 1}), 1))
    for start in range(0, total, step):
        size = min(step, total - start)
        yield {
            key: tensor.narrow(axes[key], start, size) if key in axes else tensor
            for key, tensor in inputs.items()
        }


def _sizes(problem: Problem, inputs: Tensors, scalars: Scalars) -> dict[str, int]:
    """Every size, told by scalars, plain axes, then expressions; else the least in its range."""
    known = {n: int(v) for n, v in scalars.items() if n in problem.size_names}
    axes = [
        (dim, extent)
        for argument in problem.signature.inputs
        for dim, extent in zip(argument.dims, inputs[argument.name].shape, strict=True)
    ]
    known |= {dim: extent for dim, extent in axes if dim in problem.size_names}
    for dim, extent in axes:
        unknown = [n for n in dimension_names(dim) if n not in known]
        if len(unknown) == 1:
            low, high = problem.ranges[unknown[0]]
            fits = range(low, high + 1)
            # expressions with one unknown grow with it, but for what is subtracted
            at = bisect_left(fits, extent, key=lambda v: _extent(dim, {**known, unknown[0]: v}))
            known[unknown[0]] = fits[min(at, len(fits) - 1)]
    return {n: known.get(n, problem.ranges[n][0]) for n in problem.size_names}


def _extent(dim: str, sizes: Mapping[str, int]) -> int:
    try:
        return evaluate_dimension(dim, sizes)
    except ProblemError:
        return -1
