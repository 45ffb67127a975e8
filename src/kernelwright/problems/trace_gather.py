"""Lowerings of gathers: index expressions that read integer tensors."""

from __future__ import annotations

from kernelwright.errors import Unsupported
from kernelwright.expr import Apply, Constant, Node
from kernelwright.problems.trace_call import Array, Call, cast, lowers
from kernelwright.problems.trace_unify import Dim
from kernelwright.problems.trace_views import at_axis, remap


@lowers("index_select")
def _index_select(call: Call) -> Array:
    array, index = call.array(), call.array("index")
    axis = array.axis(call.static("dim"))
    return remap(call, lambda i: at_axis(i, axis, lambda x: index.spread([x])))


@lowers("embedding")
def _embedding(call: Call) -> Array:
    table, index = call.array("weight"), call.array("indices")
    return call.context.array(
        call.dims(), table.kind, lambda i: table.at([index.at(i[:-1]), i[-1]])
    )


@lowers("gather")
def _gather(call: Call) -> Array:
    array, index = call.array(), call.array("index")
    axis = array.axis(call.static("dim"))

    def make(i: list[Node]) -> list[Node]:
        own = [Constant(0) if dim.is_one else x for dim, x in zip(array.dims, i, strict=True)]
        own[axis] = index.at(i)
        return own

    return remap(call, make)


@lowers("index")
def _index(call: Call) -> Array:
    array = call.array()
    given = call.get("indices")
    indices = [None if index is None else call.as_array(index) for index in given]
    indices += [None] * (array.rank - len(indices))
    used = [k for k, index in enumerate(indices) if index is not None]
    tensors = [index for index in indices if index is not None]
    if any(index.kind == "bool" for index in tensors):
        raise Unsupported("indexing by a mask has a data-dependent shape")
    rank = max(index.rank for index in tensors)
    # indices side by side keep their place, apart from each other they come first
    place = used[0] if used == list(range(used[0], used[0] + len(used))) else 0

    def make(i: list[Node]) -> list[Node]:
        common = i[place : place + rank]
        rest = [*i[:place], *i[place + rank :]]
        own: list[Node] = []
        for k, index in enumerate(indices):
            own.append(
                rest.pop(0) if index is None else _wrapped(call, index, array.dims[k], common)
            )
        return own

    return remap(call, make)


def _wrapped(call: Call, index: Array, dim: Dim, common: list[Node]) -> Node:
    value = index.spread(common)
    wrapped = _apply("add", value, call.context.extent(dim))
    return _apply("where", _apply("lt", value, Constant(0)), wrapped, value)


@lowers("index_put")
def _index_put(call: Call) -> Array:
    array, value = call.array(), call.array("values")
    indices = call.get("indices")
    mask = call.as_array(indices[0]) if len(indices) == 1 and indices[0] is not None else None
    if mask is None or mask.kind != "bool" or value.rank or call.static("accumulate"):
        raise Unsupported("assignment to scattered elements")

    def make(i: list[Node]) -> Node:
        chosen = cast(value.body, value.kind, array.kind)
        return _apply("where", mask.at(i[: mask.rank]), chosen, array.at(i))

    return call.context.array(array.dims, array.kind, make)


def _apply(name: str, *args: Node) -> Node:
    return Apply(name, args)
