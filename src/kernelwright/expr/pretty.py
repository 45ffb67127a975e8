"""Programs as text for people: one line for each output and for each shared reduction."""

from __future__ import annotations

from collections import Counter

from kernelwright.expr.nodes import (
    Apply,
    Axis,
    Constant,
    Extent,
    Load,
    Node,
    Order,
    Parameter,
    Program,
    Reduce,
    Scan,
    walk,
)

_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "floordiv": "//", "mod": "%", "eq": "==",
    "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "and": "and", "or": "or",
}  # fmt: skip
_LEAST_SHARED = 3
"""Terms with fewer nodes are repeated rather than named."""


def pretty(program: Program) -> str:
    """Readable text, such as `out[t, h] = (x[t, h] * rsqrt(...))`; shared terms come first."""
    lines: list[str] = []
    for output in program.outputs:
        lines += _output_lines(output.name, output.axes, output.body, len(lines))
    return "\n".join(lines)


def _output_lines(name: str, axes: tuple[str, ...], body: Node, offset: int) -> list[str]:
    uses = Counter(child for node in walk(body) for child in node.children)
    texts: dict[Node, str] = {}
    lines: list[str] = []
    for node in walk(body):
        text = _text(node, texts)
        big = sum(1 for _ in walk(node)) >= _LEAST_SHARED and not isinstance(node, Load)
        if node is not body and uses[node] > 1 and big:
            label = f"%{offset + len(lines)}"
            lines.append(f"{label} = {_bare(text)}")
            text = label
        texts[node] = text
    return [*lines, f"{name}[{', '.join(axes)}] = {_bare(texts[body])}"]


def _bare(text: str) -> str:
    """Without the outermost parentheses, when they are one pair."""
    if not text.startswith("("):
        return text
    depth = 0
    for position, letter in enumerate(text):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if depth == 0:
            return text[1:-1] if position == len(text) - 1 else text
    return text


def _text(node: Node, texts: dict[Node, str]) -> str:
    args = [texts[child] for child in node.children]
    match node:
        case Constant():
            return repr(node.value)
        case Parameter() | Axis():
            return node.name
        case Extent():
            return node.dim if node.dim.isidentifier() else f"({node.dim})"
        case Load():
            return f"{node.tensor}[{', '.join(_bare(a) for a in args)}]"
        case Apply():
            if node.op in _INFIX:
                return f"({args[0]} {_INFIX[node.op]} {args[1]})"
            return f"{node.op}({', '.join(_bare(a) for a in args)})"
        case Reduce():
            return f"{node.op}[{node.axis} < {node.extent}]({_bare(args[0])})"
        case Order():
            way = "descending" if node.largest else "ascending"
            return f"{way}[{node.axis} < {node.extent} at {args[0]}]({_bare(args[1])})"
        case Scan():
            return f"scan[{node.axis} < {node.extent} at {args[0]}]({_bare(args[1])})"
        case _:
            raise TypeError(f"unknown node {type(node).__name__}")
