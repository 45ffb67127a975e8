"""The C++ form of each pointwise operation, on scalars and on vectors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from kernelwright.expr.nodes import Apply, Axis, Constant, Extent, Load, Node, Parameter
from kernelwright.model import Dtype
from kernelwright.model.dimensions import dimension_to_c

if TYPE_CHECKING:
    from kernelwright.codegen.dialects import Dialect
    from kernelwright.codegen.emit import Scope, Value

_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
_COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}

# vector function -> building block
_VECTOR = {
    "exp": "exp", "exp2": "exp2", "expm1": "expm1", "log": "log", "log2": "log2",
    "log1p": "log1p", "sin": "sincos", "cos": "sincos", "tanh": "tanh", "sigmoid": "sigmoid",
    "atan": "atan", "erf": "erf",
    "sqrt": "sqrt", "rsqrt": "rsqrt", "floor": "rounding", "ceil": "rounding", "trunc": "rounding",
    "round_even": "rounding",
}  # fmt: skip
# through the C library, lane by lane
_RARE = {
    "tan": "std::tan({0})", "asin": "std::asin({0})",
    "acos": "std::acos({0})", "sinh": "std::sinh({0})", "cosh": "std::cosh({0})",
    "atan2": "std::atan2({0}, {1})", "fmod": "std::fmod({0}, {1})", "pow": "std::pow({0}, {1})",
}  # fmt: skip
SCALAR = {
    **{name: f"std::{name}({{0}})" for name in _VECTOR},
    "abs": "std::fabs({0})",
    "rsqrt": "(1.0f / std::sqrt({0}))",
    "sigmoid": "(1.0f / (1.0f + std::exp(-{0})))", "round_even": "std::nearbyint({0})",
    **_RARE,
}  # fmt: skip
"""Operation to its form in scalar C++; other dialects have their own."""

NAMED = frozenset(_VECTOR) | frozenset(_RARE) | {"reciprocal", "max", "min", "where"}
"""Operations whose result gets a name in the generated source."""

HEAVY = {
    "exp": 14, "exp2": 13, "expm1": 18, "log": 20, "log2": 22, "log1p": 30, "sin": 22, "cos": 22,
    "tanh": 30, "atan": 26, "sigmoid": 22, "erf": 32, "div": 6, "reciprocal": 6, "sqrt": 10,
    "rsqrt": 9,
    **dict.fromkeys(_RARE, 400),
}  # fmt: skip
"""Rough instructions per vector; everything else is about one."""


def hint(node: Node) -> str:
    """A name for the result of an operation."""
    assert isinstance(node, Apply)
    return {"max": "greater", "min": "lesser", "where": "chosen"}.get(node.op, f"{node.op}_of")


def float_text(value: float) -> str:
    """A float literal."""
    if math.isnan(value):
        return "NAN"
    if math.isinf(value) or abs(value) > 3.4028235677973366e38:
        return "INFINITY" if value > 0 else "(-INFINITY)"
    return f"{value!r}f" if value >= 0 and not str(value).startswith("-") else f"({value!r}f)"


def integer_text(node: Node, axes: Mapping[str, str], dialect: Dialect) -> str:
    """An integer or boolean term in scalar C, for offsets that are not linear."""

    def text(n: Node) -> str:
        match n:
            case Constant():
                return str(n.value).lower() if isinstance(n.value, bool) else f"INT64_C({n.value})"
            case Extent():
                return dimension_to_c(n.dim)
            case Axis():
                return axes.get(n.name, n.name)
            case Parameter():
                return n.name
            case Load():
                return f"(int64_t){n.tensor}[{text(n.indices[0])}]"
            case Apply():
                return operation(n.op, [text(arg) for arg in n.args])
            case _:
                raise TypeError(f"{type(n).__name__} cannot be part of an offset")

    def operation(op: str, args: list[str]) -> str:
        if op in _INFIX or op in _COMPARE:
            return f"({args[0]} {(_INFIX | _COMPARE)[op]} {args[1]})"
        if op in ("max", "min"):
            return dialect.integer_extreme.format(*args, op=op)
        match op:
            case "neg":
                return f"(-{args[0]})"
            case "abs":
                return f"std::abs({args[0]})"
            case "where":
                return f"({args[0]} ? {args[1]} : {args[2]})"
            case "and" | "or":
                return f"({args[0]} {'&&' if op == 'and' else '||'} {args[1]})"
            case "not":
                return f"(!{args[0]})"
            case "floordiv":
                return f"{dialect.space}::floor_quotient({args[0]}, {args[1]})"
            case "mod":
                return f"{dialect.space}::floor_rest({args[0]}, {args[1]})"
            case "to_int" | "to_bool":
                return args[0]
            case _:
                raise TypeError(f"'{op}' cannot be part of an offset")

    return text(node)


def apply(scope: Scope, node: Apply, args: list[Value]) -> Value:
    """The expression of one operation on emitted arguments."""
    vector = any(arg.vector for arg in args)
    op = node.op
    if op in _COMPARE:
        return _comparison(scope, _COMPARE[op], args, vector)
    if op in ("and", "or", "not"):
        return _logic(scope, op, [scope.as_bool(a) for a in args], vector)
    if op == "where":
        return _where(scope, args, vector)
    if op in ("isnan", "isinf"):
        return _special(scope, op, scope.as_float(args[0]))
    if op.startswith("round_to_"):
        return _rounded(scope, op.removeprefix("round_to_"), scope.as_float(args[0]))
    if op == "to_float":
        return scope.as_float(args[0])
    if op == "to_bool":
        return scope.as_bool(args[0])
    if op == "to_int":
        return scope.as_int(args[0], _width(args))
    integral = op in (
        "add",
        "sub",
        "mul",
        "neg",
        "abs",
        "max",
        "min",
        "floordiv",
        "mod",
        "sign",
        "fma",
    )
    if integral and all(arg.kind != "float" for arg in args):
        return _integer(scope, op, args, vector)
    return _float(scope, op, node, [scope.as_float(a) for a in args], vector)


def _value(text: str, kind: str, vector: bool, width: int = 32) -> Value:
    from kernelwright.codegen.emit import Value

    return Value(text, kind, vector, width)  # pyright: ignore[reportArgumentType]


def _width(args: list[Value]) -> int:
    return max((arg.width for arg in args if arg.kind == "int"), default=32)


def _comparison(scope: Scope, symbol: str, args: list[Value], vector: bool) -> Value:
    if any(arg.kind == "float" for arg in args):
        a, b = (scope.as_float(arg) for arg in args)
        width = 32
    else:
        width = _width(args)
        a, b = (scope.as_int(arg, width) for arg in args)
        if vector:
            a, b = scope.spread(a), scope.spread(b)
    text = f"({a.text} {symbol} {b.text})"
    if vector and width == 64:
        scope.need("integers")
        text = f"simd::to_ints{text}"
    return _value(text, "bool", vector)


def _logic(scope: Scope, op: str, args: list[Value], vector: bool) -> Value:
    if op == "not":
        return _value(f"({'~' if vector else '!'}{args[0].text})", "bool", vector)
    if vector:
        args = [scope.spread(a) for a in args]
    symbol = {"and": "&", "or": "|"}[op] * (1 if vector else 2)
    return _value(f"({args[0].text} {symbol} {args[1].text})", "bool", vector)


def _where(scope: Scope, args: list[Value], vector: bool) -> Value:
    condition, *branches = args
    condition = scope.as_bool(condition)
    if any(b.kind == "float" for b in branches):
        branches = [scope.as_float(b) for b in branches]
    elif any(b.kind == "int" for b in branches):
        width = _width(branches)
        branches = [scope.as_int(b, width) for b in branches]
    if vector:
        branches = [scope.spread(b) for b in branches]
    a, b = branches
    if condition.vector:
        text = f"simd::select({condition.text}, {a.text}, {b.text})"
    else:
        text = f"({condition.text} ? {a.text} : {b.text})"
    return _value(text, a.kind, vector, max(a.width, b.width))


def _special(scope: Scope, op: str, x: Value) -> Value:
    if op == "isnan":
        return _value(f"({x.text} != {x.text})", "bool", x.vector)
    if x.vector:
        scope.need("bits")
        return _value(f"(simd::absolute({x.text}) == INFINITY)", "bool", True)
    magnitude = scope.context.dialect.calls["abs"].format(x.text)
    return _value(f"({magnitude} == INFINITY)", "bool", False)


def _rounded(scope: Scope, target: str, x: Value) -> Value:
    dtype = scope.context.dtype if target == "workload" else Dtype(target)
    if dtype in (Dtype.F32, Dtype.F64):
        return x
    block = {Dtype.BF16: "bf16", Dtype.F16: "f16"}[dtype]
    scope.need(block if x.vector else "scalars_f16" if block == "f16" else "scalars")
    scope.need(block)
    space = scope.context.dialect.space
    return _value(f"{space}::round_to_{dtype}({x.text})", "float", x.vector)


def _integer(scope: Scope, op: str, args: list[Value], vector: bool) -> Value:
    width = 64 if op in ("mul", "floordiv", "mod", "fma") else _width(args)
    args = [scope.as_int(a, width) for a in args]
    if vector:
        args = [scope.spread(a) for a in args]
    texts = [a.text for a in args]
    if op in _INFIX:
        text = f"({texts[0]} {_INFIX[op]} {texts[1]})"
    elif op == "fma":
        text = f"({texts[0]} * {texts[1]} + {texts[2]})"
    elif op == "neg":
        text = f"(-{texts[0]})"
    elif op in ("max", "min"):
        scope.need("extremes")
        name = "maximum" if op == "max" else "minimum"
        text = (
            f"simd::{name}({', '.join(texts)})"
            if vector
            else scope.context.dialect.integer_extreme.format(*texts, op=op)
        )
    elif op in ("abs", "sign"):
        x = texts[0]
        zero = f"({x} - {x})"
        text = f"({x} < 0 ? -{x} : {x})" if op == "abs" else f"(({zero} < {x} ? 1 : 0) - ({x} < 0))"
        if vector:
            text = f"({x} < 0 ? -{x} : {x})" if op == "abs" else f"(({x} < 0) - ({x} > 0))"
    else:
        scope.need("integers" if vector else "floor_division")
        space = scope.context.dialect.space
        quotient = "simd::floor_divide" if vector else f"{space}::floor_quotient"
        text = f"{quotient}({texts[0]}, {texts[1]})"
        if op == "mod":
            text = f"({texts[0]} - {text} * {texts[1]})"
    return _value(text, "int", vector, width)


def _float(scope: Scope, op: str, node: Apply, args: list[Value], vector: bool) -> Value:
    texts = [a.text for a in args]
    if (
        op == "div"
        and vector
        and not args[1].vector
        and "row" in scope.context.depends(node.args[1])
    ):
        # one division a row, instead of one a vector; costs half a unit in the last place
        inverse = scope.value(Apply("reciprocal", (node.args[1],)))
        return _value(f"({texts[0]} * {inverse.text})", "float", True)
    if op == "div" and not vector and _known_outside(scope, node.args[1]):
        inverse = scope.value(Apply("reciprocal", (node.args[1],)))
        return _value(f"({texts[0]} * {inverse.text})", "float", False)
    if op in _INFIX:
        return _value(f"({texts[0]} {_INFIX[op]} {texts[1]})", "float", vector)
    if op == "fma":
        return _value(f"({texts[0]} * {texts[1]} + {texts[2]})", "float", vector)
    if op == "neg":
        return _value(f"(-{texts[0]})", "float", vector)
    if op == "reciprocal":
        return _value(f"(1.0f / {texts[0]})", "float", vector)
    if op == "pow" and isinstance(node.args[1], Constant):
        found = _power(scope, args[0], float(node.args[1].value))
        if found is not None:
            return found
    if vector:
        return _value(_vector_call(scope, op, [scope.spread(a).text for a in args]), "float", True)
    if op in ("max", "min"):
        scope.need("extremes")
        space = scope.context.dialect.space
        return _value(f"{space}::{op}imum({texts[0]}, {texts[1]})", "float", False)
    return _value(_scalar_call(scope, op, texts), "float", False)


def _known_outside(scope: Scope, divisor: Node) -> bool:
    """Whether an outer loop can invert a divisor, on a target where that pays."""
    outer = scope.parent
    if not scope.context.dialect.inverts or outer is None:
        return False
    return scope.context.depends(divisor) <= outer.axes


def _power(scope: Scope, x: Value, exponent: float) -> Value | None:
    """Small powers by multiplication, as exact as the library's."""
    x_text = x.text
    if exponent in (0.5, -0.5):
        call = _vector_call if x.vector else _scalar_call
        root = call(scope, "sqrt", [x_text])
        return _value(root if exponent > 0 else f"(1.0f / {root})", "float", x.vector)
    products = {1.0: "{0}", 2.0: "({0} * {0})", 3.0: "({0} * {0} * {0})",
                4.0: "(({0} * {0}) * ({0} * {0}))", -1.0: "(1.0f / {0})",
                -2.0: "(1.0f / ({0} * {0}))"}  # fmt: skip
    if exponent not in products:
        return None
    simple = x_text.replace("_", "").isalnum()
    if not simple:
        name = scope.local("power_base")
        scope.lines.append(f"const {scope.type_of(x)} {name} = {x_text};")
        x_text = name
    return _value(products[exponent].format(x_text), "float", x.vector)


def _vector_call(scope: Scope, op: str, texts: list[str]) -> str:
    if op in _VECTOR:
        scope.need(_VECTOR[op])
        return f"simd::{op}({texts[0]})"
    if op in ("max", "min"):
        scope.need("extremes")
        return f"simd::{op}imum({texts[0]}, {texts[1]})"
    if op == "abs":
        scope.need("bits")
        return f"simd::absolute({texts[0]})"
    if op == "sign":
        scope.need("sign")
        return f"simd::sign({texts[0]})"
    if op in ("floordiv", "mod"):
        scope.need("float_division")
        return (
            f"simd::{'floor_divide' if op == 'floordiv' else 'floor_mod'}({texts[0]}, {texts[1]})"
        )
    scope.need("per_lane")
    names = ", ".join(f"float {n}" for n in "ab"[: len(texts)])
    call = _RARE[op].format("a", "b")
    return f"simd::per_lane({', '.join(texts)}, []({names}) {{ return {call}; }})"


def _scalar_call(scope: Scope, op: str, texts: list[str]) -> str:
    calls = scope.context.dialect.calls
    if op == "sign":
        x = texts[0]
        return f"({x} != {x} ? {x} : (float)(({x} > 0) - ({x} < 0)))"
    if op in ("floordiv", "mod"):
        a, b = texts
        quotient = calls["floor"].format(f"{a} / {b}")
        return quotient if op == "floordiv" else f"({a} - {quotient} * {b})"
    return calls[op].format(*texts)
