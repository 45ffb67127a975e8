"""Tracing a torch reference into the expression form.

The reference runs at several settings of its sizes and scalars (`trace_record`); the tapes must
agree in structure, and numbers that vary between them are fitted to dimensions and parameters
(`trace_unify`). Each operation is then lowered to index notation (`trace_pointwise`,
`trace_views`, `trace_reductions`). At last the program is run beside the reference at sizes that
were not traced: a number that was fitted wrongly, or Python code that branches on a value, shows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from kernelwright.errors import ProblemError, Unsupported
from kernelwright.expr import Apply, Axis, Load, Output, Parameter, Program, evaluate, simplify
from kernelwright.expr.kinds import dtype_kind
from kernelwright.expr.nodes import Kind
from kernelwright.model import Dtype, Signature, evaluate_dimension
from kernelwright.problems import (
    trace_convolution,
    trace_gather,
    trace_order,
    trace_pointwise,
    trace_reductions,
    trace_scatter,
    trace_views,
)
from kernelwright.problems.rounding import computing_for
from kernelwright.problems.trace_call import LOWERINGS, Array, Call, Context, Number, cast
from kernelwright.problems.trace_record import Ref, Tape, record
from kernelwright.problems.trace_settings import Drawn, settings_for
from kernelwright.problems.trace_unify import Setting, Unifier

if TYPE_CHECKING:
    from kernelwright.problems.declaration import InputMaker, Problem

__all__ = ["trace", "trace_program"]

_LOWERED_BY = (
    trace_convolution, trace_gather, trace_order, trace_pointwise, trace_reductions, trace_scatter,
    trace_views,
)  # fmt: skip
_MULTIPLES = (1, 2, 8, 64, 128)
"""Sizes are tried as multiples of these: a reference may split an axis into blocks."""

Ranges = Mapping[str, tuple[int, int]]


def trace_program(problem: Problem, dtype: Dtype | None = None) -> Program:
    """The expression form of a problem's reference.

    Args:
        problem: what is traced; its `normal` inputs say which integers the reference may meet.
        dtype: that of the workload, by default the problem's first. The form is the same for all
            floating dtypes; an integer one becomes the fixed element type of the signature.

    Raises:
        Unsupported: the reference is outside the form; the message names the operation.
    """
    signature, dtype = problem.signature, dtype or problem.dtypes[0]
    if not dtype.is_float:
        signature = signature.resolved(dtype)
    return trace(problem.function, signature, problem.ranges, problem.makers.get("normal"))


def trace(
    function: Callable[..., Any],
    signature: Signature,
    ranges: Ranges,
    maker: InputMaker | None = None,
) -> Program:
    """The expression form of a reference.

    Args:
        function: the reference; tensors and scalars are passed by their names.
        signature: its inputs, outputs and scalars.
        ranges: least and greatest size by dimension name; an absent name is unlimited.
        maker: makes the integer inputs; those that it leaves out hold zeros and ones.

    Returns:
        The program in simplest form, checked against the reference at sizes not traced.

    Raises:
        Unsupported: the reference is outside the form; the message names the operation.
    """
    refusal = Unsupported("the reference cannot run at any size that was tried")
    for multiple in _MULTIPLES:
        try:
            return _trace_at(Drawn(function, signature, maker), ranges, multiple)
        except Unsupported as error:
            raise error from None
        except RecursionError:
            raise Unsupported("the reference is too long for the expression form") from None
        except (RuntimeError, ValueError, IndexError, AssertionError, ProblemError) as error:
            drawn = _with_integers(signature)
            refusal = Unsupported(f"the reference cannot be traced{drawn}: {_first_line(error)}")
    raise refusal


def _with_integers(signature: Signature) -> str:
    """Says which inputs a reference may be too choosy about: they are drawn without its makers."""
    fixed = [t for t in signature.inputs if t.dtype is not None and not t.dtype.is_float]
    names = ", ".join(t.name for t in fixed if t.dtype is not Dtype.BOOL)
    return f" with arbitrary integers in {names}" if names else ""


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _trace_at(drawn: Drawn, ranges: Ranges, multiple: int) -> Program:
    signature = drawn.signature
    flags = [scalar.name for scalar in signature.scalars if scalar.kind == "bool"]
    if len(flags) > 3:
        raise Unsupported("more than three bool parameters")
    bodies: dict[tuple[bool, ...], Sequence[Output]] = {}
    for values in itertools.product((False, True), repeat=len(flags)):
        chosen = dict(zip(flags, values, strict=True))
        *settings, unseen = settings_for(signature, ranges, multiple, chosen)
        program = _trace_settings(drawn, settings)
        _verify(drawn, program, unseen)
        bodies[values] = program.outputs
    return simplify(Program(signature, _by_flags(flags, bodies)))


def _by_flags(
    flags: Sequence[str], bodies: Mapping[tuple[bool, ...], Sequence[Output]]
) -> tuple[Output, ...]:
    """One program for all values of the bool parameters, which may steer Python."""
    if not flags:
        return tuple(bodies[()])
    halves = [
        _by_flags(flags[1:], {rest: o for (first, *tail), o in bodies.items()
                              if first is value and (rest := tuple(tail)) is not None})
        for value in (True, False)
    ]  # fmt: skip
    condition = Parameter(flags[0], "bool")
    merged: list[Output] = []
    for yes, no in zip(*halves, strict=True):
        other = Array(no.axes, (), no.body, "float").at([Axis(name) for name in yes.axes])
        body = Apply("where", (condition, yes.body, other))
        merged.append(Output(yes.name, yes.axes, yes.dims, body))
    return tuple(merged)


def _trace_settings(drawn: Drawn, settings: Sequence[Setting]) -> Program:
    function, signature = drawn.function, drawn.signature
    tapes = [
        record(function, drawn.inputs(setting, torch.float32), dict(setting.scalars))
        for setting in settings
    ]
    declared = [dim for tensor in signature.tensors for dim in tensor.dims]
    unifier = Unifier(settings, declared, signature.scalars)
    values = _lower(signature, tapes, Context(unifier))
    if len(tapes[0].results) != len(signature.outputs):
        raise Unsupported(
            f"the reference returns {len(tapes[0].results)} tensors, "
            f"the signature says {len(signature.outputs)}"
        )
    outputs: list[Output] = []
    for tensor, ref in zip(signature.outputs, tapes[0].results, strict=True):
        array = values[ref]
        for dim, text in zip(array.dims, tensor.dims, strict=False):
            if dim.values != unifier.declared(text).values:
                raise Unsupported(f"the output '{tensor.name}' is not shaped as declared")
        if array.rank != len(tensor.dims):
            raise Unsupported(f"the output '{tensor.name}' has {array.rank} dimensions")
        body = cast(array.body, array.kind, dtype_kind(tensor.dtype))
        outputs.append(Output(tensor.name, array.axes, tensor.dims, body))
    return simplify(Program(signature, tuple(_unshared(outputs))))


def _unshared(outputs: Sequence[Output]) -> list[Output]:
    """Outputs may be views of one another: give each its own axes."""
    result: list[Output] = []
    for number, output in enumerate(outputs):
        axes = tuple(f"{axis}@{number}" for axis in output.axes)
        body = Array(output.axes, (), output.body, "float").at([Axis(a) for a in axes])
        result.append(Output(output.name, axes, output.dims, body))
    return result


def _lower(signature: Signature, tapes: Sequence[Tape], context: Context) -> dict[Ref, Array]:
    first = tapes[0]
    if any([call.op for call in t.calls] != [call.op for call in first.calls] for t in tapes):
        raise Unsupported("the reference does different operations at different sizes or scalars")
    values: dict[Ref, Array] = {}
    for tensor in signature.inputs:
        dims = [context.unifier.declared(dim) for dim in tensor.dims]
        kind = dtype_kind(tensor.dtype)
        values[first.inputs[tensor.name]] = context.array(
            dims, kind, lambda i, name=tensor.name: Load(name, tuple(i))
        )
    for ref, value in first.constants.items():
        number = Number((value, *(t.constants.get(ref, value) for t in tapes[1:])))
        call = Call(context, "a constant tensor", {"self": number}, (), ())
        scalar = call.array()
        dims = context.unifier.dim((1,) * len(tapes))
        shape = [dims] * len(first.shapes[ref])
        values[ref] = context.array(shape, scalar.kind, lambda i, body=scalar.body: body)
    for position, recorded in enumerate(first.calls):
        same = [tape.calls[position] for tape in tapes]
        arguments = {
            name: _merge([call.arguments[name] for call in same], values)
            for name in recorded.arguments
        }
        shapes = tuple(tuple(t.shapes[ref] for t in tapes) for ref in recorded.outputs)
        kinds: tuple[Kind, ...] = tuple(_kind(first.dtypes[ref]) for ref in recorded.outputs)
        call = Call(context, recorded.op, arguments, shapes, kinds)
        result = LOWERINGS[recorded.op](call)
        arrays = [result] if isinstance(result, Array) else list(result)
        values.update(zip(recorded.outputs, arrays, strict=False))
    return values


def _merge(seen: Sequence[Any], values: Mapping[Ref, Array]) -> Any:
    """One argument over all runs: an array, a number, a list of such, or what it is."""
    first = seen[0]
    if isinstance(first, Ref):
        if any(ref != first for ref in seen):
            raise Unsupported("the reference uses different tensors at different sizes")
        return values[first]
    if isinstance(first, list):
        if any(len(other) != len(first) for other in seen):
            raise Unsupported("the reference uses lists of different lengths at different sizes")
        return [_merge(items, values) for items in zip(*seen, strict=True)]
    if isinstance(first, bool | int | float):
        return Number(tuple(seen))
    if any(other != first for other in seen):
        raise Unsupported("the reference does different things at different sizes")
    return first


def _kind(dtype: torch.dtype) -> Kind:
    if dtype.is_complex:
        raise Unsupported("complex numbers have no place in the expression form")
    return "float" if dtype.is_floating_point else "bool" if dtype is torch.bool else "int"


def _verify(drawn: Drawn, program: Program, setting: Setting) -> None:
    """Compare the program with the reference in float64, at a setting that was not traced.

    Raises:
        Unsupported: they differ: the reference depends on sizes or scalars in an unseen way.
    """
    signature = program.signature
    tensors = drawn.inputs(setting, torch.float64)
    with torch.no_grad(), computing_for(Dtype.F32):
        result = drawn.function(**{n: t.clone() for n, t in tensors.items()}, **setting.scalars)
    expected = result if isinstance(result, list | tuple) else (result,)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    actual = evaluate(program, arrays, setting.scalars, setting.sizes, Dtype.F32)
    for tensor, value in zip(signature.outputs, expected, strict=True):
        want, got = value.to(torch.float64).numpy(), actual[tensor.name].astype(np.float64)
        shape = tuple(evaluate_dimension(dim, setting.sizes) for dim in tensor.dims)
        # references may round inside, by casts to float32 or by round_to
        if want.shape != shape or not np.allclose(got, want, rtol=1e-4, atol=1e-5, equal_nan=True):
            raise Unsupported(
                f"the output '{tensor.name}' depends on sizes or scalars in a way "
                "that three runs of the reference did not show"
            )
