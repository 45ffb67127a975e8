"""The plainest Python kernel that is right: the reference itself, in double, on lent memory.

It shows the prototype with a body that passes the check, as a start for kernels written by hand.
"""

import ast
import builtins
import importlib
import inspect
import sys
import textwrap
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

from kernelwright.model import Dtype
from kernelwright.problems.declaration import Problem
from kernelwright.problems.elements import torch_dtype
from kernelwright.problems.rounding import round_to

_PACKAGES = frozenset({"torch", "numpy"})
_ROUND_TO = """TYPES = {{{types}}}


def round_to(x, dtype="{dtype}"):
    return x.to(TYPES[dtype]).to(x.dtype)"""


class _Unreachable(Exception):
    """The reference uses something that a kernel cannot import."""


def plain_python_kernel(problem: Problem, dtype: Dtype, entry: str = "kernel") -> str:
    """A complete source file.

    Where the reference uses what a kernel cannot have (its own module's classes, packages other
    than torch and numpy) the body is left to the reader and raises.

    Args:
        problem: what is computed.
        dtype: of the workload.
        entry: name of the function.
    """
    signature = problem.signature
    head = f"def {signature.python_call(entry)}:"
    try:
        names = _Names(dtype)
        reference = names.define(problem.function, "_reference")
    except (_Unreachable, OSError, TypeError, SyntaxError) as error:
        why = f"  # the reference cannot be copied: {error}" if str(error) else ""
        return f'{head}{why}\n    raise NotImplementedError("write the outputs")\n'
    wide = [t.name for t in signature.inputs if t.resolve(dtype).is_float]
    body = [f"{name} = {name}.double()" for name in wide if dtype is not Dtype.F64]
    values = f"{reference}({_passed(problem.function)})"
    outputs = [tensor.name for tensor in signature.outputs]
    if len(outputs) == 1:
        body.append(f"{outputs[0]}.copy_({values})")
    else:
        body.append(f"results = {values}")
        body += [f"{name}.copy_(results[{number}])" for number, name in enumerate(outputs)]
    imports = "\n".join(sorted(names.imports))
    parts = [imports, *names.texts, "\n".join([head, *(f"    {line}" for line in body)])]
    return "\n\n\n".join(part for part in parts if part) + "\n"


def _passed(function: Callable[..., Any]) -> str:
    parameters = inspect.signature(function).parameters.values()
    return ", ".join(
        f"{p.name}={p.name}" if p.kind is p.KEYWORD_ONLY else p.name for p in parameters
    )


class _Names:
    """Collects what a function needs: imports, constants, and functions of its own module."""

    def __init__(self, dtype: Dtype) -> None:
        self.imports: set[str] = {"import torch"}
        self.texts: list[str] = []
        self._dtype = dtype
        self._defined: dict[str, object] = {}

    def define(self, function: Callable[..., Any], name: str) -> str:
        """Add a function's source without annotations and decorators; the name it is called by."""
        if not isinstance(function, FunctionType) or function.__closure__:
            raise _Unreachable("it is no plain function")
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        found = tree.body[0]
        if not isinstance(found, ast.FunctionDef):
            raise _Unreachable("it is no plain function")
        found.name, found.decorator_list = name, []
        found = _WithoutAnnotations().visit(found)
        for node in ast.walk(found):
            if isinstance(node, ast.Name) and node.id in function.__globals__:
                self._need(node.id, function.__globals__[node.id])
        self.texts.append(ast.unparse(found))
        return name

    def _need(self, name: str, value: object) -> None:
        if name in self._defined or hasattr(builtins, name):
            return
        self._defined[name] = value
        if value is round_to:
            types = ", ".join(f'"{d}": {torch_dtype(d)}' for d in Dtype if d.is_float)
            self.texts.append(_ROUND_TO.format(dtype=self._dtype, types=types))
        elif isinstance(value, ModuleType):
            self._import(value.__name__, "", name)
        elif isinstance(value, bool | int | float | str):
            self.texts.append(f"{name} = {value!r}")
        elif self._is_public(value):
            self._import(value.__module__, value.__name__, name)  # pyright: ignore
        elif isinstance(value, FunctionType):
            self.define(value, name)
        else:
            raise _Unreachable(f"it uses '{name}'")

    @staticmethod
    def _is_public(value: object) -> bool:
        module, name = getattr(value, "__module__", None), getattr(value, "__name__", "")
        if not isinstance(module, str) or not _is_there(module):
            return False
        return getattr(importlib.import_module(module), name, None) is value

    def _import(self, module: str, member: str, name: str) -> None:
        if not _is_there(module):
            raise _Unreachable(f"it uses '{module}'")
        if member:
            alias = "" if member == name else f" as {name}"
            self.imports.add(f"from {module} import {member}{alias}")
        else:
            self.imports.add(f"import {module}" + ("" if module == name else f" as {name}"))


def _is_there(module: str) -> bool:
    """Whether a kernel can import a module."""
    root = module.partition(".")[0]
    return root in _PACKAGES or (root in sys.stdlib_module_names and root != "__main__")


class _WithoutAnnotations(ast.NodeTransformer):
    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.returns = None
        self.generic_visit(node)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt:
        if node.value is None:
            return ast.Pass()
        return ast.Assign([node.target], node.value, lineno=node.lineno)
