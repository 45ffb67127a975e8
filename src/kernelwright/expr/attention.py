"""Softmax attention: weights that are exponentials of scores, normalised, times values.

    score(i, t)  = f(Σ_d query(i, d) · key(t, d), i, t)
    weight(i, t) = exp(score(i, t) - max_t score(i, t))
    out[i, e]    = Σ_t weight(i, t) · value(t, e) / Σ_t weight(i, t)

The three reductions over `t` are found wherever they stand in the outputs (a log-sum-exp beside
the product, a quotient inside or outside of the sum), and what is made of them stays a term.
Scores that are -infinity from some `t` on give each row an end. Axes of the output that keys and
values depend on are the batch; where they depend on `h // n` only, `n` values of `h` share keys
and become rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from kernelwright.expr.contraction import Result
from kernelwright.expr.contraction import replace as replace_terms
from kernelwright.expr.integers import FLIPPED, Integers
from kernelwright.expr.kinds import Kinds
from kernelwright.expr.nodes import (
    Apply,
    Axis,
    Constant,
    Node,
    Output,
    Program,
    Reduce,
    Scan,
    free_axes,
    substitute,
    transform,
    walk,
)
from kernelwright.expr.polynomial import ONE, Polynomial, divide, from_dimension, to_dimension
from kernelwright.expr.rowwise import Bound
from kernelwright.expr.simplify import share

MIXED, GREATEST, TOTAL = "mixed_values", "greatest_score", "total_weight"
DOT = Apply("dot", ())
"""What stands for a product of a query and a key in the score."""
_KEY, _DEPTH, _COLUMN = "token", "depth", "column"


@dataclass(frozen=True)
class AttentionPlan:
    """Attention with its mask and what is made of its results."""

    batch: tuple[Bound, ...]
    rows: tuple[Bound, ...]
    key: Bound
    depth: Bound
    column: Bound
    queries: Node
    """Over batch, rows and depth."""
    keys: Node
    """Over batch, key and depth."""
    values: Node
    """Over batch, key and column."""
    score: Node
    """Over batch, rows, key and `DOT`."""
    end: Node | None
    """Over batch and rows: the first key that a row does not see; None: it sees all."""
    results: tuple[Result, ...]
    """Over batch, rows and column; `axes` are those of the targets below."""
    targets: tuple[tuple[Node, ...], ...]
    """The indices of each result."""

    @property
    def axes(self) -> dict[str, str]:
        """Every index variable with its extent."""
        bounds = (*self.batch, *self.rows, self.key, self.depth, self.column)
        return {bound.axis: bound.extent for bound in bounds}

    def stands_for(self, what: str) -> Node:
        """What stands in the results for `MIXED`, `GREATEST` or `TOTAL`.

        Weights are exp(score - greatest); where the greatest score is infinite, exp(score).
        """
        return _stand_in(what, tuple(bound.axis for bound in (*self.batch, *self.rows)))


def _stand_in(what: str, axes: tuple[str, ...]) -> Node:
    names = (*axes, _COLUMN) if what == MIXED else axes
    return Apply(what, tuple(Axis(name) for name in names))


class _Unmatched(Exception):
    """The program has another form."""


def match(program: Program) -> AttentionPlan | None:
    """The plan of an attention, or None."""
    main = max(program.outputs, key=lambda output: len(output.axes))
    try:
        return _match(program, main)
    except _Unmatched:
        return None


def _match(program: Program, main: Output) -> AttentionPlan:
    if len(main.axes) < 2:
        raise _Unmatched
    axes = tuple(f"row{n}" for n in range(len(main.axes) - 1))
    dims = dict(zip((*axes, _COLUMN), main.dims, strict=True))
    reductions = _Reductions()
    results: list[Result] = []
    for output in program.outputs:
        own = (*axes, _COLUMN)[: len(output.axes)]
        if len(output.axes) < len(axes) or not _same(output.dims, [dims[a] for a in own]):
            raise _Unmatched
        names = {a: Axis(b) for a, b in zip(output.axes, own, strict=True)}
        body = reductions.lower(share(substitute(output.body, dict[str, Node](names))))
        results.append(Result(output.name, own, body))
    if reductions.score is None or reductions.values is None:
        raise _Unmatched
    queries, keys, depth, score = _split_score(reductions.score)
    score, ends = _ends(score, Integers(dims | {_KEY: reductions.extent}), Kinds(program.signature))
    plan = AttentionPlan(
        (), tuple(Bound(a, dims[a]) for a in axes), Bound(_KEY, reductions.extent),
        Bound(_DEPTH, depth), Bound(_COLUMN, dims[_COLUMN]), queries, keys, reductions.values,
        score, _least(ends), tuple(results), tuple(tuple(map(Axis, r.axes)) for r in results),
    )  # fmt: skip
    return _with_batch(_shared_keys(plan))


def _same(a: tuple[str, ...], b: list[str]) -> bool:
    return [from_dimension(d) for d in a] == [from_dimension(d) for d in b]


# -- the reductions over keys ---------------------------------------------------------------------


@dataclass
class _Reductions:
    """What all reductions over keys have in common, gathered from the outputs."""

    extent: str = ""
    score: Node | None = None
    values: Node | None = None
    done: dict[Node, Node] = field(default_factory=dict[Node, Node])

    def lower(self, body: Node) -> Node:
        """The body with stand-ins for the reductions."""
        if body not in self.done:
            if isinstance(body, Scan):
                raise _Unmatched
            if isinstance(body, Reduce):
                self.done[body] = self._reduction(body)
            else:
                children = {child: self.lower(child) for child in body.children}
                self.done[body] = replace_terms(body, dict(children)) if children else body
        return self.done[body]

    def _reduction(self, node: Reduce) -> Node:
        body = substitute(node.body, {node.axis: Axis(_KEY)})
        if node.op == "max":
            self._same_keys(node, body)
            return self._stand_in(GREATEST, body)
        if node.op != "sum":
            raise _Unmatched
        weights, others, divisors = _factors(body)
        exponentials = [w for w in weights if isinstance(w, Apply) and w.op == "exp"]
        if len(exponentials) != 1 or any(_KEY in free_axes(d) for d in divisors):
            raise _Unmatched
        score, plain = self._weight(node, exponentials[0])
        values = [w for w in weights if w is not exponentials[0]]
        if not values:
            found = self._stand_in(TOTAL, score)
            if plain:  # no weight is a number where the greatest score is infinite
                greatest = self._stand_in(GREATEST, score)
                found = Apply("add", (found, Apply("sub", (greatest, greatest))))
        else:
            value = _times(values)
            if self.values not in (None, value) or any(_reduces(v) for v in values):
                raise _Unmatched
            self.values = value
            found = self._stand_in(MIXED, score)
        for other in others:
            found = Apply("mul", (found, self.lower(other)))
        for divisor in divisors:
            found = Apply("div", (found, self._total(divisor)))
        return found

    def _total(self, divisor: Node) -> Node:
        """A divisor; the guard of a lone total is not needed: 0 / 0 is NaN as well."""
        lowered = self.lower(divisor)
        if isinstance(divisor, Reduce) and isinstance(lowered, Apply) and lowered.op == "add":
            return lowered.args[0]
        return lowered

    def _weight(self, node: Reduce, weight: Apply) -> tuple[Node, bool]:
        """The score of `exp(score - greatest)`, and whether the greatest is taken as it is."""
        difference = weight.args[0]
        if not (isinstance(difference, Apply) and difference.op == "sub"):
            raise _Unmatched
        score, shift = difference.args
        self._same_keys(node, score)
        lowered = self.lower(shift)
        greatest = self._stand_in(GREATEST, score)
        guarded = Apply("where", (Apply("isinf", (greatest,)), Constant(0.0), greatest))
        if lowered not in (greatest, guarded):
            raise _Unmatched
        return score, lowered is greatest

    def _same_keys(self, node: Reduce, score: Node) -> None:
        if not self.extent:
            self.extent = node.extent
        if self.score not in (None, score) or not _same((node.extent,), [self.extent]):
            raise _Unmatched
        self.score = score

    @staticmethod
    def _stand_in(what: str, score: Node) -> Node:
        return _stand_in(what, tuple(sorted(free_axes(score) - {_KEY})))


def _factors(node: Node) -> tuple[list[Node], list[Node], list[Node]]:
    """Factors that depend on the key, other factors, and divisors."""
    if isinstance(node, Apply) and node.op == "mul":
        left, right = _factors(node.args[0]), _factors(node.args[1])
        return left[0] + right[0], left[1] + right[1], left[2] + right[2]
    if isinstance(node, Apply) and node.op == "div":
        weights, others, divisors = _factors(node.args[0])
        return weights, others, [*divisors, node.args[1]]
    if _KEY in free_axes(node):
        return [node], [], []
    return [], [node], []


def _times(factors: list[Node]) -> Node:
    total = factors[0]
    for factor in factors[1:]:
        total = Apply("mul", (total, factor))
    return total


def _reduces(node: Node) -> bool:
    return any(isinstance(below, Reduce | Scan) for below in walk(node))


# -- the score ------------------------------------------------------------------------------------


def _split_score(score: Node) -> tuple[Node, Node, str, Node]:
    """Queries, keys, the extent of their depth, and the score in terms of `DOT`."""
    dots = [node for node in walk(score) if isinstance(node, Reduce | Scan)]
    if len(dots) != 1 or not isinstance(dots[0], Reduce) or dots[0].op != "sum":
        raise _Unmatched
    dot = dots[0]
    body = substitute(dot.body, {dot.axis: Axis(_DEPTH)})
    with_key, without, divisors = _factors(body)
    keys = [f for f in with_key if _DEPTH in free_axes(f)]
    if not keys or len(keys) < len(with_key) or not without or divisors:
        raise _Unmatched
    return _times(without), _times(keys), dot.extent, replace_terms(score, {dot: DOT})


def _ends(score: Node, integers: Integers, kinds: Kinds) -> tuple[Node, list[Node]]:
    """The score without masks of the form `key >= end -> -infinity`, and those ends."""
    if not (isinstance(score, Apply) and score.op == "where"):
        return score, []
    condition, *branches = score.args
    for hidden, seen, masks_when in ((0, 1, True), (1, 0, False)):
        if branches[hidden] is not Constant(float("-inf")):
            continue
        end = _end(condition, masks_when, integers, kinds)
        if end is not None:
            rest, ends = _ends(branches[seen], integers, kinds)
            return rest, [end, *ends]
    return score, []


def _end(condition: Node, masks_when: bool, integers: Integers, kinds: Kinds) -> Node | None:
    """The end `n` of a condition that is `key >= n` (or, when it is to fail, `key < n`)."""
    if not isinstance(condition, Apply) or condition.op not in ("lt", "le", "gt", "ge"):
        return None
    left, right = condition.args
    if kinds.of(left) != "int" or kinds.of(right) != "int":
        return None
    difference = integers.polynomial(left) - integers.polynomial(right)
    step = difference.terms.get((Axis(_KEY),), 0)
    rest = difference - Polynomial.of([((Axis(_KEY),), step)])
    if abs(step) != 1 or any(_KEY in free_axes(atom) for atom in rest.atoms):
        return None
    op = condition.op if step > 0 else FLIPPED[condition.op]
    at = -rest if step > 0 else rest
    if op in (("gt", "ge") if masks_when else ("lt", "le")):
        inclusive = op in ("gt", "le")
        return integers.node(at + ONE if inclusive else at)
    return None


def _least(ends: list[Node]) -> Node | None:
    least = ends[0] if ends else None
    for end in ends[1:]:
        assert least is not None
        least = Apply("min", (least, end))
    return least


# -- batch and rows -------------------------------------------------------------------------------


def _shared_keys(plan: AttentionPlan) -> AttentionPlan:
    """Splits an axis `h` of which keys and values see `h // n` only; the other part goes last."""
    for bound in plan.rows:
        if bound.axis not in free_axes(plan.keys) | free_axes(plan.values):
            continue
        group = _group(bound, plan.keys, plan.values)
        if group is None:
            continue
        old, outer, inner = (Axis(f"{bound.axis}{suffix}") for suffix in ("", "_of", "_in"))
        size = Integers({}).node(group)
        count, _ = divide(from_dimension(bound.extent), group)

        def split(
            term: Node, old: Node = old, size: Node = size, outer: Node = outer, inner: Node = inner
        ) -> Node:
            parts = {Apply("floordiv", (old, size)): outer, Apply("mod", (old, size)): inner}
            whole = Apply("add", (Apply("mul", (outer, size)), inner))
            return replace_terms(term, {**parts, old: whole})

        rows = [b for b in plan.rows if b is not bound]
        rows.insert(plan.rows.index(bound), Bound(outer.name, to_dimension(count)))
        plan = replace(
            plan, rows=(*rows, Bound(inner.name, to_dimension(group))),
            queries=split(plan.queries), keys=split(plan.keys), values=split(plan.values),
            score=split(plan.score), end=None if plan.end is None else split(plan.end),
            results=tuple(replace(r, body=split(r.body)) for r in plan.results),
            targets=tuple(tuple(map(split, t)) for t in plan.targets),
        )  # fmt: skip
    return plan


def _group(bound: Bound, *terms: Node) -> Polynomial | None:
    """The one `n` by which the axis is divided wherever it stands, a divisor of its extent."""
    axis, divisors = Axis(bound.axis), set[Node]()
    for node in walk(*terms):
        if axis in node.children:
            if not (isinstance(node, Apply) and node.op == "floordiv" and node.args[0] is axis):
                return None
            divisors.add(node.args[1])
    if len(divisors) != 1:
        return None
    group = Integers({}).polynomial(divisors.pop())
    _, rest = divide(from_dimension(bound.extent), group)
    return None if rest.terms else group


def _with_batch(plan: AttentionPlan) -> AttentionPlan:
    """Batch and rows told apart, and stand-ins over the final axes."""
    seen = free_axes(plan.keys) | free_axes(plan.values)
    if plan.column.axis in free_axes(plan.keys) | free_axes(plan.queries) | free_axes(plan.score):
        raise _Unmatched
    if _COLUMN not in free_axes(plan.values) or _DEPTH not in free_axes(plan.queries):
        raise _Unmatched
    batch = tuple(b for b in plan.rows if b.axis in seen)
    rows = tuple(b for b in plan.rows if b.axis not in seen)
    plan = replace(plan, batch=batch, rows=rows)

    def change(node: Node) -> Node:
        if isinstance(node, Apply) and node.op in (MIXED, GREATEST, TOTAL):
            return plan.stands_for(node.op)
        return node

    results = tuple(replace(r, body=transform(r.body, change)) for r in plan.results)
    return replace(plan, results=results)
