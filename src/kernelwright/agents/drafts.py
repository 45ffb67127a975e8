"""Drafts of problem files: the role that writes them, and what their text must keep."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from kernelwright.agents.prompts import render
from kernelwright.agents.replies import Draft, Malformed, parse
from kernelwright.agents.roles import Question

_MODULES = frozenset({"__future__", "torch", "jaxtyping", "math", "kernelwright.problems"})
_NAMES = frozenset(
    {"open", "exec", "eval", "compile", "input", "breakpoint", "globals", "locals", "vars",
     "getattr", "setattr", "delattr", "print"}
)  # fmt: skip
_ATTRIBUTES = frozenset({"load", "save", "hub", "ops", "classes", "jit", "utils", "package"})


@dataclass(frozen=True, slots=True)
class Refused:
    """A draft that the gate refused."""

    source: str
    findings: tuple[str, ...]
    number: int
    """Of the correction that is asked for."""
    most: int


def draft(description: str, kernel: str, refused: Refused | None = None) -> Question[Draft]:
    """A problem file from words, from code, or from both; or a refused one corrected."""
    prompt = render(
        "author", description=description, kernel=kernel,
        previous=refused.source if refused else "",
        findings="\n".join(refused.findings) if refused else "",
        number=refused.number if refused else 0, most=refused.most if refused else 0,
    )  # fmt: skip

    def read(text: str) -> Draft:
        found = parse(text, Draft, code=True, parent=refused.source if refused else "")
        fault = fault_of(found)
        if fault:
            raise Malformed(fault)
        return found

    return Question("author", prompt, read, 8_000)


def fault_of(draft: Draft) -> str:
    """What the text of a draft must not be; empty when nothing is wrong.

    A hurdle that keeps honest drafts plain, and no proof of innocence: that is the sandbox's task.
    """
    try:
        tree = ast.parse(draft.source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"the file is not Python: {error}"
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    if draft.name not in functions:
        return f"the file defines no function '{draft.name}'"
    return next(_faults(tree), "")


def _faults(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        constant = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        plain = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.Assign, ast.AnnAssign)
        if not constant and not isinstance(node, plain):
            yield f"line {node.lineno}: only imports, constants and functions stand in a file"
    for node in ast.walk(tree):
        for name in _modules(node):
            if name not in _MODULES and not name.startswith("torch.nn.functional"):
                yield f"it imports '{name}': only {', '.join(sorted(_MODULES))} can be imported"
        if isinstance(node, ast.Name) and (node.id in _NAMES or node.id.startswith("__")):
            yield f"line {node.lineno}: '{node.id}' is not allowed in a problem"
        if isinstance(node, ast.Attribute):
            torch = isinstance(node.value, ast.Name) and node.value.id == "torch"
            if node.attr.startswith("_") or (torch and node.attr in _ATTRIBUTES):
                yield f"line {node.lineno}: '{node.attr}' is not allowed in a problem"


def _modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module or "."] if node.level == 0 else ["."]
    return []
