"""Lowerings of reductions, scans, products of matrices and what is made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from kernelwright.errors import Unsupported
from kernelwright.expr import Apply, Axis, Constant, Node, Reduce, Scan
from kernelwright.expr.nodes import ReduceOp
from kernelwright.problems.trace_call import (
    Array,
    Call,
    Context,
    cast,
    lowers,
    pointwise,
    reduce_over,
    squeeze,
)
from kernelwright.problems.trace_unify import Dim
from kernelwright.problems.trace_views import reshape


def _axes(call: Call, array: Array, name: str = "dim") -> list[int]:
    dims = call.static(name)
    if dims is None or dims == []:
        return list(range(array.rank))
    return sorted({array.axis(d) for d in (dims if isinstance(dims, list) else [dims])})


def _reduced(call: Call, op: ReduceOp, array: Array, axes: Sequence[int]) -> Array:
    result = reduce_over(call.context, op, array, axes)
    return result if call.static("keepdim") else squeeze(result, axes)


def _as(array: Array, kind: str) -> Array:
    return replace(array, body=cast(array.body, array.kind, kind), kind=kind)  # pyright: ignore[reportArgumentType]


def _count(context: Context, array: Array, axes: Sequence[int]) -> Node:
    total: Node = Constant(1)
    for axis in axes:
        total = Apply("mul", (total, context.extent(array.dims[axis])))
    return total


@lowers("sum", "prod", "amax", "amin", "any", "all")
def _reduce(call: Call) -> Array:
    op = call.op.removeprefix("aten.").removeprefix("a") if "am" in call.op else call.op[5:]
    array = call.array()
    array = _as(array, "bool" if op in ("any", "all") else call.kind)
    return _reduced(call, op, array, _axes(call, array))  # pyright: ignore[reportArgumentType]


@lowers("mean")
def _mean(call: Call) -> Array:
    array = _as(call.array(), "float")
    axes = _axes(call, array)
    total = _reduced(call, "sum", array, axes)
    count = Array((), (), _count(call.context, array, axes), "int")
    return pointwise(call.context, "div", "float", [total, count], within="float")


@lowers("max", "min")
def _max(call: Call) -> Array | tuple[Array, Array]:
    name = call.op.removeprefix("aten.")
    if call.get("other") is not None:
        pair = [call.array(), call.array("other")]
        return pointwise(call.context, name, call.kind, pair, within=call.kind)
    array = call.array()
    axes = _axes(call, array)
    values = _reduced(call, name, array, axes)  # pyright: ignore[reportArgumentType]
    if len(call.kinds) == 1:
        return values
    return values, _as(_reduced(call, f"arg{name}", array, axes), "int")  # pyright: ignore[reportArgumentType]


@lowers("argmax", "argmin")
def _arg(call: Call) -> Array:
    array, op = call.array(), call.op.removeprefix("aten.")
    if call.static("dim") is None and array.rank > 1:
        every = tuple(
            math.prod(sizes) for sizes in zip(*(d.values for d in array.dims), strict=True)
        )
        array = reshape(call, array, (call.context.unifier.dim(every),))
    result = _reduced(call, op, array, _axes(call, array))  # pyright: ignore[reportArgumentType]
    return replace(result, kind="int")


@lowers("var", "std", "var_mean", "std_mean")
def _var(call: Call) -> Array | tuple[Array, Array]:
    array = _as(call.array(), "float")
    axes = _axes(call, array)
    correction = call.get("correction")
    variance, mean = _moments(
        call, array, axes, 1 if correction is None else call.fixed(correction)
    )
    if "std" in call.op:
        variance = pointwise(call.context, "sqrt", "float", [variance])
    if not call.static("keepdim"):
        variance, mean = squeeze(variance, axes), squeeze(mean, axes)
    return (variance, mean) if len(call.kinds) == 2 else variance


def _moments(
    call: Call, array: Array, axes: Sequence[int], correction: float
) -> tuple[Array, Array]:
    """Variance and mean; the reduced axes stay, with one element."""
    context = call.context
    count = _count(context, array, axes)
    mean = _over(context, reduce_over(context, "sum", array, axes), count)
    centred = pointwise(context, "sub", "float", [array, mean])
    square = pointwise(context, "mul", "float", [centred, centred])
    if correction:
        if correction != int(correction):
            raise Unsupported("a fractional correction of a variance")
        count = Apply("sub", (count, Constant(int(correction))))
    return _over(context, reduce_over(context, "sum", square, axes), count), mean


def _over(context: Context, total: Array, count: Node) -> Array:
    number = Array((), (), count, "int")
    return pointwise(context, "div", "float", [total, number], within="float")


@lowers("_softmax", "softmax", "_safe_softmax")
def _softmax(call: Call) -> Array:
    return softmax(call.context, _as(call.array(), "float"), call.static("dim"))


def softmax(context: Context, array: Array, dim: int) -> Array:
    """Exponentials of the distance from the largest, over their sum."""
    axis = array.axis(dim)
    shifted = _shifted(context, array, axis)
    powers = pointwise(context, "exp", "float", [shifted])
    return pointwise(context, "div", "float", [powers, reduce_over(context, "sum", powers, [axis])])


def _shifted(context: Context, array: Array, axis: int) -> Array:
    largest = reduce_over(context, "max", array, [axis])
    return pointwise(context, "sub", "float", [array, largest])


@lowers("_log_softmax", "log_softmax")
def _log_softmax(call: Call) -> Array:
    array = _as(call.array(), "float")
    axis = array.axis(call.static("dim"))
    shifted = _shifted(call.context, array, axis)
    powers = pointwise(call.context, "exp", "float", [shifted])
    total = reduce_over(call.context, "sum", powers, [axis])
    logarithm = pointwise(call.context, "log", "float", [total])
    return pointwise(call.context, "sub", "float", [shifted, logarithm])


@lowers("logsumexp")
def _logsumexp(call: Call) -> Array:
    context, array = call.context, _as(call.array(), "float")
    axes = _axes(call, array)
    largest = reduce_over(context, "max", array, axes)
    infinite = Apply("isinf", (largest.body,))
    # subtracting an infinite maximum would make NaN
    finite = replace(largest, body=Apply("where", (infinite, Constant(0.0), largest.body)))
    powers = pointwise(
        context, "exp", "float", [pointwise(context, "sub", "float", [array, finite])]
    )
    total = reduce_over(context, "sum", powers, axes)
    logarithm = pointwise(context, "log", "float", [total])
    result = pointwise(context, "add", "float", [logarithm, finite])
    return result if call.static("keepdim") else squeeze(result, axes)


@lowers("linalg_vector_norm", "norm")
def _norm(call: Call) -> Array:
    context, array = call.context, _as(call.array(), "float")
    order = call.static("ord" if call.get("ord") is not None else "p")
    axes = _axes(call, array)
    order = 2.0 if order is None else float(order)
    size = pointwise(context, "abs", "float", [array])
    if math.isinf(order):
        return _reduced(call, "max" if order > 0 else "min", size, axes)
    if order == 0:
        raise Unsupported("the norm of order 0 has no place in the expression form")
    if order == 1:
        return _reduced(call, "sum", size, axes)
    base = array if order == 2 else size
    power = Array((), (), Constant(order), "float")
    total = _reduced(call, "sum", pointwise(context, "pow", "float", [base, power]), axes)
    root = Array((), (), Constant(1 / order), "float")
    return pointwise(context, "pow", "float", [total, root])


@lowers("cumsum")
def _cumsum(call: Call) -> Array:
    array = _as(call.array(), call.kind)
    if not array.rank:
        return array
    axis, bound = array.axis(call.static("dim")), call.context.fresh()

    def make(i: list[Node]) -> Node:
        inner = [Axis(bound) if k == axis else x for k, x in enumerate(i)]
        return Scan(bound, array.dims[axis].text, i[axis], array.at(inner))

    return call.context.array(array.dims, call.kind, make)


def contract(context: Context, left: Array, right: Array, dims: Sequence[Dim], batch: int) -> Array:
    """`out[b.., m, n] = sum_k left[b.., m, k] * right[b.., k, n]`; m or n absent for vectors."""
    bound = context.fresh()
    rows = left.rank - batch - 1

    def make(i: list[Node]) -> Node:
        some = left.at([*i[: batch + rows], Axis(bound)])
        others = right.at([*i[:batch], Axis(bound), *i[batch + rows :]])
        product = Apply("mul", (some, others))
        return Reduce("sum", bound, left.dims[-1].text, product)

    return context.array(dims, left.kind, make)


@lowers("mm", "mv", "dot", "vdot", "bmm")
def _product(call: Call) -> Array:
    right = next(n for n in ("mat2", "vec", "tensor", "other") if call.get(n) is not None)
    batch = 1 if call.op == "aten.bmm" else 0
    return contract(call.context, call.array(), call.array(right), call.dims(), batch)


@lowers("addmm", "addmv", "baddbmm")
def _add_product(call: Call) -> Array:
    names = {"aten.addmm": ("mat1", "mat2"), "aten.addmv": ("mat", "vec")}
    left, right = names.get(call.op, ("batch1", "batch2"))
    batch = 1 if call.op == "aten.baddbmm" else 0
    product = contract(call.context, call.array(left), call.array(right), call.dims(), batch)
    added = call.array()
    product = _scaled(call, product, "alpha")
    if set(call.get("beta").values) == {0}:
        return product
    return pointwise(
        call.context, "add", call.kind, [product, _scaled(call, added, "beta")], within=call.kind
    )


def _scaled(call: Call, array: Array, name: str) -> Array:
    if set(call.get(name).values) == {1}:
        return array
    factor = call.array(name)
    return pointwise(call.context, "mul", call.kind, [array, factor], within=call.kind)


@lowers("_cdist_forward", "_euclidean_dist", "cdist")
def _cdist(call: Call) -> Array:
    left, right = call.array("x1"), call.array("x2")
    order = 2.0 if call.get("p") is None else float(call.static("p"))
    bound = call.context.fresh()
    extent = left.dims[-1].text

    def make(i: list[Node]) -> Node:
        a = left.spread([*i[:-1], Axis(bound)])
        b = right.spread([*i[:-2], i[-1], Axis(bound)])
        gap = Apply("sub", (a, b))
        if math.isinf(order):
            return Reduce("max", bound, extent, Apply("abs", (gap,)))
        if order == 1:
            return Reduce("sum", bound, extent, Apply("abs", (gap,)))
        base = gap if order == 2 else Apply("abs", (gap,))
        total = Reduce("sum", bound, extent, Apply("pow", (base, Constant(order))))
        return Apply("pow", (total, Constant(1 / order)))

    if order == 0:
        raise Unsupported("cdist of order 0 has no place in the expression form")
    return call.context.array(call.dims(), "float", make)


@lowers("native_layer_norm")
def _layer_norm(call: Call) -> tuple[Array, Array, Array]:
    context, array = call.context, call.array("input")
    count = len(call.get("normalized_shape"))
    axes = list(range(array.rank - count, array.rank))
    variance, mean = _moments(call, array, axes, 0)
    eps = call.array("eps")
    total = pointwise(context, "add", "float", [variance, eps])
    scale = pointwise(context, "rsqrt", "float", [total])
    centred = pointwise(context, "sub", "float", [array, mean])
    result = pointwise(context, "mul", "float", [centred, scale])
    for name, op in (("weight", "mul"), ("bias", "add")):
        if call.get(name) is not None:
            result = pointwise(context, op, "float", [result, call.array(name)])
    return result, mean, scale


@lowers("native_group_norm")
def _group_norm(call: Call) -> tuple[Array, ...]:
    context, array = call.context, call.array("input")
    groups, size = call.get("group").values, call.get("HxW").values
    channels = tuple(c // g for c, g in zip(array.dims[1].values, groups, strict=True))
    dims = tuple(context.unifier.dim(values) for values in (groups, channels, size))
    folded = reshape(call, array, (array.dims[0], *dims))
    variance, mean = _moments(call, folded, (2, 3), 0)
    total = pointwise(context, "add", "float", [variance, call.array("eps")])
    scale = pointwise(context, "rsqrt", "float", [total])
    centred = pointwise(context, "sub", "float", [folded, mean])
    normal = pointwise(context, "mul", "float", [centred, scale])
    result = reshape(call, normal, array.dims)
    for name, op in (("weight", "mul"), ("bias", "add")):
        if call.get(name) is not None:
            factor = call.array(name)
            spread = context.array(array.dims, "float", lambda i, f=factor: f.at([i[1]]))
            result = pointwise(context, op, "float", [result, spread])
    return result, squeeze(mean, (2, 3)), squeeze(scale, (2, 3))


@lowers("_fused_rms_norm")
def _rms_norm(call: Call) -> tuple[Array, Array]:
    context, array = call.context, call.array("input")
    count = len(call.get("normalized_shape"))
    axes = list(range(array.rank - count, array.rank))
    square = pointwise(context, "mul", "float", [array, array])
    mean = _over(context, reduce_over(context, "sum", square, axes), _count(context, array, axes))
    eps = call.get("eps")
    if eps is None:
        raise Unsupported("rms_norm without eps depends on the dtype")
    total = pointwise(context, "add", "float", [mean, call.as_array(eps)])
    scale = pointwise(context, "rsqrt", "float", [total])
    result = pointwise(context, "mul", "float", [array, scale])
    if call.get("weight") is not None:
        result = pointwise(context, "mul", "float", [result, call.array("weight")])
    return result, scale


@lowers("_scaled_dot_product_flash_attention_for_cpu")
def _attention(call: Call) -> tuple[Array, Array]:
    context = call.context
    query, key, value = (call.array(n) for n in ("query", "key", "value"))
    if float(call.static("dropout_p") or 0.0):
        raise Unsupported("dropout is random")
    scale = call.array("scale") if call.get("scale") is not None else None
    root = Apply("to_float", (context.extent(query.dims[-1]),))
    factor: Node = Apply("rsqrt", (root,)) if scale is None else scale.body
    bound, (batch, heads, rows, _) = context.fresh(), query.dims
    mask = call.array("attn_mask") if call.get("attn_mask") is not None else None

    def score(i: list[Node]) -> Node:
        a, b = query.at([*i[:3], Axis(bound)]), key.at([*i[:2], i[3], Axis(bound)])
        total: Node = Reduce("sum", bound, query.dims[-1].text, Apply("mul", (a, b)))
        total = Apply("mul", (total, factor))
        if call.static("is_causal"):
            total = Apply("where", (Apply("le", (i[3], i[2])), total, Constant(-math.inf)))
        if mask is not None:
            total = Apply("add", (total, mask.spread(i)))
        return total

    scores = context.array((batch, heads, rows, key.dims[2]), "float", score)
    weights = softmax(context, scores, -1)
    inner = context.fresh()

    def output(i: list[Node]) -> Node:
        product = (weights.at([*i[:3], Axis(inner)]), value.at([*i[:2], Axis(inner), i[3]]))
        return Reduce("sum", inner, key.dims[2].text, Apply("mul", product))

    # the second result, the log of the sums, is not used by any caller of the public function
    return context.array(call.dims(), "float", output), scores
