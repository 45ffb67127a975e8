"""What a lowering works with: symbolic arrays, and one recorded operation seen in all runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from kernelwright.errors import Unsupported
from kernelwright.expr import Apply, Axis, Constant, Node, Reduce, substitute
from kernelwright.expr.nodes import Kind, ReduceOp
from kernelwright.problems.trace_unify import Dim, Unifier


@dataclass(frozen=True)
class Array:
    """A tensor as a term over its own index variables."""

    axes: tuple[str, ...]
    dims: tuple[Dim, ...]
    body: Node
    kind: Kind

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.axes)

    def at(self, indices: Sequence[Node]) -> Node:
        """The element at an index, one term for each axis."""
        moved = {
            axis: index
            for axis, index in zip(self.axes, indices, strict=True)
            if not (isinstance(index, Axis) and index.name == axis)
        }
        return substitute(self.body, moved) if moved else self.body

    def spread(self, indices: Sequence[Node]) -> Node:
        """The element at an index of a tensor that this one is broadcast to."""
        own = indices[len(indices) - self.rank :]
        pairs = zip(self.dims, own, strict=True)
        return self.at([Constant(0) if dim.is_one else index for dim, index in pairs])

    def axis(self, number: int) -> int:
        """An axis number as it counts from the front."""
        return number % self.rank if self.rank else 0


@dataclass(frozen=True)
class Number:
    """A Python number, as it was in each run."""

    values: tuple[Any, ...]


class Context:
    """What all lowerings of one trace share: fresh index variables and fitted numbers."""

    def __init__(self, unifier: Unifier) -> None:
        """Start numbering."""
        self.unifier = unifier
        self._counter = itertools.count()

    def fresh(self) -> str:
        """An index variable that no term has yet."""
        return f"_{next(self._counter)}"

    def array(self, dims: Sequence[Dim], kind: Kind, make: Callable[[list[Node]], Node]) -> Array:
        """The tensor whose element at an index is what `make` gives for its index variables."""
        axes = tuple(self.fresh() for _ in dims)
        return Array(axes, tuple(dims), make([Axis(axis) for axis in axes]), kind)

    def extent(self, dim: Dim) -> Node:
        """The size of an axis, as an integer term."""
        return self.unifier.integer(dim.values)


class Call:
    """One operation: arguments by the schema's names, and what came out in each run."""

    def __init__(
        self,
        context: Context,
        op: str,
        arguments: dict[str, Any],
        shapes: tuple[tuple[tuple[int, ...], ...], ...],
        kinds: tuple[Kind, ...],
    ) -> None:
        """Take merged arguments; `shapes` has one tuple per output with each run's shape."""
        self.context = context
        self.op = op
        self.arguments = arguments
        self._shapes = shapes
        self.kinds = kinds

    @property
    def kind(self) -> Kind:
        """Kind of the first output's elements."""
        return self.kinds[0]

    def dims(self, output: int = 0) -> tuple[Dim, ...]:
        """Shape of an output."""
        return tuple(self.context.unifier.dim(v) for v in zip(*self._shapes[output], strict=True))

    def get(self, name: str) -> Any:
        """An argument as it is; None where the schema has no such argument."""
        return self.arguments.get(name)

    def array(self, name: str = "self") -> Array:
        """A tensor argument; a number becomes a tensor without axes."""
        return self.as_array(self.get(name))

    def as_array(self, value: Any) -> Array:
        """A tensor, or a number as a tensor without axes."""
        if isinstance(value, Array):
            return value
        if isinstance(value, Number):
            node, kind = self.term(value)
            return Array((), (), node, kind)
        raise Unsupported(f"{self.op} has an argument that is no tensor")

    def arrays(self, name: str) -> list[Array]:
        """A list of tensors."""
        return [self.as_array(value) for value in self.get(name)]

    def term(self, number: Number) -> tuple[Node, Kind]:
        """A number as a term."""
        values = number.values
        if all(isinstance(v, bool) for v in values):
            return Constant(self.fixed(number)), "bool"
        if all(isinstance(v, int) for v in values):
            return self.context.unifier.integer(values), "int"
        return self.context.unifier.number(tuple(float(v) for v in values)), "float"

    def fixed(self, number: Any) -> Any:
        """A number that must be the same in all runs, or None."""
        if number is None or not isinstance(number, Number):
            return number
        if any(v != number.values[0] for v in number.values):
            raise Unsupported(f"{self.op} has an argument that varies with the sizes")
        return number.values[0]

    def static(self, name: str) -> Any:
        """An argument (a number or a list of them) that must be the same in all runs."""
        value = self.get(name)
        if isinstance(value, list):
            return [self.fixed(v) for v in value]
        return self.fixed(value)

    def optional_int(self, name: str) -> tuple[int, ...] | None:
        """An integer argument's value in each run."""
        value = self.get(name)
        return None if value is None else tuple(int(v) for v in value.values)


Lowering = Callable[[Call], Array | Sequence[Array]]
LOWERINGS: dict[str, Lowering] = {}
"""Lowerings by operation, without its overload, such as `aten.add`."""

L = TypeVar("L", bound=Lowering)


def lowers(*names: str) -> Callable[[L], L]:
    """Register a lowering for these operations of the `aten` namespace."""

    def register(lowering: L) -> L:
        for name in names:
            LOWERINGS[name if "." in name else f"aten.{name}"] = lowering
        return lowering

    return register


def cast(node: Node, source: Kind, target: Kind) -> Node:
    """A term converted from one kind to another."""
    if source == target:
        return node
    if isinstance(node, Constant):
        if target == "int" and not math.isfinite(node.value):
            raise Unsupported("an infinite value becomes an integer")
        return Constant({"float": float, "int": int, "bool": bool}[target](node.value))
    return Apply(f"to_{target}", (node,))


def reduce_over(context: Context, op: ReduceOp, array: Array, axes: Sequence[int]) -> Array:
    """Reduce some axes, the last of them innermost; a reduced axis stays, with one element."""
    bound = {axis: context.fresh() for axis in axes}
    indices = [Axis(bound.get(i, name)) for i, name in enumerate(array.axes)]
    body = array.at(indices)
    for axis in sorted(axes, reverse=True):
        body = Reduce(op, bound[axis], array.dims[axis].text, body)
    ones = tuple(1 for _ in array.dims[0].values) if array.dims else ()
    dims = tuple(Dim("1", ones) if i in bound else d for i, d in enumerate(array.dims))
    return Array(array.axes, dims, body, array.kind)


def squeeze(array: Array, axes: Sequence[int]) -> Array:
    """Drop axes of one element."""
    dropped = {array.axes[i] for i in axes}
    kept = [i for i in range(array.rank) if i not in set(axes)]
    body = substitute(array.body, {axis: Constant(0) for axis in dropped})
    return Array(
        tuple(array.axes[i] for i in kept), tuple(array.dims[i] for i in kept), body, array.kind
    )


def pointwise(
    context: Context,
    op: str,
    kind: Kind,
    args: Sequence[Array],
    within: Kind | None = None,
) -> Array:
    """Apply an operation elementwise with broadcasting.

    Args:
        context: of the trace.
        op: an expression operation.
        kind: kind of the result.
        args: the operands, at least one.
        within: the kind that operands are converted to first; None keeps them.
    """
    dims = broadcast([arg.dims for arg in args])
    first = next((arg for arg in args if arg.dims == dims), None)
    axes = first.axes if first is not None else tuple(context.fresh() for _ in dims)
    indices = [Axis(axis) for axis in axes]
    terms = [
        arg.spread(indices) if within is None else cast(arg.spread(indices), arg.kind, within)
        for arg in args
    ]
    return Array(axes, dims, Apply(op, tuple(terms)), kind)


def broadcast(shapes: Sequence[tuple[Dim, ...]]) -> tuple[Dim, ...]:
    """The shape that all shapes broadcast to."""
    rank = max(len(shape) for shape in shapes)
    result: list[Dim] = []
    for position in range(-rank, 0):
        dims = [shape[position] for shape in shapes if len(shape) >= -position]
        result.append(next((dim for dim in dims if not dim.is_one), dims[0]))
    return tuple(result)
