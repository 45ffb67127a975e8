"""Programs in simplest form, with the same values.

Three steps: local rules bottom-up (`rules.py`), one node for reductions that are equal up to the
name of their index variable, and fresh readable names for all index variables. Numerics are kept:
no rule reorders a sum, drops a rounding or changes where NaN and infinity appear.
"""

from __future__ import annotations

from dataclasses import replace

from kernelwright.expr.integers import Integers
from kernelwright.expr.kinds import Kinds
from kernelwright.expr.nodes import (
    Axis,
    Node,
    Order,
    Output,
    Program,
    Reduce,
    Scan,
    rebuild,
    substitute,
    transform,
    walk,
)
from kernelwright.expr.polynomial import from_dimension, to_dimension
from kernelwright.expr.rules import Rules

_MOST_PASSES = 8
_KEYWORDS = frozenset({"if", "do", "for", "int", "in", "is", "or", "and", "not", "char", "long"})
"""Words that a dimension could spell and that no generated language takes as a name."""


def simplify(program: Program) -> Program:
    """The same program in simplest form, with unique index variables named after dimensions."""
    for _ in range(_MOST_PASSES):
        simpler = _once(program)
        if simpler == program:
            break
        program = simpler
    return program


def _once(program: Program) -> Program:
    rules = Rules(Kinds(program.signature), Integers(axis_extents(program)))
    outputs = [replace(o, body=share(transform(o.body, rules))) for o in program.outputs]
    return rename(Program(program.signature, tuple(outputs)))


def axis_extents(program: Program) -> dict[str, str]:
    """The extent of every index variable, of outputs and of binders, as a dimension expression."""
    extents: dict[str, str] = {}
    for output in program.outputs:
        extents.update(zip(output.axes, output.dims, strict=True))
    for node in walk(*(output.body for output in program.outputs)):
        if isinstance(node, Reduce | Scan):
            extents[node.axis] = node.extent
    return extents


def share(root: Node) -> Node:
    """Name each bound index variable by its nesting height: alpha-equal terms become one node.

    The bound variable of a term is named above all binders inside it, so renaming captures
    nothing. The result has names such as `#1`, shared by unrelated binders.
    """
    done: dict[Node, Node] = {}
    height: dict[Node, int] = {}
    for node in walk(root):
        children = tuple(done[child] for child in node.children)
        new = rebuild(node, children)
        below = max((height[child] for child in children), default=0)
        if isinstance(new, Reduce | Scan):
            below += 1
            name = f"#{below}"
            body = substitute(new.body, {new.axis: Axis(name)})
            extent = to_dimension(from_dimension(new.extent))
            if isinstance(new, Reduce):
                new = Reduce(new.op, name, extent, body)
            elif isinstance(new, Order):
                new = Order(name, extent, new.at, body, new.largest)
            else:
                new = Scan(name, extent, new.at, body)
        done[node] = new
        height[new] = below
    return done[root]


def free_names(*roots: Node) -> dict[Node, frozenset[str]]:
    """Index variables that each term below the roots depends on and does not bind itself."""
    free: dict[Node, frozenset[str]] = {}
    for node in walk(*roots):
        if isinstance(node, Axis):
            free[node] = frozenset({node.name})
            continue
        below = frozenset[str]().union(*(free[child] for child in node.children))
        if isinstance(node, Reduce):
            below -= {node.axis}
        elif isinstance(node, Scan):
            below = free[node.at] | (free[node.body] - {node.axis})
        free[node] = below
    return free


def rename(program: Program) -> Program:
    """Give every output axis and every binder its own readable name, after its dimension."""
    signature = program.signature
    taken = {t.name for t in signature.tensors} | {s.name for s in signature.scalars}
    names = _Names(taken | set(signature.dimensions))
    outputs: list[Output] = []
    for output in program.outputs:
        axes = tuple(names.fresh(dim) for dim in output.dims)
        environment = dict(zip(output.axes, axes, strict=True))
        body = _Renamer(names, output.body).visit(output.body, environment)
        outputs.append(replace(output, axes=axes, body=body))
    return Program(signature, tuple(outputs))


class _Names:
    """Fresh names after dimensions: `H` gives h, h1, h2, ..."""

    def __init__(self, taken: set[str]) -> None:
        self._taken = taken

    def fresh(self, dim: str) -> str:
        letters = "".join(c for c in dim if c.isalpha()).lower()
        base = dim.lower() if dim.isidentifier() else letters[:1] or "i"
        name, count = base, 0
        while name in self._taken or name in _KEYWORDS:
            count += 1
            name = f"{base}{count}"
        self._taken.add(name)
        return name


class _Renamer:
    """Renames below one output; a term under the same names of its free variables stays one."""

    def __init__(self, names: _Names, root: Node) -> None:
        self._names = names
        self._free = free_names(root)
        self._done: dict[tuple[Node, frozenset[tuple[str, str]]], Node] = {}

    def visit(self, node: Node, environment: dict[str, str]) -> Node:
        relevant = {n: environment[n] for n in sorted(self._free[node]) if n in environment}
        key = (node, frozenset(relevant.items()))
        if key not in self._done:
            inner = relevant
            if isinstance(node, Reduce | Scan):
                inner = relevant | {node.axis: self._names.fresh(node.extent)}
            children: list[Node] = []
            for child in node.children:
                children.append(self.visit(child, inner))
            self._done[key] = _renamed(node, tuple(children), inner)
        return self._done[key]


def _renamed(node: Node, children: tuple[Node, ...], names: dict[str, str]) -> Node:
    match node:
        case Axis():
            return Axis(names.get(node.name, node.name))
        case Reduce():
            return Reduce(node.op, names[node.axis], node.extent, children[0])
        case Order():
            return Order(names[node.axis], node.extent, children[0], children[1], node.largest)
        case Scan():
            return Scan(names[node.axis], node.extent, children[0], children[1])
        case _:
            return rebuild(node, children)
