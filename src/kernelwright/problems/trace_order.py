"""Lowerings of sorting and selection: values are loads at the index that an order gives."""

from __future__ import annotations

from kernelwright.errors import Unsupported
from kernelwright.expr import Axis, Node, Order
from kernelwright.problems.trace_call import Array, Call, lowers


@lowers("sort")
def _sort(call: Call) -> tuple[Array, Array]:
    return _ordered(call, bool(call.static("descending")))


@lowers("topk")
def _topk(call: Call) -> tuple[Array, Array]:
    if not call.static("sorted"):
        raise Unsupported("topk in no order")
    return _ordered(call, bool(call.static("largest")))


def _ordered(call: Call, largest: bool) -> tuple[Array, Array]:
    """Values and indices; of equal elements the one with the lower index comes first."""
    array, context = call.array(), call.context
    if not array.rank:
        raise Unsupported("the order of a single number")
    axis = array.axis(call.static("dim"))

    def order(i: list[Node]) -> Node:
        bound = context.fresh()
        inner = [Axis(bound) if k == axis else x for k, x in enumerate(i)]
        return Order(bound, array.dims[axis].text, i[axis], array.at(inner), largest)

    def value(i: list[Node]) -> Node:
        return array.at([order(i) if k == axis else x for k, x in enumerate(i)])

    dims = call.dims()
    return context.array(dims, array.kind, value), context.array(dims, "int", order)
