"""Local rewriting rules, each exact: constants, neutral elements, powers, index arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable

from kernelwright.expr.integers import FLIPPED, INTEGER_ARITHMETIC, Integers
from kernelwright.expr.kinds import Kinds
from kernelwright.expr.nodes import Apply, Axis, Constant, Node, Scan, substitute, transform
from kernelwright.expr.scalars import PYTHON_OPERATIONS

_ROUNDINGS = ("round_to_workload", "round_to_bf16", "round_to_f16", "round_to_f32")


class Rules:
    """One bottom-up pass; called with a node whose children are already in simplest form."""

    def __init__(self, kinds: Kinds, integers: Integers) -> None:
        """Take what is known of the terms."""
        self._kinds = kinds
        self._integers = integers

    def __call__(self, node: Node) -> Node:
        """The node in simpler form, or itself."""
        while isinstance(node, Apply):
            simpler = self._step(node)
            if simpler is node:
                return node
            node = simpler
        if type(node) is Scan and self._kinds.of(node) == "int":
            return self._telescoped(node)
        return node

    def _telescoped(self, node: Scan) -> Node:
        """`Σ_{j <= at} (f(j + 1) - f(j)) = f(at + 1) - f(0)`, exact for integers."""
        difference = node.body
        if not (isinstance(difference, Apply) and difference.op == "sub"):
            return node
        upper, lower = difference.args
        following = Apply("add", (Axis(node.axis), Constant(1)))
        if transform(substitute(lower, {node.axis: following}), self) is not upper:
            return node
        last = substitute(upper, {node.axis: node.at})
        first = substitute(lower, {node.axis: Constant(0)})
        return transform(Apply("sub", (last, first)), self)

    def _step(self, node: Apply) -> Node:
        if all(isinstance(arg, Constant) for arg in node.args):
            return _fold(node)
        integer = all(self._kinds.of(arg) == "int" for arg in node.args)
        if integer and node.op in INTEGER_ARITHMETIC:
            return self._integers.node(self._integers.polynomial(node))
        if integer and node.op in FLIPPED:
            return self._integers.comparison(node.op, *node.args)
        rule = _RULES.get(node.op)
        return rule(node, self._kinds) if rule else node


def _fold(node: Apply) -> Node:
    function = PYTHON_OPERATIONS.get(node.op)
    if function is None:
        return node
    values = [arg.value for arg in node.args if isinstance(arg, Constant)]
    try:
        value = function(*values)
    except (ArithmeticError, ValueError):
        return node
    # a fold that leaves the reals keeps its operation, whose meaning there is the backend's
    if isinstance(value, float) and math.isnan(value):
        return node
    return Constant(value)


def _is(node: Node, value: float) -> bool:
    """A literal with this value (and the sign of this zero)."""
    return (
        isinstance(node, Constant)
        and not isinstance(node.value, bool)
        and node.value == value
        and math.copysign(1.0, node.value) == math.copysign(1.0, value)
    )


def _zero(node: Node) -> bool:
    return _is(node, 0.0) or _is(node, -0.0)


def _args(node: Node, op: str) -> tuple[Node, ...] | None:
    return node.args if isinstance(node, Apply) and node.op == op else None


def _add(node: Apply, kinds: Kinds) -> Node:
    left, right = node.args
    if _zero(right) and kinds.of(left) == kinds.of(node):
        return left
    if _zero(left) and kinds.of(right) == kinds.of(node):
        return right
    if negated := _args(right, "neg"):
        return Apply("sub", (left, negated[0]))
    if negated := _args(left, "neg"):
        return Apply("sub", (right, negated[0]))
    return node


def _sub(node: Apply, kinds: Kinds) -> Node:
    left, right = node.args
    if _zero(right) and kinds.of(left) == kinds.of(node):
        return left
    if _is(left, 0.0) and kinds.of(right) == kinds.of(node):
        return Apply("neg", (right,))
    if negated := _args(right, "neg"):
        return Apply("add", (left, negated[0]))
    return node


def _mul(node: Apply, kinds: Kinds) -> Node:
    for one, other in (node.args, node.args[::-1]):
        if kinds.of(other) == kinds.of(node):
            if _is(one, 1.0):
                return other
            if _is(one, -1.0):
                return Apply("neg", (other,))
    return node


def _div(node: Apply, kinds: Kinds) -> Node:
    left, right = node.args
    if kinds.of(left) == "float":
        if _is(right, 1.0):
            return left
        if _is(right, -1.0):
            return Apply("neg", (left,))
        if (
            isinstance(right, Constant)
            and right.value
            and math.frexp(right.value)[0] in (0.5, -0.5)
        ):
            # a power of two: its reciprocal is exact
            inverse = 1.0 / right.value
            if abs(math.frexp(inverse)[1]) < 100:
                return Apply("mul", (left, Constant(inverse)))
    if _is(left, 1.0) and kinds.of(right) == "float":
        return Apply("reciprocal", (right,))
    return node


def _reciprocal(node: Apply, kinds: Kinds) -> Node:
    if root := _args(node.args[0], "sqrt"):
        return Apply("rsqrt", root)
    if root := _args(node.args[0], "rsqrt"):
        return Apply("sqrt", root)
    return node


def _pow(node: Apply, kinds: Kinds) -> Node:
    base, exponent = node.args
    if not isinstance(exponent, Constant) or kinds.of(base) != "float":
        return node
    match float(exponent.value):
        case 0.0:
            return Constant(1.0)
        case 1.0:
            return base
        case 2.0:
            return Apply("mul", (base, base))
        case 3.0:
            return Apply("mul", (Apply("mul", (base, base)), base))
        case 4.0:
            square = Apply("mul", (base, base))
            return Apply("mul", (square, square))
        case 0.5:
            return Apply("sqrt", (base,))
        case -0.5:
            return Apply("rsqrt", (base,))
        case -1.0:
            return Apply("reciprocal", (base,))
        case -2.0:
            return Apply("reciprocal", (Apply("mul", (base, base)),))
        case _:
            return node


def _neg(node: Apply, kinds: Kinds) -> Node:
    inner = node.args[0]
    if negated := _args(inner, "neg"):
        return negated[0]
    if (factors := _args(inner, "mul")) and isinstance(factors[1], Constant):
        return Apply("mul", (factors[0], Constant(-factors[1].value)))
    return node


def _abs(node: Apply, kinds: Kinds) -> Node:
    inner = node.args[0]
    if isinstance(inner, Apply) and inner.op in ("abs", "neg"):
        return inner if inner.op == "abs" else Apply("abs", inner.args)
    return node


def _where(node: Apply, kinds: Kinds) -> Node:
    condition, chosen, other = node.args
    if isinstance(condition, Constant):
        return chosen if condition.value else other
    if chosen is other:
        return chosen
    if inverted := _args(condition, "not"):
        return Apply("where", (inverted[0], other, chosen))
    if isinstance(chosen, Constant) and isinstance(other, Constant):
        if chosen.value is True and other.value is False:
            return condition
        if chosen.value is False and other.value is True:
            return Apply("not", (condition,))
    # the same condition further down is already decided
    if (inner := _args(chosen, "where")) and inner[0] is condition:
        return Apply("where", (condition, inner[1], other))
    if (inner := _args(other, "where")) and inner[0] is condition:
        return Apply("where", (condition, chosen, inner[2]))
    return node


def _and(node: Apply, kinds: Kinds) -> Node:
    for one, other in (node.args, node.args[::-1]):
        if isinstance(one, Constant):
            return other if one.value else Constant(False)
    return node.args[0] if node.args[0] is node.args[1] else node


def _or(node: Apply, kinds: Kinds) -> Node:
    for one, other in (node.args, node.args[::-1]):
        if isinstance(one, Constant):
            return Constant(True) if one.value else other
    return node.args[0] if node.args[0] is node.args[1] else node


def _not(node: Apply, kinds: Kinds) -> Node:
    inner = node.args[0]
    if inverted := _args(inner, "not"):
        return inverted[0]
    opposite = {"lt": "ge", "le": "gt", "gt": "le", "ge": "lt"}
    if isinstance(inner, Apply) and inner.op in opposite | {"eq": "ne", "ne": "eq"}:
        exact = all(kinds.of(arg) != "float" for arg in inner.args)
        # with NaN only eq and ne are each other's opposite
        if inner.op in ("eq", "ne"):
            return Apply("ne" if inner.op == "eq" else "eq", inner.args)
        if exact:
            return Apply(opposite[inner.op], inner.args)
    return node


def _comparison(node: Apply, kinds: Kinds) -> Node:
    left, right = node.args
    if isinstance(left, Constant) and not isinstance(right, Constant):
        return Apply(FLIPPED[node.op], (right, left))
    return node


def _to_float(node: Apply, kinds: Kinds) -> Node:
    return node.args[0] if kinds.of(node.args[0]) == "float" else node


def _to_int(node: Apply, kinds: Kinds) -> Node:
    return node.args[0] if kinds.of(node.args[0]) == "int" else node


def _to_bool(node: Apply, kinds: Kinds) -> Node:
    return node.args[0] if kinds.of(node.args[0]) == "bool" else node


def _round(node: Apply, kinds: Kinds) -> Node:
    inner = node.args[0]
    return inner if isinstance(inner, Apply) and inner.op == node.op else node


_RULES: dict[str, Callable[[Apply, Kinds], Node]] = {
    "add": _add, "sub": _sub, "mul": _mul, "div": _div, "reciprocal": _reciprocal, "pow": _pow,
    "neg": _neg, "abs": _abs, "where": _where, "and": _and, "or": _or, "not": _not,
    "to_float": _to_float, "to_int": _to_int, "to_bool": _to_bool,
    **dict.fromkeys(FLIPPED, _comparison), **dict.fromkeys(_ROUNDINGS, _round),
}  # fmt: skip
