"""What a Triton candidate may use of Python: arithmetic, torch and Triton.

It shares a process with the clock. These rules make reaching for that process something that has to
be hidden in plain code; they are no boundary (docs/trust.md).
"""

import ast

MODULES = ("torch", "triton", "math", "__future__")
"""What may be imported, with what is inside."""
_REFUSED_NAMES = frozenset({
    "exec", "eval", "compile", "open", "input", "globals", "locals", "vars", "getattr", "setattr",
    "delattr", "breakpoint", "memoryview",
})  # fmt: skip
_REFUSED_ATTRIBUTES = frozenset({
    "os", "sys", "ctypes", "subprocess", "importlib", "builtins", "inspect", "platform", "pickle",
    "cpp_extension", "load_library", "multiprocessing", "CUDAGraph", "graph", "graphs",
    "make_graphed_callables", "Event", "ExternalStream", "cudart", "compiler", "knobs",
    "from_file", "frombuffer", "from_blob", "data_ptr", "as_strided", "set_stream",
})  # fmt: skip


def broken_rule(source: str) -> str | None:
    """What a source uses that it may not, with its line; None where that is nothing.

    Raises:
        SyntaxError: it is no Python.
    """
    for node in ast.walk(ast.parse(source)):
        found = _broken(node)
        if found is not None:
            return f"line {getattr(node, 'lineno', 0)}: {found}"
    return None


def _broken(node: ast.AST) -> str | None:
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = [alias.name for alias in node.names]
        modules = names if isinstance(node, ast.Import) else [node.module or "."]
        for module in modules:
            if module.split(".")[0] not in MODULES or (
                isinstance(node, ast.ImportFrom) and node.level
            ):
                return f"a Triton kernel may import {', '.join(MODULES[:-1])}, not '{module}'"
        parts = [part for name in (*names, *modules) for part in name.split(".")]
        return next(filter(None, map(_refused, parts)), None)
    if isinstance(node, ast.Attribute):
        return _refused(node.attr)
    if isinstance(node, ast.Name) and (node.id in _REFUSED_NAMES or node.id.startswith("__")):
        return f"a Triton kernel may not use '{node.id}'"
    return None


def _refused(name: str) -> str | None:
    hidden = name.startswith("_") and name != "__future__"
    if hidden or name in _REFUSED_ATTRIBUTES:
        return f"a Triton kernel may not use '{name}'"
    return None
