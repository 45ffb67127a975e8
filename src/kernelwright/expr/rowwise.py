"""Pointwise and rowwise programs as phases of sweeps over columns.

A program is rowwise when every reduction depends on *row* axes only: it is one number per row.
Outputs with the same rows form a nest. Inside a nest, reductions and outputs have levels: level 0
needs no other reduction, level n needs one of level n - 1 (softmax: the maximum, then the sum of
exponentials, then the quotient). All work of one level over the same columns is one sweep.

Every load and store is given by its flat offset, and axes that always move together are merged,
so that a contiguous pointwise program of any rank is a single loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from kernelwright.expr.integers import Integers
from kernelwright.expr.kinds import Kinds
from kernelwright.expr.nodes import (
    Apply,
    Axis,
    Constant,
    Extent,
    Load,
    Node,
    Output,
    Parameter,
    Program,
    Reduce,
    ReduceOp,
    Scan,
    free_axes,
    substitute,
    transform,
    walk,
)
from kernelwright.expr.polynomial import ONE, ZERO, Polynomial, from_dimension, to_dimension


@dataclass(frozen=True)
class Bound:
    """An axis and its extent, a dimension expression."""

    axis: str
    extent: str


@dataclass(frozen=True)
class Reduction:
    """A number per row; `value` stands for it in the bodies of later levels."""

    value: Parameter
    op: ReduceOp
    columns: tuple[Bound, ...]
    body: Node
    level: int


@dataclass(frozen=True)
class Store:
    """An output: its flat offset and its value, over rows and columns (none: one per row)."""

    tensor: str
    offset: Node
    columns: tuple[Bound, ...]
    body: Node
    level: int


@dataclass(frozen=True)
class Nest:
    """One loop over rows with everything that happens in a row."""

    rows: tuple[Bound, ...]
    reductions: tuple[Reduction, ...]
    stores: tuple[Store, ...]

    @property
    def levels(self) -> int:
        """Number of levels."""
        return 1 + max(work.level for work in (*self.reductions, *self.stores))


@dataclass(frozen=True)
class RowwisePlan:
    """The nests of a program, run one after the other."""

    nests: tuple[Nest, ...]

    @property
    def pointwise(self) -> bool:
        """Whether nothing is reduced."""
        return not any(nest.reductions for nest in self.nests)


class _Unmatched(Exception):
    """The program is not rowwise."""


_CHAINED = frozenset({"sum", "prod", "max", "min", "any", "all"})


def match(program: Program) -> RowwisePlan | None:
    """The plan of a pointwise or rowwise program, or None."""
    outputs = [o for o in program.outputs if _reduces(o.body)]
    outputs += [o for o in program.outputs if not _reduces(o.body)]
    builders: list[_Builder] = []
    try:
        for output in outputs:
            rows = _row_axes(output)
            builder = next((b for b in builders if b.adopts(output, rows)), None)
            if builder is None:
                builder = _Builder(program, tuple(output.dims[output.axes.index(a)] for a in rows))
                builders.append(builder)
            builder.add(output, rows or output.axes[: len(builder.row_dims)])
    except _Unmatched:
        return None
    nests = [builder.nest() for builder in builders]
    return RowwisePlan(tuple(nests))


def _reduces(body: Node) -> bool:
    return any(isinstance(node, Reduce | Scan) for node in walk(body))


def _row_axes(output: Output) -> tuple[str, ...]:
    """Axes of the output that some reduction depends on, in the output's order."""
    needed: set[str] = set()
    for node in walk(output.body):
        if isinstance(node, Scan):
            raise _Unmatched
        if isinstance(node, Reduce):
            needed |= free_axes(node)
    return tuple(axis for axis in output.axes if axis in needed)


def _same(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    return [from_dimension(d) for d in a] == [from_dimension(d) for d in b]


class _Builder:
    """Collects the outputs of one nest."""

    def __init__(self, program: Program, row_dims: tuple[str, ...]) -> None:
        self.row_dims = row_dims
        self.rows = tuple(Bound(f"row{i}", dim) for i, dim in enumerate(row_dims))
        self.tensors = {tensor.name: tensor for tensor in program.signature.tensors}
        self.taken = {t.name for t in program.signature.tensors}
        self.taken |= {s.name for s in program.signature.scalars} | set(
            program.signature.dimensions
        )
        self.kinds = Kinds(program.signature)
        self.spaces: dict[tuple[Polynomial, ...], tuple[Bound, ...]] = {}
        self.reductions: dict[tuple[ReduceOp, tuple[Bound, ...], Node], Reduction] = {}
        self.values: dict[Node, Reduction] = {}
        self.stores: list[Store] = []
        self.reduced = False

    def adopts(self, output: Output, rows: tuple[str, ...]) -> bool:
        """Whether the output fits this nest: same rows, or pointwise with these rows in front."""
        if rows or _reduces(output.body):
            own = tuple(output.dims[output.axes.index(axis)] for axis in rows)
            return self.reduced and _same(own, self.row_dims)
        if self.reduced:
            return bool(self.row_dims) and _same(output.dims[: len(self.row_dims)], self.row_dims)
        return _same(output.dims, tuple(b.extent for b in self.stores[0].columns))

    def add(self, output: Output, rows: tuple[str, ...]) -> None:
        """Lower one output."""
        self.reduced = self.reduced or _reduces(output.body)
        rest = [(a, d) for a, d in zip(output.axes, output.dims, strict=True) if a not in rows]
        columns = self._columns(tuple(dim for _, dim in rest))
        names: dict[str, Node] = {a: Axis(b.axis) for a, b in zip(rows, self.rows, strict=True)}
        names |= {a: Axis(b.axis) for (a, _), b in zip(rest, columns, strict=True)}
        body = substitute(output.body, names)
        lowered = self.lower(body, columns)
        target = Load(output.name, tuple(names[axis] for axis in output.axes))
        offset = flatten(target, self.tensors[output.name].dims, Integers({})).indices[0]
        self.stores.append(Store(output.name, offset, columns, lowered, self.level(lowered)))

    def _columns(self, dims: tuple[str, ...]) -> tuple[Bound, ...]:
        """The one column space with these extents."""
        key = tuple(from_dimension(dim) for dim in dims)
        fresh = tuple(Bound(f"col{len(self.spaces)}_{i}", dim) for i, dim in enumerate(dims))
        return self.spaces.setdefault(key, fresh)

    def level(self, body: Node) -> int:
        """The first level at which the body can be computed."""
        needed = [self.values[n].level for n in walk(body) if n in self.values]
        return 1 + max(needed, default=-1)

    def reduction(self, node: Reduce) -> Node:
        """The value of a reduction; nested reductions of one kind become one over several axes."""
        chain, body = [(node.axis, node.extent)], node.body
        while (
            isinstance(body, Reduce)
            and body.op == node.op
            and node.op in _CHAINED
            and chain[-1][0] in free_axes(body)
        ):
            chain.append((body.axis, body.extent))
            body = body.body
        columns = self._columns(tuple(extent for _, extent in chain))
        names = {a: Axis(b.axis) for (a, _), b in zip(chain, columns, strict=True)}
        if not free_axes(node) <= {b.axis for b in self.rows}:
            raise _Unmatched
        body = self.lower(substitute(body, dict(names)), columns)
        key = (node.op, columns, body)
        if key not in self.reductions:
            name = f"row_{node.op}{len(self.reductions) + 1}"
            while name in self.taken:
                name += "_"
            value = Parameter(name, self.kinds.of(Reduce(node.op, "", "1", body)))
            found = Reduction(value, node.op, columns, body, self.level(body))
            self.reductions[key] = self.values[value] = found
        return self.reductions[key].value

    def lower(self, body: Node, columns: tuple[Bound, ...]) -> Node:
        """Replace reductions by row values and loads by flat loads."""
        bounds = (*self.rows, *columns)
        integers = Integers({bound.axis: bound.extent for bound in bounds})
        done: dict[Node, Node] = {}

        def visit(node: Node, guarded: bool) -> Node:
            # a node outside and inside of a branch is safe, so the first visit decides
            if node in done:
                return done[node]
            if isinstance(node, Reduce):
                result = self.reduction(node)
            elif isinstance(node, Load):
                indices = tuple(visit(index, guarded) for index in node.indices)
                result = self._load(Load(node.tensor, indices), guarded, integers)
            elif isinstance(node, Apply) and node.op == "where":
                condition = visit(node.args[0], guarded)
                branches = (visit(node.args[1], True), visit(node.args[2], True))
                result = Apply("where", (condition, *branches))
            elif isinstance(node, Apply):
                result = Apply(node.op, tuple(visit(arg, guarded) for arg in node.args))
            else:
                result = node
            done[node] = result
            return result

        for node in _outside_branches(body):
            visit(node, False)
        return visit(body, False)

    def _load(self, load: Load, guarded: bool, integers: Integers) -> Load:
        dims = self.tensors[load.tensor].dims
        if guarded:
            pairs = zip(load.indices, dims, strict=True)
            load = Load(load.tensor, tuple(clamped(i, dim, integers) for i, dim in pairs))
        return flatten(load, dims, integers)

    def nest(self) -> Nest:
        """Everything collected, with merged axes."""
        nest = Nest(self.rows, tuple(self.reductions.values()), tuple(self.stores))
        for space in self.spaces.values():
            nest = _merge_columns(nest, space)
        nest = _merge_rows(nest)
        if nest.reductions:
            return nest
        # nothing reduced: the last axis is the column, the others are rows
        columns = nest.stores[0].columns
        stores = tuple(replace(store, columns=columns[-1:]) for store in nest.stores)
        return Nest(columns[:-1], (), stores)


def _outside_branches(body: Node) -> list[Node]:
    """Loads that are evaluated whatever the conditions are."""
    found: list[Node] = []
    seen: set[Node] = set()
    stack = [body]
    while stack:
        node = stack.pop()
        if node in seen or isinstance(node, Reduce):
            continue
        seen.add(node)
        if isinstance(node, Load):
            found.append(node)
        where = isinstance(node, Apply) and node.op == "where"
        stack.extend(node.children[:1] if where else node.children)
    return found


def clamped(index: Node, dim: str, integers: Integers) -> Node:
    """The index, forced into its dimension where it is not provably inside.

    A load in a branch that is not taken may point anywhere; its value does not matter, but it is
    read all the same.
    """
    value, extent = integers.polynomial(index), from_dimension(dim)
    if not integers.never_negative(value):
        index = Apply("max", (index, Constant(0)))
    if not integers.never_negative(extent - ONE - value):
        index = Apply("min", (index, Extent(to_dimension(extent - ONE))))
    return index


def flatten(load: Load, dims: tuple[str, ...], integers: Integers) -> Load:
    """The load by its flat row-major offset, as its only index."""
    total, stride = ZERO, ONE
    for index, dim in reversed(list(zip(load.indices, dims, strict=True))):
        extent = from_dimension(dim)
        if extent != ONE:
            total = total + integers.polynomial(index) * stride
        stride = stride * extent
    return Load(load.tensor, (integers.node(total),))


def stride_of(offset: Polynomial, axis: str) -> Polynomial | None:
    """The factor of an axis in an offset; None when the offset is not linear in it."""
    target = Axis(axis)
    terms: list[tuple[tuple[Node, ...], int]] = []
    for monomial, coefficient in offset.terms.items():
        if any(atom is not target and axis in free_axes(atom) for atom in monomial):
            return None
        if target in monomial:
            rest = tuple(atom for atom in monomial if atom is not target)
            if len(rest) + 1 != len(monomial):
                return None
            terms.append((rest, coefficient))
    return Polynomial.of(terms)


def _merge_columns(nest: Nest, space: tuple[Bound, ...]) -> Nest:
    merged = space
    reductions = [r for r in nest.reductions if r.columns == space]
    stores = [s for s in nest.stores if s.columns == space]
    roots = [r.body for r in reductions] + [s.body for s in stores]
    merged, drop = merge_axes(space, roots, [s.offset for s in stores])
    if merged == space:
        return nest

    def reduction(r: Reduction) -> Reduction:
        return replace(r, columns=merged, body=drop(r.body)) if r in reductions else r

    def store(s: Store) -> Store:
        if s not in stores:
            return s
        return replace(s, columns=merged, body=drop(s.body), offset=drop(s.offset))

    return Nest(nest.rows, tuple(map(reduction, nest.reductions)), tuple(map(store, nest.stores)))


def _merge_rows(nest: Nest) -> Nest:
    roots = [work.body for work in (*nest.reductions, *nest.stores)]
    merged, drop = merge_axes(nest.rows, roots, [s.offset for s in nest.stores])
    reductions = tuple(replace(r, body=drop(r.body)) for r in nest.reductions)
    stores = tuple(replace(s, body=drop(s.body), offset=drop(s.offset)) for s in nest.stores)
    return Nest(merged, reductions, stores)


def merge_axes(
    bounds: tuple[Bound, ...], roots: list[Node], offsets: list[Node]
) -> tuple[tuple[Bound, ...], Callable[[Node], Node]]:
    """Merge neighbours that always move together, and how to rewrite terms for it."""
    dropped: dict[str, Node] = {}
    integers = Integers({})

    def drop(node: Node) -> Node:
        if not dropped:
            return node

        def tidy(n: Node) -> Node:
            if isinstance(n, Load):
                return Load(n.tensor, (integers.node(integers.polynomial(n.indices[0])),))
            return n

        return transform(substitute(node, dropped), tidy)

    loads = {n for root in roots for n in walk(root) if isinstance(n, Load)}
    flat = [integers.polynomial(n) for n in [*offsets, *(load.indices[0] for load in loads)]]
    used = _value_axes(roots)
    result = list(bounds)
    for i in range(len(bounds) - 2, -1, -1):
        outer, inner = result[i], result[i + 1]
        extent = from_dimension(inner.extent)
        if {outer.axis, inner.axis} & used or not all(
            _together(p, outer.axis, inner.axis, extent) for p in flat
        ):
            continue
        whole = to_dimension(from_dimension(outer.extent) * extent)
        result[i : i + 2] = [Bound(inner.axis, whole)]
        dropped[outer.axis] = Constant(0)
    return tuple(result), drop


def _together(offset: Polynomial, outer: str, inner: str, extent: Polynomial) -> bool:
    step, unit = stride_of(offset, outer), stride_of(offset, inner)
    return step is not None and unit is not None and step == unit * extent


def _value_axes(roots: Iterable[Node]) -> set[str]:
    """Axes used as numbers, outside of load offsets."""
    used: set[str] = set()
    seen: set[Node] = set()
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if isinstance(node, Axis):
            used.add(node.name)
        if not isinstance(node, Load):
            stack.extend(node.children)
    return used
