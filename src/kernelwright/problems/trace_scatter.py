"""Lowerings of scattered sums: every target sums over all sources and picks its own by index.

    counts[b] = sum[n < N](key[n] == b)

A sum over sources that picks those of one target is written so, and never computed so: recipes
know the form, generators leave it alone (`expr.scatter`).
"""

from __future__ import annotations

from kernelwright.errors import Unsupported
from kernelwright.expr import Apply, Axis, Constant, Node, Reduce
from kernelwright.expr.nodes import Kind
from kernelwright.problems.trace_call import Array, Call, cast, lowers


@lowers("bincount")
def _bincount(call: Call) -> Array:
    keys, bound = call.array(), call.context.fresh()
    weights = call.array("weights") if call.get("weights") is not None else None

    def make(i: list[Node]) -> Node:
        own = Apply("eq", (keys.at([Axis(bound)]), i[0]))
        if weights is None:
            return Reduce("sum", bound, keys.dims[0].text, cast(own, "bool", "int"))
        value = cast(weights.at([Axis(bound)]), weights.kind, "float")
        return Reduce("sum", bound, keys.dims[0].text, _where(own, value, "float"))

    return call.context.array(call.dims(), call.kind, make)


@lowers("scatter_add")
def _scatter_add(call: Call) -> Array:
    array, index, source = call.array(), call.array("index"), call.array("src")
    axis = array.axis(call.static("dim"))
    others = [k for k in range(array.rank) if k != axis]
    if any(index.dims[k].values != array.dims[k].values for k in others):
        raise Unsupported("scatter_add with an index smaller than its target")
    return _summed(call, array, axis, index, source)


@lowers("index_add")
def _index_add(call: Call) -> Array:
    array, index, source = call.array(), call.array("index"), call.array("source")
    if set(call.get("alpha").values) != {1}:
        raise Unsupported("index_add with a factor")
    return _summed(call, array, array.axis(call.static("dim")), index, source)


def _summed(call: Call, array: Array, axis: int, index: Array, source: Array) -> Array:
    """A target plus the sum of those sources along an axis whose index is the target's."""
    bound = call.context.fresh()
    extent = index.dims[axis if index.rank == array.rank else 0].text

    def make(i: list[Node]) -> Node:
        at = [Axis(bound) if k == axis else x for k, x in enumerate(i)]
        key = index.at(at if index.rank == array.rank else [Axis(bound)])
        value = cast(source.at(at), source.kind, array.kind)
        picked = _where(Apply("eq", (key, i[axis])), value, array.kind)
        return Apply("add", (array.at(i), Reduce("sum", bound, extent, picked)))

    return call.context.array(array.dims, array.kind, make)


def _where(condition: Node, value: Node, kind: Kind) -> Node:
    return Apply("where", (condition, value, cast(Constant(0), "int", kind)))
