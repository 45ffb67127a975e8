"""Conditions over tunables and dimensions, evaluated by a whitelisting tree walk.

Grammar: names, integers, quoted strings, `+ - * // %`, unary `-`, `min`, `max`, comparisons,
`and or not`, parentheses. Strings can only be compared by `==` and `!=`. Python's `eval` is never
used: each whitelisted node becomes a closure, everything else is refused when it is parsed.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from kernelwright.errors import CandidateError
from kernelwright.model import TunableValue

Environment = Mapping[str, TunableValue]
Kind = Literal["int", "str", "bool"]
_Closure = Callable[[Environment], TunableValue]

_LONGEST = 400
"""Characters in one condition; keeps the parser's recursion bounded."""

_ARITHMETIC: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.FloorDiv: lambda a, b: a // b, ast.Mod: lambda a, b: a % b,
}  # fmt: skip
_COMPARISONS: dict[type[ast.cmpop], Callable[[TunableValue, TunableValue], bool]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Gt: operator.gt, ast.GtE: operator.ge,
}  # fmt: skip
_EXTREMES: dict[str, Callable[..., int]] = {"min": min, "max": max}


@dataclass(frozen=True, slots=True)
class Constraint:
    """One `@require` condition."""

    text: str
    line: int
    names: tuple[str, ...]
    """Tunables and dimensions that it names, in order of first appearance."""
    _closure: _Closure = field(repr=False, compare=False)

    @classmethod
    def parse(cls, text: str, line: int, kinds: Mapping[str, str]) -> "Constraint":
        """Parse a condition; `kinds` tells which tunables are `int` and which `str`.

        Names that `kinds` lacks are dimensions, thus integers.

        Raises:
            CandidateError: the text is not a condition in the grammar of this module.
        """
        compiler = _Compiler(text, line, kinds)
        closure = compiler.condition()
        return cls(text, line, tuple(compiler.names), closure)

    def holds(self, values: Environment) -> bool:
        """Whether it is true; every name must have a value. Dividing by zero makes it false."""
        try:
            return bool(self._closure(values))
        except ZeroDivisionError:
            return False


class _Compiler:
    """Turns one condition into closures, checking kinds on the way."""

    def __init__(self, text: str, line: int, kinds: Mapping[str, str]) -> None:
        self._text = text
        self._line = line
        self._kinds = kinds
        self.names: dict[str, None] = {}

    def condition(self) -> _Closure:
        if not self._text:
            raise self._error("is empty: write a condition such as BLOCK <= 1024")
        if len(self._text) > _LONGEST:
            raise self._error(f"is longer than {_LONGEST} characters")
        try:
            node = ast.parse(self._text, mode="eval").body
            kind, closure = self._walk(node)
        except RecursionError:
            raise self._error("is nested too deeply") from None
        except (SyntaxError, ValueError, MemoryError):
            hint = ": write 'and', 'or', 'not'" if set("&|!") & set(self._text) else ""
            raise self._error(f"is not a condition{hint}") from None
        if kind != "bool":
            raise self._error("is not a condition: compare it with something, such as '== 0'")
        return closure

    def _walk(self, node: ast.expr) -> tuple[Kind, _Closure]:
        match node:
            case ast.Constant(value=value) if type(value) in (int, str):
                return self._constant(value)  # pyright: ignore[reportArgumentType]
            case ast.Name(id=name):
                return self._name(name)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                inner = self._of_kind(operand, "int")
                return "int", lambda values: -inner(values)  # type: ignore[operator]
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                inner = self._of_kind(operand, "bool")
                return "bool", lambda values: not inner(values)
            case ast.BinOp():
                return self._arithmetic(node)
            case ast.BoolOp():
                return self._junction(node)
            case ast.Compare():
                return self._comparison(node)
            case ast.Call(func=ast.Name(id=name)) if name in _EXTREMES and not node.keywords:
                return self._extreme(name, node)
            case _:
                part = ast.unparse(node)
                raise self._error(f"uses '{part}', which is not allowed in a condition")

    def _of_kind(self, node: ast.expr, kind: Kind) -> _Closure:
        found, closure = self._walk(node)
        if found != kind:
            wanted = {"int": "an integer", "bool": "a condition", "str": "a string"}[kind]
            raise self._error(f"needs {wanted} where it has '{ast.unparse(node)}'")
        return closure

    @staticmethod
    def _constant(value: TunableValue) -> tuple[Kind, _Closure]:
        return ("str" if isinstance(value, str) else "int"), lambda _: value

    def _name(self, name: str) -> tuple[Kind, _Closure]:
        self.names[name] = None
        kind: Kind = "str" if self._kinds.get(name) == "str" else "int"
        return kind, lambda values: values[name]

    def _arithmetic(self, node: ast.BinOp) -> tuple[Kind, _Closure]:
        function = _ARITHMETIC.get(type(node.op))
        if function is None:
            hint = ": integers are divided by '//'" if isinstance(node.op, ast.Div) else ""
            raise self._error(f"uses '{ast.unparse(node)}', which is not allowed{hint}")
        left, right = self._of_kind(node.left, "int"), self._of_kind(node.right, "int")
        return "int", lambda values: function(left(values), right(values))  # type: ignore[arg-type]

    def _junction(self, node: ast.BoolOp) -> tuple[Kind, _Closure]:
        parts = [self._of_kind(value, "bool") for value in node.values]
        combine = all if isinstance(node.op, ast.And) else any
        return "bool", lambda values: combine(part(values) for part in parts)

    def _comparison(self, node: ast.Compare) -> tuple[Kind, _Closure]:
        sides = [self._walk(side) for side in (node.left, *node.comparators)]
        functions = [_COMPARISONS.get(type(op)) for op in node.ops]
        for place, (op, function) in enumerate(zip(node.ops, functions, strict=True)):
            kinds = {sides[place][0], sides[place + 1][0]}
            by_order = not isinstance(op, ast.Eq | ast.NotEq)
            if (
                function is None
                or len(kinds) > 1
                or "bool" in kinds
                or ("str" in kinds and by_order)
            ):
                raise self._error(f"cannot compare like this: '{ast.unparse(node)}'")
        closures = [closure for _, closure in sides]
        checks = [function for function in functions if function is not None]

        def compare(values: Environment) -> bool:
            results = [closure(values) for closure in closures]
            return all(
                check(left, right)
                for check, left, right in zip(checks, results, results[1:], strict=False)
            )

        return "bool", compare

    def _extreme(self, name: str, node: ast.Call) -> tuple[Kind, _Closure]:
        if len(node.args) < 2:
            raise self._error(f"gives '{name}' fewer than two values")
        parts = [self._of_kind(value, "int") for value in node.args]
        function = _EXTREMES[name]
        return "int", lambda values: function(part(values) for part in parts)

    def _error(self, message: str) -> CandidateError:
        text = f"'@require {self._text[:80]}' {message}"
        return CandidateError(f"line {self._line}: {text}" if self._line else text)
