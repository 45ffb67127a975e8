"""From terms to C++ expressions: scalars for what belongs to a row, vectors along the column.

A `Scope` is a list of statements in which some axes have values. A term is emitted in the
outermost scope that has all axes it depends on, so that invariants leave the inner loops; the
innermost scope of a sweep works on vectors along its axis.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from kernelwright.codegen import functions
from kernelwright.codegen.dialects import CPU, Dialect
from kernelwright.codegen.naming import RESERVED
from kernelwright.expr.integers import Integers
from kernelwright.expr.kinds import Kinds
from kernelwright.expr.nodes import (
    Apply,
    Axis,
    Constant,
    Extent,
    Kind,
    Load,
    Node,
    Parameter,
    walk,
)
from kernelwright.expr.polynomial import ONE, Polynomial
from kernelwright.expr.rowwise import stride_of
from kernelwright.model import Dtype, Signature
from kernelwright.model.dimensions import dimension_to_c


@dataclass(frozen=True, slots=True)
class Value:
    """A C++ expression: kind, whether it is a vector, and the width of integers in bits."""

    text: str
    kind: Kind
    vector: bool = False
    width: int = 32


@dataclass
class Context:
    """What all scopes of one kernel share."""

    signature: Signature
    dtype: Dtype
    dialect: Dialect = CPU
    axis_names: dict[str, str] = field(default_factory=dict[str, str])
    row_values: set[Node] = field(default_factory=set[Node])
    blocks: set[str] = field(default_factory=set[str])
    uses: Counter[Node] = field(default_factory=Counter[Node])
    taken: set[str] = field(default_factory=set[str])

    def __post_init__(self) -> None:
        """Index the signature."""
        self.kinds = Kinds(self.signature)
        self.integers = Integers({})
        self.dtypes = {t.name: t.resolve(self.dtype) for t in self.signature.tensors}
        self.taken |= set(self.dtypes) | {s.name for s in self.signature.scalars}
        self.taken |= set(self.signature.dimensions) | RESERVED
        self._depends: dict[Node, frozenset[str]] = {}

    def fresh(self, hint: str) -> str:
        """A new C++ identifier."""
        name, number = hint, 2
        while name in self.taken:
            name, number = f"{hint}{number}", number + 1
        self.taken.add(name)
        return name

    def count_uses(self, roots: Iterable[Node]) -> None:
        """Note how often each term is needed, so that shared terms get a name."""
        for node in walk(*roots):
            if not isinstance(node, Load):
                self.uses.update(node.children)
        self.uses.update(roots)

    def depends(self, node: Node) -> frozenset[str]:
        """Axes that a term depends on; a row value depends on the row, written `row`."""
        if node not in self._depends:
            below = frozenset[str]().union(*(self.depends(child) for child in node.children))
            if isinstance(node, Axis):
                below = frozenset({node.name})
            elif node in self.row_values:
                below = frozenset({"row"})
            self._depends[node] = below
        return self._depends[node]


Mode = Literal["scalar", "vector"]


class Scope:
    """Statements at one depth of a loop nest."""

    def __init__(
        self, context: Context, parent: Scope | None, axes: Iterable[str], vector: str | None = None
    ) -> None:
        """Open a scope inside `parent` where `axes` get values; `vector` is the vectorised one."""
        self.context = context
        self.parent = parent
        self.axes = frozenset(axes) | (parent.axes if parent else frozenset())
        self.vector = vector
        self.lines: list[str] = []
        self.known: dict[Node, Value] = {}
        self.replaced: dict[Node, Callable[[Value], Value]] = {}
        self.loads: list[tuple[Load, str]] = []
        self.names: set[str] = set()

    def local(self, hint: str) -> str:
        """A new identifier, free again once the scope is closed."""
        name = self.context.fresh(hint)
        self.names.add(name)
        return name

    def close(self) -> None:
        """Let later scopes use the identifiers of this one."""
        self.context.taken -= self.names

    def need(self, block: str) -> None:
        """Ask for a building block."""
        self.context.blocks.add(block)

    def value(self, node: Node) -> Value:
        """The expression of a term, emitting what it needs."""
        if self.parent is not None and self.context.depends(node) <= self.parent.axes:
            return self.parent.value(node)
        if node not in self.known:
            value = self._emit(node)
            if node in self.replaced:
                value = self.replaced[node](value)
            self.known[node] = self._named(node, value)
        return self.known[node]

    def _named(self, node: Node, value: Value) -> Value:
        named = isinstance(node, Apply) and (
            self.context.uses[node] > 1 or node in self.replaced or node.op in functions.NAMED
        )
        if not (named or isinstance(node, Load)):
            return value
        if value.text.isidentifier():
            return value
        hint = f"{node.tensor}_at" if isinstance(node, Load) else functions.hint(node)
        name = self.local(hint)
        self.lines.append(f"const {self.type_of(value)} {name} = {bare(value.text)};")
        return Value(name, value.kind, value.vector, value.width)

    @staticmethod
    def type_of(value: Value) -> str:
        """The C++ type of a value."""
        if not value.vector:
            return {"float": "float", "int": "int64_t", "bool": "bool"}[value.kind]
        if value.kind == "int":
            return "simd::ints" if value.width == 32 else "simd::longs"
        return "simd::floats" if value.kind == "float" else "simd::ints"

    # -- leaves ------------------------------------------------------------------------------

    def _emit(self, node: Node) -> Value:
        match node:
            case Constant():
                return constant(node)
            case Extent():
                return Value(dimension_to_c(node.dim), "int")
            case Parameter():
                return self._parameter(node)
            case Axis():
                name = self.context.axis_names[node.name]
                if node.name == self.vector:
                    return Value(f"(simd::lane_numbers() + (int32_t){name})", "int", True)
                return Value(name, "int")
            case Load():
                return self._load(node)
            case Apply():
                return functions.apply(self, node, [self.value(arg) for arg in node.args])
            case _:
                raise TypeError(f"{type(node).__name__} has no C++ form here")

    def _parameter(self, node: Parameter) -> Value:
        if node in self.context.row_values or node.kind != "float":
            return Value(node.name, node.kind, width=64)
        name = self.context.fresh(f"{node.name}_f")
        self.lines.append(f"const float {name} = (float){node.name};")
        return Value(name, "float")

    def offset(self, node: Node) -> Polynomial:
        """The flat offset of a load as a polynomial."""
        return self.context.integers.polynomial(node)

    def _load(self, node: Load) -> Value:
        dtype, kind = self.context.dtypes[node.tensor], self.context.kinds.of(node)
        offset = self.offset(node.indices[0])
        if self.vector is None:
            return self._scalar_load(node.tensor, self.offset_text(offset), kind)
        if stride_of(offset, self.vector) == ONE and dtype is not Dtype.F64:
            return self._vector_load(node, dtype, kind, self.address(node.tensor, offset))
        name = self.context.axis_names[self.vector]
        scalar = self._scalar_load(
            node.tensor, self.offset_text(offset, {self.vector: f"({name} + lane)"}), kind
        )
        width = 64 if dtype is Dtype.I64 else 32
        vector = {"float": "floats", "bool": "ints", "int": "longs" if width == 64 else "ints"}[
            kind
        ]
        text = f"-(int32_t){scalar.text}" if kind == "bool" else scalar.text
        if kind == "int":
            text = f"({'int64_t' if width == 64 else 'int32_t'}){text}"
        return Value(
            f"simd::each<simd::{vector}>(lanes, [&](int64_t lane) {{ return {text}; }})",
            kind,
            True,
            width,
        )

    def _vector_load(self, node: Load, dtype: Dtype, kind: Kind, address: str) -> Value:
        if kind == "float":
            self.need(
                {Dtype.F32: "load_floats", Dtype.BF16: "load_bf16", Dtype.F16: "load_f16"}[dtype]
            )
            self.loads.append((node, address))
            return Value(f"simd::load({address}, lanes)", "float", True)
        self.need("integers")
        if kind == "bool":
            return Value(f"simd::load_mask({address}, lanes)", "bool", True)
        vector, width = ("longs", 64) if dtype is Dtype.I64 else ("ints", 32)
        return Value(f"simd::load_as<simd::{vector}>({address}, lanes)", "int", True, width)

    def _scalar_load(self, tensor: str, offset: str, kind: Kind) -> Value:
        if kind == "float":
            self.need("scalars_f16" if self.context.dtypes[tensor] is Dtype.F16 else "scalars")
            pointer = tensor if offset == "0" else f"{tensor} + {offset}"
            return Value(f"{self.context.dialect.space}::get({pointer})", "float")
        text = f"{tensor}[{offset}]"
        return Value(f"({text} != 0)" if kind == "bool" else f"(int64_t){text}", kind, width=64)

    # -- addresses ---------------------------------------------------------------------------

    def address(self, tensor: str, offset: Polynomial) -> str:
        """Pointer to the first element of a vector."""
        text = self.offset_text(offset)
        return tensor if text == "0" else f"{tensor} + {text}"

    def offset_text(self, offset: Polynomial, axes: Mapping[str, str] | None = None) -> str:
        """An offset in C; `axes` replaces the names of some index variables."""
        names = {**self.context.axis_names, **(axes or {})}
        # constant and extent factors of one product of axes are gathered: t * (2 * H)
        groups: dict[tuple[Node, ...], list[tuple[tuple[Node, ...], int]]] = {}
        for monomial, coefficient in offset.terms.items():
            dims = tuple(a for a in monomial if isinstance(a, Extent))
            rest = tuple(a for a in monomial if not isinstance(a, Extent))
            groups.setdefault(rest, []).append((dims, coefficient))
        parts: list[str] = []
        order = sorted(groups.items(), key=lambda g: (not g[0], -max(len(d) for d, _ in g[1])))
        for rest, factors in order:
            text = " * ".join(
                [functions.integer_text(a, names, self.context.dialect) for a in rest]
            )
            factor = _sum_text(factors)
            if rest and factor != "1":
                text += f" * {factor if len(factors) == 1 else f'({factor})'}"
            parts.append(text or factor)
        result = " + ".join(parts) or "0"
        if "::floor_" in result:
            self.need("floor_division")
        if "::maximum(" in result or "::minimum(" in result:
            self.need("extremes")
        return result

    # -- conversions -------------------------------------------------------------------------

    def as_float(self, value: Value) -> Value:
        """The value as a float of the same shape."""
        if value.kind == "float":
            return value
        if not value.vector:
            return Value(f"(float)({value.text})", "float")
        self.need("integers")
        sign = "-" if value.kind == "bool" else ""
        return Value(f"simd::to_floats({sign}{value.text})", "float", True)

    def as_bool(self, value: Value) -> Value:
        """The value as a truth."""
        if value.kind == "bool":
            return value
        self.need("integers")
        text = f"({value.text} != 0)"
        if value.vector and value.kind == "int" and value.width == 64:
            text = f"simd::to_ints{text}"
        return Value(text, "bool", value.vector)

    def as_int(self, value: Value, width: int) -> Value:
        """The value as an integer; a float is truncated."""
        if value.kind == "float":
            self.need("integers")
            text = f"simd::to_longs({value.text})" if value.vector else f"(int64_t)({value.text})"
            return Value(text, "int", value.vector, 64)
        if not value.vector:
            return Value(
                f"(int64_t)({value.text})" if value.kind == "bool" else value.text,
                "int",
                width=width,
            )
        text = f"(-{value.text})" if value.kind == "bool" else value.text
        if width == 64 and (value.kind == "bool" or value.width == 32):
            self.need("integers")
            text = f"simd::to_longs({text})"
        return Value(text, "int", True, width)

    def spread(self, value: Value) -> Value:
        """The value as a vector."""
        if value.vector:
            return value
        cast = {"float": "", "bool": "(bool)", "int": f"(int{value.width}_t)"}[value.kind]
        return Value(f"simd::splat({cast}({value.text}))" if cast else f"simd::splat({value.text})",
                     value.kind, True, value.width)  # fmt: skip


def bare(text: str) -> str:
    """The expression without parentheses around the whole of it."""
    depth = 0
    for i, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0 and i < len(text) - 1:
            return text
    return text[1:-1] if text.startswith("(") else text


def constant(node: Constant) -> Value:
    """A literal."""
    if isinstance(node.value, bool):
        return Value(str(node.value).lower(), "bool")
    if isinstance(node.value, int):
        wide = abs(node.value) >= 2**31
        text = f"INT64_C({node.value})" if node.value >= 0 else f"(-INT64_C({-node.value}))"
        return Value(text, "int", width=64 if wide else 32)
    return Value(functions.float_text(node.value), "float")


def _sum_text(factors: list[tuple[tuple[Node, ...], int]]) -> str:
    parts: list[str] = []
    for dims, coefficient in factors:
        names = [dimension_to_c(d.dim) for d in dims if isinstance(d, Extent)]
        if coefficient != 1 or not names:
            names.insert(0, str(coefficient) if coefficient >= 0 else f"({coefficient})")
        parts.append(" * ".join(names))
    return " + ".join(parts)
