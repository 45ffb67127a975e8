"""Index arithmetic in simplest form.

    (b*T + t) // T  ->  b        (b*T + t) % T  ->  t        lt(i, D)  ->  true  where i < D

Laws used: polynomial normal form, and floor division split into the part that the divisor divides
and a rest that provably lies in `[0, divisor)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

from kernelwright.expr.nodes import Apply, Axis, Constant, Extent, Node, Order, Reduce, walk
from kernelwright.expr.polynomial import (
    ONE,
    ZERO,
    Bounds,
    Polynomial,
    divide,
    from_dimension,
    never_negative,
    to_dimension,
)

INTEGER_ARITHMETIC = frozenset({"add", "sub", "mul", "neg", "floordiv", "mod"})
FLIPPED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le", "eq": "eq", "ne": "ne"}
"""Comparisons, and what each becomes when its sides are exchanged."""


class Integers:
    """Simplifies integer terms, given the extent of every index variable in them."""

    def __init__(self, extents: Mapping[str, str]) -> None:
        """Take the extents as dimension expressions, by the name of the index variable."""
        self._bounds: dict[Node, Bounds] = {
            Axis(name): (ZERO, from_dimension(extent) - ONE) for name, extent in extents.items()
        }
        self._polynomials: dict[Node, Polynomial] = {}

    def restrict(self, axis: str, before: int, after: int) -> None:
        """Know an index variable to be at least `before`, and `after` less than its extent."""
        low, high = self._bounds[Axis(axis)]
        assert low is not None
        assert high is not None
        self._bounds[Axis(axis)] = (
            low + Polynomial.constant(before),
            high - Polynomial.constant(after),
        )

    def polynomial(self, node: Node) -> Polynomial:
        """The polynomial of an integer term; what is not arithmetic is an atom."""
        for below in walk(node):
            if below not in self._polynomials:
                self._polynomials[below] = self._one(below)
        return self._polynomials[node]

    def _one(self, node: Node) -> Polynomial:
        match node:
            case Constant() if type(node.value) is int:
                return Polynomial.constant(node.value)
            case Extent():
                return from_dimension(node.dim)
            case Apply() if node.op in INTEGER_ARITHMETIC:
                return self._arithmetic(node.op, [self._polynomials[a] for a in node.args])
            case Reduce() if node.op in ("argmin", "argmax"):
                self._bounds[node] = (ZERO, from_dimension(node.extent) - ONE)
                return Polynomial.atom(node)
            case Order():
                self._bounds[node] = (ZERO, from_dimension(node.extent) - ONE)
                return Polynomial.atom(node)
            case _:
                return Polynomial.atom(node)

    def _arithmetic(self, op: str, args: list[Polynomial]) -> Polynomial:
        match op:
            case "add":
                return self._recombined(args[0] + args[1])
            case "sub":
                return self._recombined(args[0] - args[1])
            case "mul":
                return args[0] * args[1]
            case "neg":
                return -args[0]
            case "floordiv":
                return self._divide(*args)[0]
            case _:
                return self._divide(*args)[1]

    def _recombined(self, value: Polynomial) -> Polynomial:
        """`(x // n) * n + x % n = x`."""
        for monomial, coefficient in value.terms.items():
            rest = monomial[0] if len(monomial) == 1 else None
            if not (isinstance(rest, Apply) and rest.op == "mod"):
                continue
            whole = Polynomial.atom(Apply("floordiv", rest.args)) * self.polynomial(rest.args[1])
            parts = (whole + Polynomial.atom(rest)) * Polynomial.constant(coefficient)
            if all(value.terms.get(m) == c for m, c in parts.terms.items()):
                joined = self.polynomial(rest.args[0]) * Polynomial.constant(coefficient)
                return self._recombined(value - parts + joined)
        return value

    def _divide(self, value: Polynomial, divisor: Polynomial) -> tuple[Polynomial, Polynomial]:
        quotient, rest = divide(value, divisor)
        by = divisor.as_constant
        if by is not None and by > 0 and all(c > 0 for c in value.terms.values()):
            # constant divisor: the rest of each coefficient, so that 5 // 3 leaves 1 and 2
            parts = {m: (c // by, c % by) for m, c in value.terms.items()}
            quotient = Polynomial({m: q for m, (q, _) in parts.items() if q})
            rest = Polynomial({m: r for m, (_, r) in parts.items() if r})
        if self.never_negative(rest) and self.never_negative(divisor - ONE - rest):
            return quotient, rest
        opaque = self._opaque("floordiv", rest, divisor)
        return quotient + opaque[0], opaque[1]

    def _opaque(
        self, op: str, rest: Polynomial, divisor: Polynomial
    ) -> tuple[Polynomial, Polynomial]:
        left, right = self.node(rest), self.node(divisor)
        positive = self.never_negative(divisor - ONE)
        whole = self._nested(left, right) if positive else None
        if whole is None:
            whole = Apply("floordiv", (left, right))
        remainder = self._nested_mod(left, right, divisor) if positive else None
        if remainder is None:
            remainder = Apply("mod", (left, right))
        if positive and isinstance(remainder, Apply) and remainder.op == "mod":
            self._bounds[remainder] = (ZERO, divisor - ONE)
        if positive and self.never_negative(rest):
            self._bounds.setdefault(whole, (ZERO, self._greatest_quotient(rest, divisor)))
        return Polynomial.atom(whole), Polynomial.atom(remainder)

    def _greatest_quotient(self, rest: Polynomial, divisor: Polynomial) -> Polynomial | None:
        """Of an index variable of extent `k * divisor` the quotient is at most `k - 1`."""
        if len(rest.terms) != 1:
            return None
        (monomial, coefficient), *_ = rest.terms.items()
        if coefficient != 1 or len(monomial) != 1:
            return None
        high = self._bounds.get(monomial[0], (None, None))[1]
        if high is None:
            return None
        quotient, left = divide(high + ONE, divisor)
        return None if left.terms else quotient - ONE

    def _nested(self, left: Node, right: Node) -> Node | None:
        """`(a // m) // n = a // (m * n)` for positive m and n."""
        if not (isinstance(left, Apply) and left.op == "floordiv"):
            return None
        inner = self.polynomial(left.args[1])
        if not self.never_negative(inner - ONE):
            return None
        product = inner * self.polynomial(right)
        return Apply("floordiv", (left.args[0], self.node(product)))

    def _nested_mod(self, left: Node, right: Node, divisor: Polynomial) -> Node | None:
        """`(a % (k*n)) % n = a % n`."""
        if not (isinstance(left, Apply) and left.op == "mod"):
            return None
        _, rest = divide(self.polynomial(left.args[1]), divisor)
        return None if rest.terms else Apply("mod", (left.args[0], right))

    def never_negative(self, value: Polynomial) -> bool:
        """Whether the value is provably at least 0."""
        return never_negative(value, self._bounds)

    def node(self, value: Polynomial) -> Node:
        """The term of a polynomial: index variables first, one extent for what is of dimensions."""
        groups: dict[tuple[Node, ...], list[tuple[tuple[Node, ...], int]]] = {}
        for monomial, coefficient in value.terms.items():
            dims = tuple(atom for atom in monomial if isinstance(atom, Extent))
            rest = tuple(atom for atom in monomial if not isinstance(atom, Extent))
            groups.setdefault(rest, []).append((dims, coefficient))
        plus: list[Node] = []
        minus: list[Node] = []
        for rest in sorted(groups, key=lambda key: (not key, len(key) == 1, _position(key))):
            factor = Polynomial.of(groups[rest])
            negative = all(c < 0 for c in factor.terms.values())
            scale = self._scale(-factor if negative else factor)
            (minus if negative else plus).append(_product(scale, rest))
        return _sum(plus, minus)

    def _scale(self, factor: Polynomial) -> Node:
        """A polynomial of sizes; as extents are not negative, a doubtful one is a difference."""
        value = factor.as_constant
        if value is not None:
            return Constant(value)
        if self.never_negative(factor):
            return Extent(to_dimension(factor))
        parts = (
            {m: abs(c) for m, c in factor.terms.items() if (c > 0) is sign}
            for sign in (True, False)
        )
        more, less = (self._scale(Polynomial(part)) for part in parts)
        return Apply("sub", (more, less))

    def compare(self, op: str, left: Node, right: Node) -> bool | None:
        """The value of an integer comparison, or None when it is not the same everywhere."""
        difference = self.polynomial(right) - self.polynomial(left)
        if op in ("gt", "ge"):
            difference, op = -difference, {"gt": "lt", "ge": "le"}[op]
        if op in ("eq", "ne"):
            return self._equality(op, difference)
        slack = difference - ONE if op == "lt" else difference
        if self.never_negative(slack):
            return True
        return False if self.never_negative(-slack - ONE) else None

    def comparison(self, op: str, left: Node, right: Node) -> Node:
        """A comparison with index variables on the left and sizes on the right where possible."""
        value = self.compare(op, left, right)
        if value is not None:
            return Constant(value)
        less, more, rest = ZERO, ZERO, ZERO
        for monomial, coefficient in (self.polynomial(right) - self.polynomial(left)).terms.items():
            term = Polynomial({monomial: coefficient})
            if all(isinstance(atom, Extent) for atom in monomial):
                rest += term
            elif coefficient < 0:
                less -= term
            else:
                more += term
        if not less.terms and not more.terms:
            # of sizes alone: they go left, the number right
            number = Polynomial.constant(rest.terms.get((), 0))
            less, rest = number - rest, number
            if next(iter(less.terms.values())) < 0:
                op, less, rest = FLIPPED[op], -less, -rest
        elif not less.terms:
            op, less, more, rest = FLIPPED[op], more, less, -rest
        return Apply(op, (self.node(less), self.node(more + rest)))

    def _equality(self, op: str, difference: Polynomial) -> bool | None:
        if not difference.terms:
            return op == "eq"
        apart = self.never_negative(difference - ONE) or self.never_negative(-difference - ONE)
        return op == "ne" if apart else None


def _position(atoms: tuple[Node, ...]) -> str:
    return atoms[0].name if atoms and isinstance(atoms[0], Axis) else "~"


def _product(scale: Node, rest: tuple[Node, ...]) -> Node:
    if not rest:
        return scale
    product = reduce(lambda a, b: Apply("mul", (a, b)), rest)
    return product if scale is Constant(1) else Apply("mul", (product, scale))


def _sum(plus: list[Node], minus: list[Node]) -> Node:
    if not plus:
        if not minus:
            return Constant(0)
        if isinstance(minus[0], Constant) and len(minus) == 1:
            return Constant(-minus[0].value)
        plus, minus = [Apply("neg", (minus[0],))], minus[1:]
    total = reduce(lambda a, b: Apply("add", (a, b)), plus)
    return reduce(lambda a, b: Apply("sub", (a, b)), minus, total)
