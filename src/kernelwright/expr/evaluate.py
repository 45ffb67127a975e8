"""A NumPy interpreter of programs: slow, plain, and what the other readers are tested against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernelwright.errors import Unsupported
from kernelwright.expr.arrays import NUMPY_OPERATIONS, round_to
from kernelwright.expr.nodes import (
    Apply,
    Axis,
    Constant,
    Extent,
    Load,
    Node,
    Order,
    Parameter,
    Program,
    Reduce,
    Scan,
    walk,
)
from kernelwright.expr.simplify import axis_extents
from kernelwright.model import Dtype, Scalar, evaluate_dimension

Array = NDArray[Any]


@dataclass(frozen=True)
class _Value:
    """An array whose dimensions are the named index variables, in the interpreter's order."""

    axes: tuple[str, ...]
    data: Array


def evaluate(
    program: Program,
    inputs: Mapping[str, Array],
    scalars: Mapping[str, Scalar],
    sizes: Mapping[str, int],
    workload_dtype: Dtype = Dtype.F32,
) -> dict[str, Array]:
    """Values of the outputs, floats computed in float64.

    Args:
        program: what to compute.
        inputs: every input tensor by name; floats are converted to float64.
        scalars: every scalar parameter by name.
        sizes: every dimension name.
        workload_dtype: what `round_to_workload` rounds to.

    Returns:
        Each output by name, shaped as declared. An element read outside its tensor is NaN (or the
        least integer), which is harmless only where a `where` does not choose it.
    """
    known = dict(sizes) | {n: v for n, v in scalars.items() if type(v) is int}
    run = _Run(program, inputs, scalars, known, workload_dtype)
    with np.errstate(all="ignore"):
        return {o.name: run.output(o.axes, o.body) for o in program.outputs}


class _Run:
    def __init__(
        self,
        program: Program,
        inputs: Mapping[str, Array],
        scalars: Mapping[str, Scalar],
        sizes: Mapping[str, int],
        dtype: Dtype,
    ) -> None:
        extents = axis_extents(program)
        self._extent = {axis: evaluate_dimension(dim, sizes) for axis, dim in extents.items()}
        self._order = {axis: position for position, axis in enumerate(self._extent)}
        self._inputs = {name: _widen(np.asarray(array)) for name, array in inputs.items()}
        self._scalars, self._sizes, self._dtype = scalars, sizes, dtype
        self._values: dict[Node, _Value] = {}

    def output(self, axes: tuple[str, ...], body: Node) -> Array:
        for node in walk(body):
            if node not in self._values:
                self._values[node] = self._one(node)
        value = self._values[body]
        data = self._align(value, tuple(sorted(axes, key=self._order.__getitem__)))
        shape = tuple(self._extent[a] for a in sorted(axes, key=self._order.__getitem__))
        data = np.broadcast_to(data, shape)
        ordered = sorted(axes, key=self._order.__getitem__)
        return np.ascontiguousarray(np.transpose(data, [ordered.index(a) for a in axes])).reshape(
            tuple(self._extent[a] for a in axes)
        )

    def _one(self, node: Node) -> _Value:
        match node:
            case Constant():
                return _Value((), np.asarray(node.value))
            case Parameter():
                return _Value((), np.asarray(self._scalars[node.name]))
            case Extent():
                return _Value((), np.asarray(evaluate_dimension(node.dim, self._sizes)))
            case Axis():
                return _Value((node.name,), np.arange(self._extent[node.name]))
            case Load():
                source = self._inputs[node.tensor]
                return self._gather(source, [self._values[i] for i in node.indices])
            case Apply():
                return self._apply(node)
            case Reduce():
                return self._reduce(node)
            case Order():
                return self._order_of(node)
            case Scan():
                return self._scan(node)
            case _:
                raise TypeError(f"unknown node {type(node).__name__}")

    def _align(self, value: _Value, axes: tuple[str, ...]) -> Array:
        shape = [self._extent[a] if a in value.axes else 1 for a in axes]
        return value.data.reshape(shape)

    def _together(self, values: list[_Value]) -> tuple[tuple[str, ...], list[Array]]:
        names = {axis for value in values for axis in value.axes}
        axes = tuple(sorted(names, key=self._order.__getitem__))
        return axes, [self._align(value, axes) for value in values]

    def _apply(self, node: Apply) -> _Value:
        axes, arrays = self._together([self._values[arg] for arg in node.args])
        if node.op.startswith("round_to_"):
            name = node.op.removeprefix("round_to_")
            return _Value(
                axes, round_to(arrays[0], self._dtype if name == "workload" else Dtype(name))
            )
        function = NUMPY_OPERATIONS.get(node.op)
        if function is None:
            raise Unsupported(f"the interpreter has no operation '{node.op}'")
        return _Value(axes, np.asarray(function(*arrays)))

    def _gather(self, source: Array, indices: list[_Value]) -> _Value:
        if not indices:
            return _Value((), source.reshape(()))
        axes, arrays = self._together(indices)
        inside = np.asarray(True)
        clipped: list[Array] = []
        for array, extent in zip(arrays, source.shape, strict=True):
            inside = inside & (array >= 0) & (array < extent)
            clipped.append(np.clip(array, 0, extent - 1))
        data = source[tuple(np.broadcast_arrays(*clipped))]
        if not inside.all():
            outside = np.nan if data.dtype.kind == "f" else np.iinfo(np.int64).min
            data = np.where(inside, data, outside)
        return _Value(axes, data)

    def _with_axis(self, value: _Value, axis: str) -> _Value:
        """The value spread over an axis that it may not depend on."""
        axes, (data, _) = self._together([value, _Value((axis,), np.arange(self._extent[axis]))])
        shape = tuple(self._extent[a] for a in axes)
        return _Value(axes, np.broadcast_to(data, shape))

    def _reduce(self, node: Reduce) -> _Value:
        body = self._with_axis(self._values[node.body], node.axis)
        position = body.axes.index(node.axis)
        functions: dict[str, Any] = {
            "sum": np.sum, "prod": np.prod, "max": np.max, "min": np.min,
            "argmax": np.argmax, "argmin": np.argmin, "any": np.any, "all": np.all,
        }  # fmt: skip
        data = functions[node.op](body.data, axis=position)
        return _Value(body.axes[:position] + body.axes[position + 1 :], np.asarray(data))

    def _scan(self, node: Scan) -> _Value:
        body = self._with_axis(self._values[node.body], node.axis)
        sums = np.cumsum(body.data, axis=body.axes.index(node.axis))
        return self._taken(_Value(body.axes, sums), node)

    def _order_of(self, node: Order) -> _Value:
        body = self._with_axis(self._values[node.body], node.axis)
        missing, data = np.isnan(body.data), body.data
        if node.largest:
            # the complement of an integer never overflows
            data = -data if data.dtype.kind == "f" else ~data
            missing = ~missing
        found = np.lexsort((data, missing), axis=body.axes.index(node.axis))
        return self._taken(_Value(body.axes, found), node)

    def _taken(self, along: _Value, node: Scan) -> _Value:
        """The element at the position that a node asks for."""
        indices = [_Value((axis,), np.arange(self._extent[axis])) for axis in along.axes]
        indices[along.axes.index(node.axis)] = self._values[node.at]
        return self._gather(along.data, indices)


def _widen(array: Array) -> Array:
    if array.dtype.kind == "f":
        return array.astype(np.float64)
    return array.astype(np.int64) if array.dtype.kind in "iu" else array
