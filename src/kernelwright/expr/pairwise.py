"""The nearest of many candidates: arg-min and minimum of squared Euclidean distances.

    label[n] = argmin_k Σ_d (point(n, d) - centre(k, d))²

The distance may be written as it stands or expanded, `Σ p² - 2 Σ p·c + Σ c²`, in any grouping,
under a square root or clamped at zero; the sums are multiplied out and compared as polynomials.
"""

from __future__ import annotations

from dataclasses import dataclass

from kernelwright.expr.contraction import Result, replace
from kernelwright.expr.nodes import (
    Apply,
    Axis,
    Constant,
    Node,
    Program,
    Reduce,
    Scan,
    free_axes,
    substitute,
    walk,
)
from kernelwright.expr.polynomial import from_dimension
from kernelwright.expr.rowwise import Bound

Monomials = dict[tuple[Node, ...], float]
_CANDIDATE, _DEPTH = "candidate", "depth"


@dataclass(frozen=True)
class PairwisePlan:
    """For each row the nearest candidate, and the squared distance to it."""

    rows: tuple[Bound, ...]
    candidate: Bound
    depth: Bound
    point: Node
    """Over rows and depth."""
    centre: Node
    """Over candidate and depth."""
    results: tuple[Result, ...]

    @property
    def axes(self) -> dict[str, str]:
        """Every index variable with its extent."""
        return {bound.axis: bound.extent for bound in (*self.rows, self.candidate, self.depth)}

    @property
    def label(self) -> Node:
        """What stands for the index of the nearest candidate in the results (an integer)."""
        return Apply("nearest", tuple(Axis(bound.axis) for bound in self.rows))

    @property
    def distance(self) -> Node:
        """What stands for the least squared distance in the results."""
        return Apply("least", tuple(Axis(bound.axis) for bound in self.rows))


class _Unmatched(Exception):
    """The program has another form."""


@dataclass(frozen=True)
class _Score:
    """One reduction over candidates: its operands, and what is applied to the distance."""

    candidate: Bound
    depth: Bound
    point: Node
    centre: Node
    whole: bool
    """Whether the score is the distance itself, not the distance less Σ p²."""
    wrappers: tuple[Apply, ...]


def match(program: Program) -> PairwisePlan | None:
    """The plan of a nearest-candidate search, or None."""
    first = program.outputs[0]
    dims = [from_dimension(d) for d in first.dims]
    if any([from_dimension(d) for d in o.dims] != dims for o in program.outputs):
        return None
    rows = tuple(Bound(f"row{n}", dim) for n, dim in enumerate(first.dims))
    try:
        return _match(program, rows)
    except _Unmatched:
        return None


def _match(program: Program, rows: tuple[Bound, ...]) -> PairwisePlan:
    bodies: list[Node] = []
    for output in program.outputs:
        names = {a: Axis(b.axis) for a, b in zip(output.axes, rows, strict=True)}
        bodies.append(substitute(output.body, dict[str, Node](names)))
    reductions = [n for body in bodies for n in _outermost(body)]
    scores = {node: _score(node, frozenset(b.axis for b in rows)) for node in reductions}
    if not scores:
        raise _Unmatched
    one = next(iter(scores.values()))
    plan = PairwisePlan(rows, one.candidate, one.depth, one.point, one.centre, ())
    values: dict[Node, Node] = {}
    for node, score in scores.items():
        if (score.point, score.centre, score.candidate, score.depth) != (
            plan.point, plan.centre, plan.candidate, plan.depth,
        ):  # fmt: skip
            raise _Unmatched
        values[node] = plan.label if node.op == "argmin" else _rewrap(plan.distance, score)
    results = tuple(
        Result(output.name, tuple(b.axis for b in rows), replace(body, values))
        for output, body in zip(program.outputs, bodies, strict=True)
    )
    return PairwisePlan(rows, plan.candidate, plan.depth, plan.point, plan.centre, results)


def _outermost(body: Node) -> list[Reduce]:
    found: list[Reduce] = []
    seen: set[Node] = set()
    stack = [body]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if isinstance(node, Scan):
            raise _Unmatched
        if isinstance(node, Reduce):
            found.append(node)
        else:
            stack.extend(node.children)
    return found


def _rewrap(value: Node, score: _Score) -> Node:
    if not score.whole:
        raise _Unmatched
    for wrapper in reversed(score.wrappers):
        value = Apply(wrapper.op, (value, *wrapper.args[1:]))
    return value


def _score(node: Reduce, rows: frozenset[str]) -> _Score:
    if node.op not in ("argmin", "min"):
        raise _Unmatched
    candidate = Bound(_CANDIDATE, node.extent)
    body = substitute(node.body, {node.axis: Axis(_CANDIDATE)})
    wrappers: list[Apply] = []
    while isinstance(body, Apply) and _increasing(body):
        # zero may be written on either side of the maximum
        first, *rest = sorted(body.args, key=lambda arg: isinstance(arg, Constant))
        wrappers.append(Apply(body.op, (first, *rest)))
        body = first
    sums = _Sums(rows)
    monomials = sums.expand(body, summed=False)
    if sums.extent is None:
        raise _Unmatched
    point, centre, whole = _operands(monomials, rows)
    return _Score(candidate, Bound(_DEPTH, sums.extent), point, centre, whole, tuple(wrappers))


def _increasing(node: Apply) -> bool:
    if node.op == "sqrt":
        return True
    zero = any(isinstance(arg, Constant) and arg.value == 0 for arg in node.args)
    return node.op == "max" and zero


class _Sums:
    """Multiplies a score out into products of terms, all summed over one depth axis."""

    def __init__(self, rows: frozenset[str]) -> None:
        self.rows = rows
        self.extent: str | None = None

    def expand(self, node: Node, summed: bool) -> Monomials:
        """Monomials of a term; outside of a sum only sums and multiples of them are allowed."""
        if isinstance(node, Constant) and summed:
            return {(): float(node.value)}
        if isinstance(node, Reduce) and node.op == "sum" and not summed:
            return self._sum(node)
        if isinstance(node, Apply) and node.op == "pow" and _is_two(node.args[1]):
            node = Apply("mul", (node.args[0], node.args[0]))
        if isinstance(node, Apply) and node.op in ("add", "sub", "neg", "mul"):
            return self._arithmetic(node, summed)
        if not summed or any(isinstance(n, Reduce | Scan) for n in walk(node)):
            raise _Unmatched
        return {(node,): 1.0}

    def _sum(self, node: Reduce) -> Monomials:
        extent = self.extent or node.extent
        if from_dimension(extent) != from_dimension(node.extent):
            raise _Unmatched
        self.extent = extent
        return self.expand(substitute(node.body, {node.axis: Axis(_DEPTH)}), True)

    def _arithmetic(self, node: Apply, summed: bool) -> Monomials:
        if node.op == "mul" and not summed:
            for scale, other in (node.args, node.args[::-1]):
                if isinstance(scale, Constant):
                    return _add({}, self.expand(other, False), float(scale.value))
            raise _Unmatched
        left = self.expand(node.args[0], summed)
        if node.op == "neg":
            return _add({}, left, -1.0)
        right = self.expand(node.args[1], summed)
        if node.op != "mul":
            return _add(left, right, 1.0 if node.op == "add" else -1.0)
        product: Monomials = {}
        for a, x in left.items():
            for b, y in right.items():
                if len(a) + len(b) > 2:
                    raise _Unmatched
                key = tuple(sorted((*a, *b), key=id))
                product = _add(product, {key: x * y}, 1.0)
        return product


def _is_two(node: Node) -> bool:
    return isinstance(node, Constant) and node.value == 2


def _add(left: Monomials, right: Monomials, scale: float) -> Monomials:
    total = dict(left)
    for key, value in right.items():
        total[key] = total.get(key, 0.0) + scale * value
    return {key: value for key, value in total.items() if value}


def _operands(monomials: Monomials, rows: frozenset[str]) -> tuple[Node, Node, bool]:
    """Point and centre of `[p²] - 2pc + c²`, and whether p² is there."""
    crosses = [key for key in monomials if len(key) == 2 and key[0] is not key[1]]
    if len(crosses) != 1:
        raise _Unmatched
    axes = {node: free_axes(node) for node in crosses[0]}
    centres = [n for n in crosses[0] if _CANDIDATE in axes[n] and not axes[n] & rows]
    points = [n for n in crosses[0] if _CANDIDATE not in axes[n] and _DEPTH in axes[n]]
    if len(centres) != 1 or len(points) != 1 or _DEPTH not in axes[centres[0]]:
        raise _Unmatched
    point, centre = points[0], centres[0]
    expected = {crosses[0]: -2.0, (centre, centre): 1.0}
    if monomials == expected:
        return point, centre, False
    if monomials == expected | {(point, point): 1.0}:
        return point, centre, True
    raise _Unmatched
