"""Lowerings of pointwise operations, casts and tensors made from nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from kernelwright.errors import Unsupported
from kernelwright.expr import Apply, Constant, Node
from kernelwright.expr.kinds import promote
from kernelwright.expr.nodes import Kind
from kernelwright.problems.trace_call import (
    Array,
    Call,
    Number,
    broadcast,
    cast,
    lowers,
    pointwise,
)

_UNARY = {
    name: name
    for name in (
        "abs", "neg", "sqrt", "rsqrt", "exp", "exp2", "expm1", "log", "log2", "log1p", "sin",
        "cos", "tan", "tanh", "sigmoid", "erf", "floor", "ceil", "trunc", "atan", "asin", "acos",
        "sinh", "cosh", "reciprocal", "sign",
    )
} | {"round": "round_even"}  # fmt: skip
_INTEGER_UNARY = frozenset({"abs", "neg", "sign"})


def elementwise(call: Call, make: Callable[..., Node], *names: str, within: Kind | None) -> Array:
    """Build a term from the elements of some arguments, broadcast together."""
    args = [call.array(name) for name in names]
    dims = broadcast([arg.dims for arg in args])

    def body(indices: list[Node]) -> Node:
        terms = [arg.spread(indices) for arg in args]
        if within is not None:
            terms = [cast(t, a.kind, within) for t, a in zip(terms, args, strict=True)]
        return make(*terms)

    return call.context.array(dims, call.kind, body)


@lowers(*_UNARY)
def _unary(call: Call) -> Array:
    name = call.op.removeprefix("aten.")
    if call.get("decimals") is not None and call.static("decimals") != 0:
        raise Unsupported("round to decimals has no place in the expression form")
    array = call.array()
    if call.kind != "float" and name not in _INTEGER_UNARY:
        return array  # rounding integers
    return pointwise(call.context, _UNARY[name], call.kind, [array], within=call.kind)


@lowers("isnan", "isinf")
def _is(call: Call) -> Array:
    op = call.op.removeprefix("aten.")
    return pointwise(call.context, op, "bool", [call.array()], within="float")


@lowers("add", "sub", "rsub")
def _add(call: Call) -> Array:
    left, right = call.array(), call.array("other")
    if call.op == "aten.rsub":
        left, right = right, left
    if call.kind == "bool":
        return pointwise(call.context, "or", "bool", [left, right])
    alpha = call.get("alpha")
    if alpha is not None and any(value != 1 for value in alpha.values):
        factors = [right, call.as_array(alpha)]
        right = pointwise(call.context, "mul", call.kind, factors, within=call.kind)
    op = "add" if call.op == "aten.add" else "sub"
    return pointwise(call.context, op, call.kind, [left, right], within=call.kind)


@lowers("mul")
def _mul(call: Call) -> Array:
    op = "and" if call.kind == "bool" else "mul"
    return pointwise(
        call.context, op, call.kind, [call.array(), call.array("other")], within=call.kind
    )


@lowers("maximum", "minimum", "fmod", "atan2")
def _binary(call: Call) -> Array:
    name = call.op.removeprefix("aten.")
    op = {"maximum": "max", "minimum": "min"}.get(name, name)
    if op == "fmod" and call.kind != "float":
        raise Unsupported("fmod of integers has no place in the expression form")
    return pointwise(
        call.context, op, call.kind, [call.array(), call.array("other")], within=call.kind
    )


@lowers("div", "floor_divide")
def _div(call: Call) -> Array:
    left, right = call.array(), call.array("other")
    mode = "floor" if call.op == "aten.floor_divide" else call.static("rounding_mode")
    if call.kind == "int":
        if mode == "floor":
            return pointwise(call.context, "floordiv", "int", [left, right], within="int")
        raise Unsupported("truncating division of integers has no place in the expression form")
    quotient = pointwise(call.context, "div", "float", [left, right], within="float")
    if mode is None:
        return quotient
    return pointwise(call.context, {"floor": "floor", "trunc": "trunc"}[mode], "float", [quotient])


@lowers("remainder")
def _remainder(call: Call) -> Array:
    if call.kind == "int":
        args = [call.array(), call.array("other")]
        return pointwise(call.context, "mod", "int", args, within="int")

    def make(x: Node, y: Node) -> Node:
        whole = Apply("floor", (Apply("div", (x, y)),))
        return Apply("sub", (x, Apply("mul", (whole, y))))

    return elementwise(call, make, "self", "other", within="float")


@lowers("pow")
def _pow(call: Call) -> Array:
    args = [call.array(), call.array("exponent")]
    if call.kind == "float":
        return pointwise(call.context, "pow", "float", args, within="float")
    exponent = call.get("exponent")
    if isinstance(exponent, Number) and call.fixed(exponent) == 2:
        return pointwise(call.context, "mul", call.kind, [args[0], args[0]])
    raise Unsupported("a power of integers has no place in the expression form")


@lowers("eq", "ne", "lt", "le", "gt", "ge")
def _compare(call: Call) -> Array:
    args = [call.array(), call.array("other")]
    kinds: list[Kind] = [arg.kind for arg in args]
    within = promote(*kinds)
    return pointwise(
        call.context, call.op.removeprefix("aten."), "bool", args,
        within="int" if within == "bool" else within,
    )  # fmt: skip


@lowers("logical_and", "logical_or", "logical_xor")
def _logical(call: Call) -> Array:
    op = {"and": "and", "or": "or", "xor": "ne"}[call.op.removeprefix("aten.logical_")]
    return pointwise(call.context, op, "bool", [call.array(), call.array("other")], within="bool")


@lowers("logical_not", "bitwise_not")
def _not(call: Call) -> Array:
    array = call.array()
    if call.op == "aten.bitwise_not" and array.kind != "bool":
        return elementwise(call, lambda x: Apply("sub", (Constant(-1), x)), "self", within="int")
    return pointwise(call.context, "not", "bool", [array], within="bool")


@lowers("bitwise_and", "bitwise_or", "bitwise_xor", "__and__", "__or__", "__xor__")
def _bitwise(call: Call) -> Array:
    op = call.op.strip("_").rsplit(".")[-1].replace("bitwise_", "").strip("_")
    args = [call.array(), call.array("other")]
    if call.kind == "bool":
        name = {"and": "and", "or": "or", "xor": "ne"}[op]
        return pointwise(call.context, name, "bool", args, within="bool")
    other = call.get("other")
    mask = call.fixed(other) if isinstance(other, Number) else None
    if op == "and" and mask is not None and mask >= 0 and (mask & (mask + 1)) == 0:
        # the low bits, also of a negative number in two's complement
        return elementwise(
            call, lambda x: Apply("mod", (x, Constant(mask + 1))), "self", within="int"
        )
    raise Unsupported(f"{call.op} of integers has no place in the expression form")


@lowers("bitwise_right_shift", "__rshift__", "bitwise_left_shift", "__lshift__")
def _shift(call: Call) -> Array:
    other = call.get("other")
    if not isinstance(other, Number):
        raise Unsupported("a shift by a tensor has no place in the expression form")
    power = Constant(2 ** call.fixed(other))
    op = "floordiv" if "right" in call.op or "rshift" in call.op else "mul"
    return elementwise(call, lambda x: Apply(op, (x, power)), "self", within="int")


@lowers("where")
def _where(call: Call) -> Array:
    if call.get("self") is None or call.get("other") is None:
        raise Unsupported("where with one argument has a data-dependent shape")
    kind = call.kind

    def pick(indices: list[Node]) -> Node:
        condition, chosen, other = (call.array(n) for n in ("condition", "self", "other"))
        terms = [cast(a.spread(indices), a.kind, kind) for a in (chosen, other)]
        return Apply("where", (cast(condition.spread(indices), condition.kind, "bool"), *terms))

    return call.context.array(call.dims(), kind, pick)


@lowers("masked_fill")
def _masked_fill(call: Call) -> Array:
    array, mask, value = call.array(), call.array("mask"), call.array("value")

    def pick(indices: list[Node]) -> Node:
        chosen = cast(value.spread(indices), value.kind, call.kind)
        return Apply("where", (mask.spread(indices), chosen, array.spread(indices)))

    return call.context.array(call.dims(), call.kind, pick)


@lowers("clamp", "clamp_min", "clamp_max", "hardtanh")
def _clamp(call: Call) -> Array:
    array = call.array()
    low = call.get("min") if call.get("min") is not None else call.get("min_val")
    high = call.get("max") if call.get("max") is not None else call.get("max_val")
    for op, limit in (("max", low), ("min", high)):
        if limit is not None:
            bound = call.as_array(limit)
            array = pointwise(call.context, op, call.kind, [array, bound], within=call.kind)
    return array


@lowers("relu")
def _relu(call: Call) -> Array:
    zero: Any = Constant(0.0 if call.kind == "float" else 0)
    return elementwise(call, lambda x: Apply("max", (x, zero)), "self", within=call.kind)


@lowers("silu")
def _silu(call: Call) -> Array:
    return elementwise(
        call, lambda x: Apply("mul", (x, Apply("sigmoid", (x,)))), "self", within="float"
    )


@lowers("gelu")
def _gelu(call: Call) -> Array:
    if call.static("approximate") == "tanh":
        return elementwise(call, _gelu_tanh, "self", within="float")

    def make(x: Node) -> Node:
        erf = Apply("erf", (Apply("mul", (x, Constant(math.sqrt(0.5)))),))
        half = Apply("mul", (x, Constant(0.5)))
        return Apply("mul", (half, Apply("add", (erf, Constant(1.0)))))

    return elementwise(call, make, "self", within="float")


def _gelu_tanh(x: Node) -> Node:
    cube = Apply("mul", (Apply("mul", (x, x)), x))
    inner = Apply("add", (x, Apply("mul", (cube, Constant(0.044715)))))
    tanh = Apply("tanh", (Apply("mul", (inner, Constant(math.sqrt(2 / math.pi)))),))
    half = Apply("mul", (x, Constant(0.5)))
    return Apply("mul", (half, Apply("add", (tanh, Constant(1.0)))))


@lowers("_to_copy", "prims.convert_element_type", "to")
def _cast(call: Call) -> Array:
    array = call.array("a" if "prims" in call.op else "self")
    # a change of float type is no operation: the form is generic in dtype
    return replace(array, body=cast(array.body, array.kind, call.kind), kind=call.kind)


@lowers("clone", "alias", "detach", "contiguous", "lift_fresh", "lift_fresh_copy", "lift")
def _same(call: Call) -> Array:
    return call.array()


@lowers("kernelwright.round_to")
def _round_to(call: Call) -> Array:
    array = next(v for v in call.arguments.values() if isinstance(v, Array))
    target = next((v for v in call.arguments.values() if v is not None and v is not array), None)
    names = {"torch.bfloat16": "bf16", "torch.float16": "f16", "torch.float32": "f32"}
    for name in (*names.values(), "workload"):
        names[name] = name
    key = "workload" if target in (None, "") else str(target)
    if key not in names:
        raise Unsupported(f"round_to {key} has no place in the expression form")
    return pointwise(call.context, f"round_to_{names[key]}", "float", [array], within="float")


@lowers("arange")
def _arange(call: Call) -> Array:
    start = call.array("start") if call.get("start") is not None else None
    step = call.array("step") if call.get("step") is not None else None

    def make(indices: list[Node]) -> Node:
        value: Node = cast(indices[0], "int", call.kind)
        if step is not None:
            value = Apply("mul", (value, cast(step.body, step.kind, call.kind)))
        if start is not None:
            value = Apply("add", (value, cast(start.body, start.kind, call.kind)))
        return value

    return call.context.array(call.dims(), call.kind, make)


@lowers(
    "zeros",
    "zeros_like",
    "new_zeros",
    "zero",
    "ones",
    "ones_like",
    "new_ones",
    "full",
    "full_like",
    "new_full",
    "scalar_tensor",
    "fill",
    "empty",
    "empty_like",
    "new_empty",
)
def _filled(call: Call) -> Array:  # fmt: skip
    name = call.op.removeprefix("aten.")
    if "empty" in name:
        value: Node = Constant({"float": math.nan, "int": -(2**31), "bool": False}[call.kind])
    elif "zero" in name or "ones" in name:
        value = cast(Constant(int("ones" in name)), "int", call.kind)
    else:
        key = {"full": "fill_value", "scalar_tensor": "s", "fill": "value"}
        source = call.array(key.get(name, "fill_value"))
        value = cast(source.body, source.kind, call.kind)
    return call.context.array(call.dims(), call.kind, lambda indices: value)


@lowers("eye")
def _eye(call: Call) -> Array:
    return call.context.array(
        call.dims(), call.kind, lambda i: cast(Apply("eq", (i[0], i[1])), "bool", call.kind)
    )


@lowers("tril", "triu")
def _triangle(call: Call) -> Array:
    array = call.array()
    diagonal = call.as_array(call.get("diagonal")).body
    op = "le" if call.op == "aten.tril" else "ge"
    zero = cast(Constant(0), "int", call.kind)

    def make(indices: list[Node]) -> Node:
        kept = Apply(op, (Apply("sub", (indices[-1], indices[-2])), diagonal))
        return Apply("where", (kept, array.at(indices), zero))

    return call.context.array(array.dims, call.kind, make)


@lowers("copy")
def _copy(call: Call) -> Array:
    source = call.array("src")
    return call.context.array(
        call.dims(), call.kind, lambda i: cast(source.spread(i), source.kind, call.kind)
    )
