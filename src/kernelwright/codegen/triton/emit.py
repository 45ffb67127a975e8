"""From terms to Triton expressions: numbers for what belongs to a row, blocks along the columns."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

from kernelwright.errors import Unsupported
from kernelwright.expr.kinds import Kinds
from kernelwright.expr.nodes import (
    Apply,
    Axis,
    Constant,
    Extent,
    Load,
    Node,
    Parameter,
    free_axes,
    walk,
)
from kernelwright.model import Dtype, Signature

_INFIX = {"add": "+", "sub": "-", "mul": "*", "eq": "==", "ne": "!=", "lt": "<", "le": "<=",
          "gt": ">", "ge": ">=", "and": "&", "or": "|"}  # fmt: skip
_FLOAT = {
    "div": "({0} / {1})", "fma": "({0} * {1} + {2})", "neg": "(-{0})", "abs": "tl.abs({0})",
    "reciprocal": "(1.0 / {0})", "exp": "tl.exp({0})", "exp2": "tl.exp2({0})",
    "log": "tl.log({0})", "log2": "tl.log2({0})", "sin": "tl.sin({0})", "cos": "tl.cos({0})",
    "sqrt": "tl.sqrt_rn({0})", "rsqrt": "tl.rsqrt({0})", "floor": "tl.floor({0})",
    "ceil": "tl.ceil({0})", "erf": "tl.erf({0})", "sigmoid": "(1.0 / (1.0 + tl.exp(-{0})))",
    "max": "greater({0}, {1})", "min": "lesser({0}, {1})",
    "sign": "(({0} > 0.0).to(tl.float32) - ({0} < 0.0).to(tl.float32))",
    **{name: f"libdevice.{name}({{0}})" for name in (
        "expm1", "log1p", "tan", "tanh", "atan", "asin", "acos", "sinh", "cosh", "trunc")},
    "round_even": "libdevice.rint({0})", "atan2": "libdevice.atan2({0}, {1})",
    "fmod": "libdevice.fmod({0}, {1})", "pow": "libdevice.pow({0}, {1})",
}  # fmt: skip
_INTEGER = {
    "neg": "(-{0})", "abs": "tl.abs({0})", "fma": "({0} * {1} + {2})",
    "max": "tl.maximum({0}, {1})", "min": "tl.minimum({0}, {1})",
    "sign": "(({0} > 0).to(tl.int64) - ({0} < 0).to(tl.int64))",
    "mod": "(({0} % {1} + {1}) % {1})",
    "floordiv": "(({0} - ({0} % {1} + {1}) % {1}) // {1})",
}  # fmt: skip
_POWERS = {1.0: "{0}", 2.0: "({0} * {0})", 3.0: "({0} * {0} * {0})", 0.5: "tl.sqrt_rn({0})",
           -0.5: "tl.rsqrt({0})", -1.0: "(1.0 / {0})"}  # fmt: skip
_ROUNDED = {Dtype.BF16: "tl.bfloat16", Dtype.F16: "tl.float16"}


class Emitter:
    """Statements in which some axes have values; what depends on no axis of its own goes outside.

    Args:
        signature: what is passed.
        dtype: the workload's element type.
        axes: names of index variables, as variables of the kernel.
        inside: the mask of the block's columns; None where there is no block.
        parent: statements before a loop.
    """

    def __init__(
        self,
        signature: Signature,
        dtype: Dtype,
        axes: Mapping[str, str],
        inside: str | None = None,
        parent: Emitter | None = None,
    ) -> None:
        self.signature, self.dtype, self.axes, self.parent = signature, dtype, axes, parent
        self.inside = inside
        self.lines: list[str] = []
        self.kinds: Kinds = parent.kinds if parent else Kinds(signature)
        self.uses: Counter[Node] = parent.uses if parent else Counter()
        self.known: dict[Node, str] = {}
        self.names: Counter[str] = parent.names if parent else Counter()
        self.row_values: dict[Node, str] = parent.row_values if parent else {}

    def count(self, roots: Iterable[Node]) -> None:
        """Note how often terms are needed, so that shared ones get a name."""
        found = list(roots)
        for node in walk(*found):
            self.uses.update(node.children)
        self.uses.update(found)

    def value(self, node: Node) -> str:
        """The expression of a term, after the statements that it needs.

        Raises:
            Unsupported: it has no form here.
        """
        if self.parent is not None and not free_axes(node) & self._own():
            return self.parent.value(node)
        if node in self.row_values:
            return self.row_values[node]
        if node not in self.known:
            text = self._emit(node)
            shared = isinstance(node, Apply) and self.uses[node] > 1
            if (shared or isinstance(node, Load)) and not text.isidentifier():
                name = self.fresh(node.tensor if isinstance(node, Load) else "shared")
                self.lines.append(f"{name} = {text}")
                text = name
            self.known[node] = text
        return self.known[node]

    def fresh(self, hint: str) -> str:
        """A variable's name."""
        self.names[hint] += 1
        return f"{hint}_{self.names[hint]}_"

    def floating(self, node: Node) -> str:
        """The value as float32."""
        kind, text = self.kinds.of(node), self.value(node)
        if kind == "float":
            return text
        return f"({text} * 1.0)" if isinstance(node, Extent | Parameter) else (
            f"{float(node.value)!r}" if isinstance(node, Constant) else f"{text}.to(tl.float32)"
        )  # fmt: skip

    def truth(self, node: Node) -> str:
        """The value as a truth."""
        text = self.value(node)
        return text if self.kinds.of(node) == "bool" else f"({text} != 0)"

    def _own(self) -> frozenset[str]:
        outer = self.parent.axes if self.parent else {}
        return frozenset(axis for axis in self.axes if axis not in outer)

    def _emit(self, node: Node) -> str:
        match node:
            case Constant():
                return _constant(node.value)
            case Extent():
                return f"({node.dim})" if not node.dim.isidentifier() else node.dim
            case Parameter():
                return f"({node.name} != 0)" if node.kind == "bool" else node.name
            case Axis():
                return self.axes[node.name]
            case Load():
                return self._load(node)
            case Apply():
                return self._apply(node)
            case _:
                raise Unsupported(f"{type(node).__name__} has no form in Triton here")

    def _load(self, node: Load) -> str:
        kind, masked = self.kinds.of(node), self.inside and free_axes(node) & self._own()
        place = f"{node.tensor} + {self.value(node.indices[0])}"
        text = f"tl.load({place}, mask={self.inside}, other=0)" if masked else f"tl.load({place})"
        return {"float": f"{text}.to(tl.float32)", "bool": f"({text} != 0)",
                "int": f"{text}.to(tl.int64)"}[kind]  # fmt: skip

    def _apply(self, node: Apply) -> str:
        op, kinds = node.op, {self.kinds.of(arg) for arg in node.args}
        if op in ("and", "or", "not", "to_bool"):
            texts = [self.truth(arg) for arg in node.args]
            if op == "to_bool":
                return texts[0]
            return f"({texts[0]} == 0)" if op == "not" else f"({texts[0]} {_INFIX[op]} {texts[1]})"
        if op == "where":
            branches = [self._as(arg, self.kinds.of(node)) for arg in node.args[1:]]
            return f"tl.where({self.truth(node.args[0])}, {', '.join(branches)})"
        if op == "to_int":
            text = self.value(node.args[0])
            plain = isinstance(node.args[0], Constant | Extent | Parameter)
            return text if plain else f"{text}.to(tl.int64)"
        if op not in ("to_float",) and "float" not in kinds and (op in _INFIX or op in _INTEGER):
            texts = [self._as(arg, "int") for arg in node.args]
            form = f"({{0}} {_INFIX[op]} {{1}})" if op in _INFIX else _INTEGER[op]
            return form.format(*texts)
        return self._float(node, [self.floating(arg) for arg in node.args])

    def _as(self, node: Node, kind: str) -> str:
        if kind == "float":
            return self.floating(node)
        text = self.value(node)
        if kind == "int" and self.kinds.of(node) == "bool" and not isinstance(node, Constant):
            return f"{text}.to(tl.int64)"
        return text

    def _float(self, node: Apply, texts: list[str]) -> str:
        op = node.op
        if op == "to_float":
            return texts[0]
        if op in ("isnan", "isinf"):
            return f'({texts[0]} != {texts[0]})' if op == "isnan" else (
                f'(tl.abs({texts[0]}) == float("inf"))'
            )  # fmt: skip
        if op.startswith("round_to_"):
            name = op.removeprefix("round_to_")
            rounded = self.dtype if name == "workload" else Dtype(name)
            if rounded is Dtype.F32:
                return texts[0]
            if rounded not in _ROUNDED:
                raise Unsupported(f"rounding to {rounded} has no form in Triton here")
            return f"({texts[0]}).to({_ROUNDED[rounded]}).to(tl.float32)"
        if op == "pow" and isinstance(node.args[1], Constant):
            form = _POWERS.get(float(node.args[1].value))
            if form is not None:
                return form.format(texts[0])
        if op in _INFIX:
            return f"({texts[0]} {_INFIX[op]} {texts[1]})"
        if op not in _FLOAT:
            raise Unsupported(f"'{op}' has no form in Triton here")
        return _FLOAT[op].format(*texts)


def _constant(value: float | int | bool) -> str:
    if isinstance(value, float) and (math.isnan(value) or math.isinf(value)):
        return f'float("{value}")'
    return f"({value!r})" if value < 0 else repr(value)
