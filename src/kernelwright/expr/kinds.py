"""What kind of value a term has: float, integer or boolean."""

from __future__ import annotations

from kernelwright.expr.nodes import (
    Apply,
    Axis,
    Constant,
    Extent,
    Kind,
    Load,
    Node,
    Order,
    Parameter,
    Reduce,
    Scan,
    walk,
)
from kernelwright.model import Dtype, Signature

_BOOL = frozenset(
    {"eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not", "isnan", "isinf", "to_bool"}
)
_KEEPS = frozenset(
    {"add", "sub", "mul", "neg", "abs", "max", "min", "floordiv", "mod", "sign", "fma"}
)


class Kinds:
    """Kinds of terms over one signature, remembered by node."""

    def __init__(self, signature: Signature) -> None:
        """Take the element types of the loads from the signature."""
        self._tensors: dict[str, Kind] = {t.name: dtype_kind(t.dtype) for t in signature.tensors}
        self._known: dict[Node, Kind] = {}

    def of(self, root: Node) -> Kind:
        """The kind of a term."""
        if root not in self._known:
            for node in walk(root):
                if node not in self._known:
                    self._known[node] = self._one(node)
        return self._known[root]

    def _one(self, node: Node) -> Kind:
        match node:
            case Constant():
                return constant_kind(node.value)
            case Parameter():
                return node.kind
            case Load():
                return self._tensors[node.tensor]
            case Extent() | Axis():
                return "int"
            case Reduce():
                if node.op in ("argmin", "argmax"):
                    return "int"
                return "bool" if node.op in ("any", "all") else self._arithmetic(node.body)
            case Order():
                return "int"
            case Scan():
                return self._arithmetic(node.body)
            case Apply():
                return self._apply(node)
            case _:
                raise TypeError(f"unknown node {type(node).__name__}")

    def _apply(self, node: Apply) -> Kind:
        if node.op in _BOOL:
            return "bool"
        if node.op == "to_int":
            return "int"
        args: list[Kind] = [self._known[arg] for arg in node.args]
        if node.op == "where":
            return promote(args[1], args[2])
        if node.op in _KEEPS:
            return promote("int", *args)
        return "float"

    def _arithmetic(self, body: Node) -> Kind:
        return promote("int", self._known[body])


def promote(*kinds: Kind) -> Kind:
    """The widest of some kinds."""
    return "float" if "float" in kinds else "int" if "int" in kinds else "bool"


def constant_kind(value: float | int | bool) -> Kind:
    """The kind of a literal."""
    return "bool" if isinstance(value, bool) else "int" if isinstance(value, int) else "float"


def dtype_kind(dtype: Dtype | None) -> Kind:
    """The kind of a tensor's elements; None is the workload's dtype, which is a float."""
    if dtype is None or dtype.is_float:
        return "float"
    return "bool" if dtype is Dtype.BOOL else "int"
