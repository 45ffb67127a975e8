"""Lowerings of views and data movement: they become index expressions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce

from kernelwright.errors import Unsupported
from kernelwright.expr import Apply, Axis, Constant, Node, Reduce, Scan
from kernelwright.problems.trace_call import Array, Call, cast, lowers, squeeze
from kernelwright.problems.trace_unify import Dim


def _op(name: str, *args: Node) -> Node:
    return Apply(name, args)


def remap(call: Call, make: Callable[[list[Node]], list[Node]], output: int = 0) -> Array:
    """A view whose element at an index is the argument's element at another."""
    array = call.array()
    return call.context.array(call.dims(output), array.kind, lambda i: array.at(make(i)))


@lowers("view", "_unsafe_view", "reshape", "_reshape_alias", "flatten", "unflatten")
def _view(call: Call) -> Array:
    return reshape(call, call.array(), call.dims())


def reshape(call: Call, array: Array, dims: tuple[Dim, ...]) -> Array:
    """The same elements in row-major order under another shape."""

    def make(indices: list[Node]) -> Node:
        own: list[Node] = [Constant(0)] * array.rank
        for sources, targets in _groups(array.dims, dims):
            if len(sources) == 1 and len(targets) == 1:
                own[sources[0]] = indices[targets[0]]
                continue
            flat = _flatten(call, [dims[t] for t in targets], [indices[t] for t in targets])
            parts = _unflatten(call, [array.dims[s] for s in sources], flat)
            for source, part in zip(sources, parts, strict=True):
                own[source] = part
        return array.at(own)

    return call.context.array(dims, array.kind, make)


def _groups(sources: Sequence[Dim], targets: Sequence[Dim]) -> list[tuple[list[int], list[int]]]:
    """The finest split of two shapes into runs with equal numbers of elements; ones left out."""
    left = [i for i, dim in enumerate(sources) if not dim.is_one]
    right = [i for i, dim in enumerate(targets) if not dim.is_one]
    groups: list[tuple[list[int], list[int]]] = []
    while left or right:
        if not (left and right):
            raise Unsupported("a view between shapes of different sizes")
        some, others = [left.pop(0)], [right.pop(0)]
        while (a := _size(sources, some)) != (b := _size(targets, others)):
            smaller, rest = (some, left) if a < b else (others, right)
            if not rest:
                raise Unsupported("a view between shapes of different sizes")
            smaller.append(rest.pop(0))
        groups.append((some, others))
    return groups


def _size(dims: Sequence[Dim], positions: list[int]) -> tuple[int, ...]:
    runs = range(len(dims[0].values))
    return tuple(reduce(lambda total, p: total * dims[p].values[r], positions, 1) for r in runs)


def _flatten(call: Call, dims: Sequence[Dim], indices: Sequence[Node]) -> Node:
    flat = indices[0]
    for dim, index in zip(dims[1:], indices[1:], strict=True):
        flat = _op("add", _op("mul", flat, call.context.extent(dim)), index)
    return flat


def _unflatten(call: Call, dims: Sequence[Dim], flat: Node) -> list[Node]:
    parts: list[Node] = []
    for dim in reversed(dims[1:]):
        extent = call.context.extent(dim)
        parts.insert(0, _op("mod", flat, extent))
        flat = _op("floordiv", flat, extent)
    return [flat, *parts]


@lowers("as_strided")
def _as_strided(call: Call) -> Array:
    runs = zip(*(size.values for size in call.get("size")), strict=True)
    for run, shape in enumerate(runs):
        dense = [math.prod(shape[k + 1 :]) for k in range(len(shape))]
        if [stride.values[run] for stride in call.get("stride")] != dense:
            raise Unsupported("as_strided has no place in the expression form")
    if call.get("storage_offset") is not None and set(call.get("storage_offset").values) != {0}:
        raise Unsupported("as_strided has no place in the expression form")
    return reshape(call, call.array(), call.dims())


@lowers("t", "transpose", "permute", "numpy_T", "mT")
def _permute(call: Call) -> Array:
    array = call.array()
    order = list(range(array.rank))
    if call.op == "aten.permute":
        order = [array.axis(d) for d in call.static("dims")]
    elif call.op == "aten.transpose":
        first, second = array.axis(call.static("dim0")), array.axis(call.static("dim1"))
        order[first], order[second] = second, first
    else:
        order.reverse()
    # the axes keep their names: only their order changes
    axes, dims = ([items[i] for i in order] for items in (array.axes, array.dims))
    return Array(tuple(axes), tuple(dims), array.body, array.kind)  # pyright: ignore[reportArgumentType]


@lowers("unsqueeze")
def _unsqueeze(call: Call) -> Array:
    array = call.array()
    position = call.static("dim") % (array.rank + 1)
    return remap(call, lambda i: [*i[:position], *i[position + 1 :]])


@lowers("squeeze")
def _squeeze(call: Call) -> Array:
    array, dim = call.array(), call.static("dim")
    every = range(array.rank) if dim is None else dim if isinstance(dim, list) else [dim]
    axes = [array.axis(d) for d in every if array.rank]
    return squeeze(array, [a for a in axes if array.dims[a].is_one])


@lowers("expand", "broadcast_to")
def _expand(call: Call) -> Array:
    array = call.array()
    return call.context.array(call.dims(), array.kind, array.spread)


@lowers("repeat", "tile")
def _repeat(call: Call) -> Array:
    array = call.array()

    def make(indices: list[Node]) -> list[Node]:
        own = indices[len(indices) - array.rank :]
        return [
            Constant(0) if dim.is_one else _op("mod", index, call.context.extent(dim))
            for dim, index in zip(array.dims, own, strict=True)
        ]

    return remap(call, make)


@lowers("repeat_interleave")
def _repeat_interleave(call: Call) -> Array:
    repeats, dim = call.get("repeats"), call.static("dim")
    if isinstance(repeats, Array):
        return _repeated(call, repeats)
    if dim is None:
        raise Unsupported("repeat_interleave of a flattened tensor")
    array = call.array()
    times = call.context.unifier.integer(repeats.values)
    return remap(call, lambda i: at_axis(i, array.axis(dim), lambda x: _op("floordiv", x, times)))


def _repeated(call: Call, repeats: Array) -> Array:
    """Each place knows how many runs end at or before it; that is the number of its own run."""
    if repeats.rank != 1 or repeats.kind != "int":
        raise Unsupported("repeat_interleave by anything but a vector of integers")

    def run(place: Node) -> Node:
        number, earlier = call.context.fresh(), call.context.fresh()
        extent = repeats.dims[0].text
        ends = Scan(earlier, extent, Axis(number), repeats.at([Axis(earlier)]))
        ended = _op("le", ends, place)
        return Reduce("sum", number, extent, cast(ended, "bool", "int"))

    if call.get("self") is None:
        return call.context.array(call.dims(), "int", lambda i: run(i[0]))
    array, dim = call.array(), call.static("dim")
    if dim is None and array.rank > 1:
        raise Unsupported("repeat_interleave of a flattened tensor")
    return remap(call, lambda i: at_axis(i, array.axis(dim or 0), run))


def at_axis(indices: list[Node], axis: int, change: Callable[[Node], Node]) -> list[Node]:
    """The indices with one of them changed."""
    return [change(index) if k == axis else index for k, index in enumerate(indices)]


def _clamped(
    bound: tuple[int, ...] | None, sizes: tuple[int, ...], default: tuple[int, ...]
) -> tuple[int, ...]:
    if bound is None:
        return default
    wrapped = [b + size if b < 0 else b for b, size in zip(bound, sizes, strict=True)]
    return tuple(max(0, min(b, size)) for b, size in zip(wrapped, sizes, strict=True))


def _slice_start(call: Call, dim: Dim) -> Node:
    zero = (0,) * len(dim.values)
    start = _clamped(call.optional_int("start"), dim.values, zero)
    return call.context.unifier.integer(start)


@lowers("slice")
def _slice(call: Call) -> Array:
    array = call.array()
    axis, step = array.axis(call.static("dim")), Constant(call.static("step"))
    start = _slice_start(call, array.dims[axis])
    return remap(call, lambda i: at_axis(i, axis, lambda x: _op("add", _op("mul", x, step), start)))


@lowers("narrow")
def _narrow(call: Call) -> Array:
    array = call.array()
    axis = array.axis(call.static("dim"))
    start = _slice_start(call, array.dims[axis])
    return remap(call, lambda i: at_axis(i, axis, lambda x: _op("add", x, start)))


def _position(call: Call, dim: Dim) -> Node:
    index = call.optional_int("index")
    assert index is not None
    wrapped = (i + size if i < 0 else i for i, size in zip(index, dim.values, strict=True))
    return call.context.unifier.integer(tuple(wrapped))


@lowers("select")
def _select(call: Call) -> Array:
    array = call.array()
    axis = array.axis(call.static("dim"))
    index = _position(call, array.dims[axis])
    return remap(call, lambda i: [*i[:axis], index, *i[axis:]])


@lowers("select_scatter")
def _select_scatter(call: Call) -> Array:
    array, source = call.array(), call.array("src")
    axis = array.axis(call.static("dim"))
    index = _position(call, array.dims[axis])

    def make(i: list[Node]) -> Node:
        inside = source.spread([*i[:axis], *i[axis + 1 :]])
        return _op(
            "where", _op("eq", i[axis], index), cast(inside, source.kind, array.kind), array.at(i)
        )

    return call.context.array(array.dims, array.kind, make)


@lowers("slice_scatter")
def _slice_scatter(call: Call) -> Array:
    array, source = call.array(), call.array("src")
    axis, step = array.axis(call.static("dim")), call.static("step")
    dim, zero = array.dims[axis], (0,) * len(array.dims[axis].values)
    start = _slice_start(call, dim)
    stop = call.context.unifier.integer(_clamped(call.optional_int("end"), dim.values, dim.values))
    if step != 1 and set(_clamped(call.optional_int("start"), dim.values, zero)) != {0}:
        raise Unsupported("assignment to a slice with a start and a step")

    def make(i: list[Node]) -> Node:
        inside = _op("and", _op("ge", i[axis], start), _op("lt", i[axis], stop))
        if step != 1:
            phase = _op("mod", i[axis], Constant(step))
            inside = _op("and", inside, _op("eq", phase, Constant(0)))
        moved = at_axis(i, axis, lambda x: _op("floordiv", _op("sub", x, start), Constant(step)))
        value = cast(source.spread(moved), source.kind, array.kind)
        return _op("where", inside, value, array.at(i))

    return call.context.array(array.dims, array.kind, make)


@lowers("flip")
def _flip(call: Call) -> Array:
    array = call.array()
    axes = {array.axis(d) for d in call.static("dims")}

    def make(indices: list[Node]) -> list[Node]:
        last = [_op("sub", call.context.extent(dim), Constant(1)) for dim in array.dims]
        return [_op("sub", last[k], x) if k in axes else x for k, x in enumerate(indices)]

    return remap(call, make)


@lowers("roll")
def _roll(call: Call) -> Array:
    array, dims = call.array(), call.static("dims")
    shifts = call.get("shifts")
    if not dims:
        raise Unsupported("roll over all elements")
    by = {array.axis(d): call.term(s)[0] for d, s in zip(dims, shifts, strict=True)}

    def move(axis: int, index: Node) -> Node:
        if axis not in by:
            return index
        return _op("mod", _op("sub", index, by[axis]), call.context.extent(array.dims[axis]))

    return remap(call, lambda i: [move(k, x) for k, x in enumerate(i)])


@lowers("diagonal")
def _diagonal(call: Call) -> Array:
    array = call.array()
    if call.static("offset") != 0:
        raise Unsupported("a diagonal off the main one")
    first, second = array.axis(call.static("dim1")), array.axis(call.static("dim2"))

    def make(indices: list[Node]) -> list[Node]:
        rest = list(indices[:-1])
        return [indices[-1] if k in (first, second) else rest.pop(0) for k in range(array.rank)]

    return remap(call, make)


@lowers("cat")
def _cat(call: Call) -> Array:
    arrays = [a for a in call.arrays("tensors") if a.rank > 0]
    axis = arrays[0].axis(call.static("dim"))

    def make(i: list[Node]) -> Node:
        nodes = [call.context.unifier.integer(_values(arrays, axis, k)) for k in range(len(arrays))]
        body: Node | None = None
        for array, start, k in reversed(list(zip(arrays, nodes, range(len(arrays)), strict=True))):
            moved = at_axis(i, axis, lambda x, s=start: _op("sub", x, s))
            own = [Constant(0) if d.is_one else x for d, x in zip(array.dims, moved, strict=True)]
            value = cast(array.at(own), array.kind, call.kind)
            body = (
                value
                if body is None
                else _op("where", _op("lt", i[axis], nodes[k + 1]), value, body)
            )
        assert body is not None
        return body

    return call.context.array(call.dims(), call.kind, make)


def _values(arrays: Sequence[Array], axis: int, count: int) -> tuple[int, ...]:
    runs = range(len(arrays[0].dims[axis].values))
    return tuple(sum(a.dims[axis].values[r] for a in arrays[:count]) for r in runs)


@lowers("stack")
def _stack(call: Call) -> Array:
    arrays = call.arrays("tensors")
    axis = call.static("dim") % (arrays[0].rank + 1)

    def make(i: list[Node]) -> Node:
        rest = [*i[:axis], *i[axis + 1 :]]
        values = [cast(array.at(rest), array.kind, call.kind) for array in arrays]
        body = values[-1]
        for k in reversed(range(len(values) - 1)):
            body = _op("where", _op("eq", i[axis], Constant(k)), values[k], body)
        return body

    return call.context.array(call.dims(), call.kind, make)


@lowers("split", "split_with_sizes", "chunk", "unsafe_split", "unsafe_chunk")
def _split(call: Call) -> list[Array]:
    array = call.array()
    axis = array.axis(call.static("dim"))
    results: list[Array] = []
    starts = (0,) * len(array.dims[axis].values)
    for output in range(len(call.kinds)):
        start = call.context.unifier.integer(starts)
        results.append(
            remap(call, lambda i, s=start: at_axis(i, axis, lambda x: _op("add", x, s)), output)
        )
        ends = call.dims(output)[axis].values
        starts = tuple(a + b for a, b in zip(starts, ends, strict=True))
    return results


@lowers("unbind")
def _unbind(call: Call) -> list[Array]:
    axis = call.array().axis(call.static("dim"))
    return [
        remap(call, lambda i, n=number: [*i[:axis], Constant(n), *i[axis:]], number)
        for number in range(len(call.kinds))
    ]


@lowers("unfold")
def _unfold(call: Call) -> Array:
    array, step = call.array(), Constant(call.static("step"))
    axis = array.axis(call.static("dimension"))

    def make(i: list[Node]) -> list[Node]:
        return at_axis(i[:-1], axis, lambda x: _op("add", _op("mul", x, step), i[-1]))

    return remap(call, make)


@lowers("constant_pad_nd")
def _pad(call: Call) -> Array:
    array = call.array()
    value, pads = call.as_array(call.get("value")), call.get("pad")
    before: dict[int, Node] = {}
    for k in range(0, len(pads), 2):
        before[array.rank - 1 - k // 2] = call.term(pads[k])[0]

    def make(i: list[Node]) -> Node:
        moved = [_op("sub", x, before[k]) if k in before else x for k, x in enumerate(i)]
        inside: Node = Constant(True)
        for k in before:
            low = _op("ge", moved[k], Constant(0))
            high = _op("lt", moved[k], call.context.extent(array.dims[k]))
            inside = _op("and", inside, _op("and", low, high))
        return _op("where", inside, array.at(moved), cast(value.body, value.kind, call.kind))

    return call.context.array(call.dims(), call.kind, make)
