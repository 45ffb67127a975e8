"""Integer polynomials over dimensions, index variables and opaque terms.

They are the normal form of index arithmetic: two index expressions that are equal by ring laws
have equal polynomials, and whether a polynomial is never negative is decided from two facts, that
every dimension is at least 1 and that an index variable lies in `[0, extent)`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache, reduce

from kernelwright.expr.nodes import Apply, Axis, Extent, Load, Node, Parameter
from kernelwright.model import dimension_names

Monomial = tuple[Node, ...]
"""A product of atoms, sorted; the empty product is 1."""


def _order(atom: Node) -> tuple[int, str]:
    match atom:
        case Extent():
            return 0, atom.dim
        case Parameter() | Axis():
            return 1, atom.name
        case Load():
            return 2, atom.tensor
        case Apply():
            return 3, atom.op
        case _:
            return 4, type(atom).__name__


@dataclass(frozen=True)
class Polynomial:
    """A sum of integer multiples of monomials; zero coefficients are absent."""

    terms: Mapping[Monomial, int]

    @staticmethod
    def of(terms: Iterable[tuple[Monomial, int]]) -> Polynomial:
        """Collect terms."""
        collected: dict[Monomial, int] = {}
        for monomial, coefficient in terms:
            collected[monomial] = collected.get(monomial, 0) + coefficient
        return Polynomial({m: c for m, c in collected.items() if c})

    @staticmethod
    def constant(value: int) -> Polynomial:
        """A number."""
        return Polynomial({(): value} if value else {})

    @staticmethod
    def atom(node: Node) -> Polynomial:
        """A term taken as it is."""
        return Polynomial({(node,): 1})

    def __add__(self, other: Polynomial) -> Polynomial:
        return Polynomial.of([*self.terms.items(), *other.terms.items()])

    def __neg__(self) -> Polynomial:
        return Polynomial({m: -c for m, c in self.terms.items()})

    def __sub__(self, other: Polynomial) -> Polynomial:
        return self + -other

    def __mul__(self, other: Polynomial) -> Polynomial:
        return Polynomial.of(
            (tuple(sorted((*m, *n), key=_order)), a * b)
            for m, a in self.terms.items()
            for n, b in other.terms.items()
        )

    def __hash__(self) -> int:
        return hash(frozenset(self.terms.items()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Polynomial) and dict(self.terms) == dict(other.terms)

    @cached_property
    def as_constant(self) -> int | None:
        """Its value when it is a number."""
        if not self.terms:
            return 0
        return self.terms.get(()) if len(self.terms) == 1 else None

    @property
    def atoms(self) -> frozenset[Node]:
        """Atoms of all monomials."""
        return frozenset(atom for monomial in self.terms for atom in monomial)


ZERO = Polynomial.constant(0)
ONE = Polynomial.constant(1)


@lru_cache(maxsize=4096)
def from_dimension(text: str) -> Polynomial:
    """The polynomial of a dimension expression; a quotient is an atom.

    Raises:
        ProblemError: the text is not a dimension expression.
    """
    dimension_names(text)

    def visit(node: ast.expr) -> Polynomial:
        if isinstance(node, ast.Constant):
            assert isinstance(node.value, int)
            return Polynomial.constant(node.value)
        if isinstance(node, ast.Name):
            return Polynomial.atom(Extent(node.id))
        assert isinstance(node, ast.BinOp)
        left, right = visit(node.left), visit(node.right)
        match node.op:
            case ast.Add():
                return left + right
            case ast.Sub():
                return left - right
            case ast.Mult():
                return left * right
            case _:
                return _quotient(left, right)

    return visit(ast.parse(text, mode="eval").body)


def _quotient(left: Polynomial, right: Polynomial) -> Polynomial:
    quotient, rest = divide(left, right)
    if not rest.terms:
        return quotient
    return Polynomial.atom(Extent(f"{_wrap(to_dimension(left))}//{_wrap(to_dimension(right))}"))


def _wrap(text: str) -> str:
    return text if text.isidentifier() or text.isdigit() else f"({text})"


def to_dimension(value: Polynomial) -> str:
    """The dimension expression of a polynomial over extents, without spaces.

    Negative terms come last, so the text needs no unary minus unless every term is negative.
    """

    def product(monomial: Monomial, coefficient: int) -> str:
        names = [atom.dim for atom in monomial if isinstance(atom, Extent)]
        assert len(names) == len(monomial), "only extents have a dimension expression"
        factors = [name if name.isidentifier() else f"({name})" for name in names]
        if coefficient != 1 or not factors:
            factors.insert(0, str(coefficient))
        return "*".join(factors)

    ordered = sorted(value.terms.items(), key=lambda t: (-len(t[0]), [_order(a) for a in t[0]]))
    positive = "+".join(product(m, c) for m, c in ordered if c > 0)
    negative = "".join(f"-{product(m, -c)}" for m, c in ordered if c < 0)
    # a lone quotient such as H//2 needs no parentheses
    if len(ordered) == 1 and ordered[0][1] == 1 and len(ordered[0][0]) == 1:
        atom = ordered[0][0][0]
        assert isinstance(atom, Extent)
        return atom.dim
    return (positive or "0") + negative


def divide(value: Polynomial, divisor: Polynomial) -> tuple[Polynomial, Polynomial]:
    """Quotient and rest of polynomial division by the divisor's leading monomial.

    The identity `value = quotient * divisor + rest` always holds; the rest need not be small.
    """
    if not divisor.terms:
        return ZERO, value
    lead, lead_coefficient = max(
        divisor.terms.items(), key=lambda term: (len(term[0]), [_order(a) for a in term[0]])
    )
    quotient, rest, done = ZERO, value, ZERO
    while rest.terms:
        monomial, coefficient = next(iter(rest.terms.items()))
        other = _without(monomial, lead)
        factor = coefficient // lead_coefficient
        if other is None or coefficient % lead_coefficient:
            moved = Polynomial({monomial: coefficient})
            rest, done = rest - moved, done + moved
            continue
        step = Polynomial({other: factor})
        quotient, rest = quotient + step, rest - step * divisor
    return quotient, done


def _without(monomial: Monomial, part: Monomial) -> Monomial | None:
    left = list(monomial)
    for atom in part:
        if atom not in left:
            return None
        left.remove(atom)
    return tuple(left)


Bounds = tuple[Polynomial | None, Polynomial | None]
"""Least and greatest value; None where nothing is known."""


def never_negative(value: Polynomial, bounds: Mapping[Node, Bounds]) -> bool:
    """Whether the value is provably at least 0, given the bounds of the atoms in it.

    Atoms without bounds must be extents, which are at least 1. False means "not proven".
    """
    least = _least(value, bounds)
    if least is None:
        return False
    # every extent as 1 + something that is not negative
    shifted = ZERO
    for monomial, coefficient in least.terms.items():
        if not all(isinstance(atom, Extent) for atom in monomial):
            return False
        factors = (Polynomial.atom(atom) + ONE for atom in monomial)
        shifted += reduce(Polynomial.__mul__, factors, Polynomial.constant(coefficient))
    return all(coefficient >= 0 for coefficient in shifted.terms.values())


def _least(value: Polynomial, bounds: Mapping[Node, Bounds]) -> Polynomial | None:
    """Replace each bounded atom by the bound that makes its monomial least."""
    total = ZERO
    for monomial, coefficient in value.terms.items():
        term = Polynomial.constant(coefficient)
        for atom in monomial:
            if isinstance(atom, Extent):
                term *= Polynomial.atom(atom)
                continue
            low, high = bounds.get(atom, (None, None))
            # a product of several bounded atoms is bounded so only when none is negative
            if low is None or (len(monomial) > 1 and not never_negative(low, bounds)):
                return None
            bound = low if coefficient > 0 else high
            if bound is None:
                return None
            term *= bound
        total += term
    return total
