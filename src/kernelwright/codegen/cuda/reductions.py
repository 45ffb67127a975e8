"""How a thread accumulates, and how threads combine what they have."""

from __future__ import annotations

from kernelwright.codegen.emit import Context, Scope
from kernelwright.codegen.functions import float_text
from kernelwright.expr.rowwise import Reduction

_COMBINE = {
    "sum": "plus_of", "prod": "times_of", "max": "greater_of", "min": "lesser_of",
    "any": "either_of", "all": "both_of",
}  # fmt: skip


def positions(reduction: Reduction) -> bool:
    """Whether the result is where the greatest or least value is."""
    return reduction.op in ("argmax", "argmin")


def c_type(reduction: Reduction) -> str:
    """The type of what is accumulated."""
    if positions(reduction):
        return "simt::Winner"
    return {"float": "float", "int": "int64_t", "bool": "int32_t"}[reduction.value.kind]


def combine(reduction: Reduction, context: Context) -> str:
    """The operation on two partial results; asks for its building block."""
    if positions(reduction):
        context.blocks.add("winner")
        return f"simt::winner_of<{1 if reduction.op == 'argmax' else -1}>{{}}"
    context.blocks.add(_COMBINE[reduction.op])
    return f"simt::{_COMBINE[reduction.op]}{{}}"


def identity(reduction: Reduction) -> str:
    """What changes nothing when it is combined."""
    if positions(reduction):
        return f"simt::winner_of<{1 if reduction.op == 'argmax' else -1}>::nothing()"
    op, kind = reduction.op, reduction.value.kind
    if kind == "bool":
        return "1" if op == "all" else "0"
    if kind == "int":
        return {"sum": "0", "prod": "1", "max": "INT64_MIN", "min": "INT64_MAX"}[op]
    values = {"sum": 0.0, "prod": 1.0, "max": float("-inf"), "min": float("inf")}
    return float_text(values[op])


def declare(reduction: Reduction) -> list[str]:
    """An accumulator for each element of a word."""
    name = f"{reduction.value.name}_lanes"
    return [
        f"{c_type(reduction)} {name}[WORD];",
        "#pragma unroll",
        f"for (int v = 0; v < WORD; ++v) {name}[v] = {identity(reduction)};",
    ]


def accumulate(scope: Scope, reduction: Reduction) -> str:
    """The statement that takes one value."""
    own = f"{reduction.value.name}_lanes[v]"
    value = scope.value(reduction.body)
    if positions(reduction):
        column = scope.context.axis_names[reduction.columns[-1].axis]
        operand = f"simt::Winner{{{scope.as_float(value).text}, {column}}}"
        return f"{own} = {combine(reduction, scope.context)}({own}, {operand});"
    if reduction.value.kind == "float":
        text = scope.as_float(value).text
    elif reduction.value.kind == "bool":
        text = f"(int32_t)({scope.as_bool(value).text})"
    else:
        text = f"(int64_t)({scope.as_int(value, 64).text})"
    symbol = {"sum": "+", "prod": "*", "any": "|", "all": "&"}.get(reduction.op)
    if symbol:
        return f"{own} {symbol}= {text};"
    call = combine(reduction, scope.context)
    return f"{own} = {call}({text}, {own});"


def gather(reduction: Reduction, context: Context) -> list[str]:
    """The result of a row in each of its threads, called `NAME_total`."""
    name, call = reduction.value.name, combine(reduction, context)
    return [
        f"{c_type(reduction)} {name}_total = {name}_lanes[0];",
        "#pragma unroll",
        f"for (int v = 1; v < WORD; ++v) {name}_total = {call}({name}_total, {name}_lanes[v]);",
        f"{name}_total = group.across({name}_total, {call});",
    ]


def settle(reduction: Reduction) -> str:
    """The value that stands for a reduction in later terms."""
    name = reduction.value.name
    if positions(reduction):
        return f"const int64_t {name} = {name}_total.index;"
    return f"const {c_type(reduction)} {name} = {name}_total;"
