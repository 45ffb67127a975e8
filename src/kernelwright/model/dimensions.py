"""Dimension expressions such as `H`, `2*D` or `K+1`, evaluated by a whitelisting tree walk.

Grammar: names, non-negative integer literals, `+ - * //` and parentheses. Division is by
positive values, so `//` and C's `/` agree.
"""

import ast
from collections.abc import Mapping
from functools import lru_cache

from kernelwright.errors import ProblemError

_OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "//",
}  # fmt: skip


@lru_cache(maxsize=4096)
def _parse(text: str) -> ast.expr:
    try:
        node = ast.parse(text, mode="eval").body
    except SyntaxError:
        raise ProblemError(f"the dimension '{text}' is not an integer expression") from None
    for child in ast.walk(node):
        allowed = (
            isinstance(child, ast.Name | ast.Load | ast.BinOp)
            or (isinstance(child, ast.operator) and type(child) in _OPERATORS)
            or (isinstance(child, ast.Constant) and type(child.value) is int)
        )
        if not allowed:
            raise ProblemError(f"the dimension '{text}' may use names, integers, + - * // only")
    return node


def dimension_names(text: str) -> tuple[str, ...]:
    """Names used in a dimension expression, in order of first appearance."""
    names = [node for node in ast.walk(_parse(text)) if isinstance(node, ast.Name)]
    names.sort(key=lambda name: name.col_offset)
    return tuple(dict.fromkeys(name.id for name in names))


def evaluate_dimension(text: str, sizes: Mapping[str, int]) -> int:
    """Value of a dimension expression.

    Raises:
        ProblemError: a name has no size, or the value is negative.
    """

    def walk(node: ast.expr) -> int:
        if isinstance(node, ast.Constant):
            return int(node.value)  # pyright: ignore[reportArgumentType]
        if isinstance(node, ast.Name):
            if node.id not in sizes:
                raise ProblemError(f"the dimension '{text}' needs a size for '{node.id}'")
            return int(sizes[node.id])
        assert isinstance(node, ast.BinOp)
        left, right = walk(node.left), walk(node.right)
        match node.op:
            case ast.Add():
                return left + right
            case ast.Sub():
                return left - right
            case ast.Mult():
                return left * right
            case _:
                if right <= 0:
                    raise ProblemError(f"the dimension '{text}' divides by {right}")
                return left // right

    value = walk(_parse(text))
    if value < 0:
        raise ProblemError(f"the dimension '{text}' is {value} for {dict(sizes)}")
    return value


def dimension_to_c(text: str) -> str:
    """The same expression in C, fully parenthesised, on `int64_t` names."""

    def walk(node: ast.expr) -> str:
        if isinstance(node, ast.Constant):
            return f"INT64_C({node.value})"
        if isinstance(node, ast.Name):
            return node.id
        assert isinstance(node, ast.BinOp)
        symbol = _OPERATORS[type(node.op)].replace("//", "/")
        return f"({walk(node.left)} {symbol} {walk(node.right)})"

    return walk(_parse(text))
