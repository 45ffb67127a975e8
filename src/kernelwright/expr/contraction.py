"""Contractions with an epilogue: sums of products whose operands share only the summed axes.

    out[b, i, j] = epilogue(b, i, j, Σ_k left(b, i, k) · right(b, k, j), ...)

`rows` are the output axes of the left operand only, `columns` those of the right one only, `batch`
those of both. The last output axis is always a column, so outputs are contiguous along columns.
Several products over the same axes share one plan (`silu(X·U) ⊙ (X·V)`).
"""

from __future__ import annotations

from dataclasses import dataclass

from kernelwright.expr.nodes import (
    Apply,
    Axis,
    Node,
    Program,
    Reduce,
    Scan,
    free_axes,
    rebuild,
    substitute,
    walk,
)
from kernelwright.expr.polynomial import from_dimension
from kernelwright.expr.rowwise import Bound

_MOST_FACTORS = 6


@dataclass(frozen=True)
class Product:
    """A sum over the depth of `left` (batch, rows, depth) times `right` (batch, depth, columns)."""

    left: Node
    right: Node


@dataclass(frozen=True)
class Result:
    """One output: its index variables, and its value in terms of `product_value`."""

    tensor: str
    axes: tuple[str, ...]
    body: Node


@dataclass(frozen=True)
class ContractionPlan:
    """A contraction with its epilogue, over index variables of its own."""

    batch: tuple[Bound, ...]
    rows: tuple[Bound, ...]
    columns: tuple[Bound, ...]
    depth: tuple[Bound, ...]
    products: tuple[Product, ...]
    results: tuple[Result, ...]

    @property
    def axes(self) -> dict[str, str]:
        """Every index variable with its extent."""
        bounds = (*self.batch, *self.rows, *self.columns, *self.depth)
        return {bound.axis: bound.extent for bound in bounds}


def product_value(number: int) -> Node:
    """What stands for a product in the bodies of the results."""
    return Apply(f"product{number}", ())


@dataclass(frozen=True)
class _Found:
    """A reduction as a product: its chain of summed axes and its operands."""

    depth: tuple[Bound, ...]
    left: Node
    right: Node
    batch: frozenset[str]
    rows: frozenset[str]
    columns: frozenset[str]


def match(program: Program) -> ContractionPlan | None:
    """The plan of a contraction with an epilogue, or None."""
    first = program.outputs[0]
    if not first.axes or any(not _same(o.dims, first.dims) for o in program.outputs):
        return None
    bodies: list[Node] = []
    for output in program.outputs:
        names: dict[str, Node] = {
            own: Axis(common) for own, common in zip(output.axes, first.axes, strict=True)
        }
        bodies.append(substitute(output.body, names))
    reductions = _outermost(bodies)
    if not reductions:
        return None
    found: dict[Node, _Found] = {}
    for node in reductions:
        product = _product(node, first.axes)
        if product is None:
            return None
        found[node] = product
    kinds = {(f.batch, f.rows, f.columns, tuple(from_dimension(b.extent) for b in f.depth))
             for f in found.values()}  # fmt: skip
    return _plan(program, bodies, found) if len(kinds) == 1 else None


def _same(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    return [from_dimension(d) for d in a] == [from_dimension(d) for d in b]


def _outermost(bodies: list[Node]) -> list[Node]:
    """Reductions and scans that are not inside of another one."""
    seen: set[Node] = set()
    found: list[Node] = []
    stack = list(reversed(bodies))
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if isinstance(node, Reduce | Scan):
            found.append(node)
        else:
            stack.extend(reversed(node.children))
    return found


def _factors(node: Node) -> list[Node]:
    if isinstance(node, Apply) and node.op == "mul":
        return [factor for arg in node.args for factor in _factors(arg)]
    return [node]


def _product(node: Node, axes: tuple[str, ...]) -> _Found | None:
    """A sum as a product of a row operand and a column operand."""
    depth: list[Bound] = []
    while isinstance(node, Reduce) and node.op == "sum":
        depth.append(Bound(node.axis, node.extent))
        node = node.body
    factors = _factors(node)
    if not depth or not 2 <= len(factors) <= _MOST_FACTORS:
        return None
    if any(isinstance(below, Reduce | Scan) for below in walk(node)):
        return None
    outer = frozenset(axes)
    best: _Found | None = None
    for choice in range(1, 2 ** len(factors) - 1):
        left = [f for i, f in enumerate(factors) if choice >> i & 1]
        right = [f for i, f in enumerate(factors) if not choice >> i & 1]
        candidate = _split(tuple(depth), left, right, outer)
        if candidate is None or axes[-1] not in candidate.columns or not candidate.rows:
            continue
        if best is None or len(candidate.batch) < len(best.batch):
            best = candidate
    return best


def _split(
    depth: tuple[Bound, ...], left: list[Node], right: list[Node], outer: frozenset[str]
) -> _Found | None:
    of_left = frozenset[str]().union(*map(free_axes, left)) & outer
    of_right = frozenset[str]().union(*map(free_axes, right)) & outer
    if of_left | of_right != outer:
        return None
    batch = of_left & of_right
    return _Found(depth, _times(left), _times(right), batch, of_left - batch, of_right - batch)


def _times(factors: list[Node]) -> Node:
    total = factors[0]
    for factor in factors[1:]:
        total = Apply("mul", (total, factor))
    return total


def _plan(program: Program, bodies: list[Node], found: dict[Node, _Found]) -> ContractionPlan:
    output, one = program.outputs[0], next(iter(found.values()))
    groups = {"b": one.batch, "i": one.rows, "j": one.columns}
    names: dict[str, str] = {}
    bounds: dict[str, list[Bound]] = {group: [] for group in groups}
    for axis, dim in zip(output.axes, output.dims, strict=True):
        group = next(g for g, members in groups.items() if axis in members)
        names[axis] = f"{group}{len(bounds[group])}"
        bounds[group].append(Bound(names[axis], dim))
    depth = tuple(Bound(f"k{n}", bound.extent) for n, bound in enumerate(one.depth))
    plan = ContractionPlan(
        tuple(bounds["b"]), tuple(bounds["i"]), tuple(bounds["j"]), depth, (), ()
    )
    products: list[Product] = []
    renamed: dict[str, Node] = {old: Axis(new) for old, new in names.items()}
    values: dict[Node, Node] = {Axis(old): new for old, new in renamed.items()}
    for node, item in found.items():
        own = renamed | {old.axis: Axis(k.axis) for old, k in zip(item.depth, depth, strict=True)}
        product = Product(substitute(item.left, own), substitute(item.right, own))
        if product not in products:
            products.append(product)
        values[node] = product_value(products.index(product))
    results = tuple(
        Result(o.name, tuple(names[a] for a in output.axes), replace(body, values))
        for o, body in zip(program.outputs, bodies, strict=True)
    )
    return ContractionPlan(plan.batch, plan.rows, plan.columns, depth, tuple(products), results)


def replace(body: Node, values: dict[Node, Node]) -> Node:
    """Replace whole terms (not looking inside of them), outermost first."""
    done: dict[Node, Node] = dict(values)

    def visit(node: Node) -> Node:
        if node not in done:
            done[node] = rebuild(node, tuple(visit(child) for child in node.children))
        return done[node]

    return visit(body)
