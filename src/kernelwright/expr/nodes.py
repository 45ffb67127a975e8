"""The expression form: index notation with reductions as nested terms.

An output is a body over its own index variables; a reduction binds a fresh index variable inside
the body. Softmax of `x [T, H]` is one term:

    out[t, h] = exp(x[t, h] - Reduce(max, k < H, x[t, k]))
                / Reduce(sum, k < H, exp(x[t, k] - Reduce(max, j < H, x[t, j])))

Views (transpose, slice, expand, ...) never appear: they have become index expressions of loads.
Nodes are interned: two structurally equal nodes are the same object, so equality is identity,
sharing is kept, and a term is a directed acyclic graph that must be walked with a memo.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, TypeVar

from kernelwright.model import Signature

ReduceOp = Literal["sum", "prod", "max", "min", "argmax", "argmin", "any", "all"]
Kind = Literal["float", "int", "bool"]

N = TypeVar("N", bound="Node")


class Node:
    """Base of all terms; construct the subclasses, equal arguments give the same object."""

    _interned: ClassVar[dict[tuple[Any, ...], Node]] = {}

    def __new__(cls: type[N], *args: Any, **kwargs: Any) -> N:
        """Return the one node with these arguments."""
        names = [field.name for field in fields(cls)]  # pyright: ignore[reportArgumentType]
        values = [*args, *(kwargs[name] for name in names[len(args) :] if name in kwargs)]
        # repr tells 0.0 from -0.0 and makes every NaN the same literal
        parts: list[Any] = [repr(v) if isinstance(v, float) else v for v in values]
        key: tuple[Any, ...] = (cls, *map(type, values), *parts)
        found = Node._interned.get(key)
        if found is None:
            found = object.__new__(cls)
            Node._interned[key] = found
        return found  # pyright: ignore[reportReturnType]

    @property
    def children(self) -> tuple[Node, ...]:
        """Direct subterms, in order."""
        return ()


@dataclass(frozen=True, eq=False)
class Constant(Node):
    """A literal; its Python type is its kind."""

    value: float | int | bool


@dataclass(frozen=True, eq=False)
class Parameter(Node):
    """A scalar parameter of the reference."""

    name: str
    kind: Kind


@dataclass(frozen=True, eq=False)
class Extent(Node):
    """The value of a dimension expression, as an integer."""

    dim: str


@dataclass(frozen=True, eq=False)
class Axis(Node):
    """An index variable, as an integer; bound by an output, a `Reduce` or a `Scan`."""

    name: str


@dataclass(frozen=True, eq=False)
class Load(Node):
    """An element of an input tensor."""

    tensor: str
    indices: tuple[Node, ...]

    @property
    def children(self) -> tuple[Node, ...]:
        """The index expressions."""
        return self.indices


@dataclass(frozen=True, eq=False)
class Apply(Node):
    """A pointwise operation; `OPERATIONS` lists them."""

    op: str
    args: tuple[Node, ...]

    @property
    def children(self) -> tuple[Node, ...]:
        """The arguments."""
        return self.args


@dataclass(frozen=True, eq=False)
class Reduce(Node):
    """A reduction of `body` over `axis` from 0 below the extent; ties of arg-forms: least index."""

    op: ReduceOp
    axis: str
    extent: str
    """A dimension expression."""
    body: Node

    @property
    def children(self) -> tuple[Node, ...]:
        """The body."""
        return (self.body,)


@dataclass(frozen=True, eq=False)
class Scan(Node):
    """The inclusive sum of `body` over `axis` from 0 to the index `at`."""

    axis: str
    extent: str
    at: Node
    body: Node

    @property
    def children(self) -> tuple[Node, ...]:
        """The position and the body."""
        return (self.at, self.body)


@dataclass(frozen=True, eq=False)
class Order(Scan):
    """The index along `axis` of what stands at position `at` once `body` is sorted.

    Equal elements keep their order; NaN is greater than any number.
    """

    largest: bool
    """Whether the largest come first."""


@dataclass(frozen=True)
class Output:
    """One output tensor: its index variables, outermost first, and the value at an index."""

    name: str
    axes: tuple[str, ...]
    dims: tuple[str, ...]
    """Extent of each axis, a dimension expression."""
    body: Node


@dataclass(frozen=True)
class Program:
    """A whole reference. Axis names are unique across outputs and binders."""

    signature: Signature
    outputs: tuple[Output, ...]


FLOAT_OPERATIONS: dict[str, int] = {
    "add": 2, "sub": 2, "mul": 2, "div": 2, "neg": 1, "abs": 1, "reciprocal": 1, "fma": 3,
    "max": 2, "min": 2, "sqrt": 1, "rsqrt": 1, "exp": 1, "exp2": 1, "expm1": 1, "log": 1,
    "log2": 1, "log1p": 1, "sin": 1, "cos": 1, "tan": 1, "tanh": 1, "sigmoid": 1, "erf": 1,
    "pow": 2, "floor": 1, "ceil": 1, "trunc": 1, "round_even": 1, "sign": 1, "atan": 1,
    "asin": 1, "acos": 1, "sinh": 1, "cosh": 1, "atan2": 2, "fmod": 2,
}  # fmt: skip
"""Operation to arity. `max`, `min` propagate NaN. Integers: add, sub, mul, neg, abs, max, min."""

OTHER_OPERATIONS: dict[str, int] = {
    "eq": 2, "ne": 2, "lt": 2, "le": 2, "gt": 2, "ge": 2, "and": 2, "or": 2, "not": 1,
    "where": 3, "isnan": 1, "isinf": 1, "floordiv": 2, "mod": 2,
    "to_float": 1, "to_int": 1, "to_bool": 1,
    "round_to_workload": 1, "round_to_bf16": 1, "round_to_f16": 1, "round_to_f32": 1,
}  # fmt: skip
"""Comparisons give bool; `round_to_*` keeps the value as a float, rounded once to that dtype."""

OPERATIONS: dict[str, int] = FLOAT_OPERATIONS | OTHER_OPERATIONS


def walk(*roots: Node) -> Iterator[Node]:
    """Every distinct node below the roots, children before parents."""
    seen: set[Node] = set()
    stack = [(root, False) for root in reversed(roots)]
    while stack:
        node, expanded = stack.pop()
        if node in seen:
            continue
        if expanded:
            seen.add(node)
            yield node
        else:
            stack.append((node, True))
            stack.extend((child, False) for child in reversed(node.children))


def rebuild(node: Node, children: tuple[Node, ...]) -> Node:
    """The same node with other children."""
    match node:
        case Load():
            return Load(node.tensor, children)
        case Apply():
            return Apply(node.op, children)
        case Reduce():
            return Reduce(node.op, node.axis, node.extent, children[0])
        case Order():
            return Order(node.axis, node.extent, children[0], children[1], node.largest)
        case Scan():
            return Scan(node.axis, node.extent, children[0], children[1])
        case _:
            return node


def transform(root: Node, change: Callable[[Node], Node]) -> Node:
    """Rebuild bottom-up, passing every node (with its new children) through `change`."""
    done: dict[Node, Node] = {}
    for node in walk(root):
        children = tuple(done[child] for child in node.children)
        done[node] = change(rebuild(node, children) if children != node.children else node)
    return done[root]


def substitute(root: Node, values: dict[str, Node]) -> Node:
    """Replace index variables by terms. Binders inside must not bind these names."""

    def change(node: Node) -> Node:
        return values.get(node.name, node) if isinstance(node, Axis) else node

    return transform(root, change)


def free_axes(root: Node) -> frozenset[str]:
    """Index variables that the term depends on and does not bind itself."""
    free: dict[Node, frozenset[str]] = {}
    for node in walk(root):
        below = frozenset[str]().union(*(free[child] for child in node.children))
        if isinstance(node, Axis):
            below = frozenset({node.name})
        elif isinstance(node, Reduce):
            below -= {node.axis}
        elif isinstance(node, Scan):
            below = free[node.at] | (free[node.body] - {node.axis})
        free[node] = below
    return free[root]
