"""Products of powers of roots: `a / x**1.5`, `a / (x * sqrt(x))`, `1 / sqrt(x)**3`.

A division by a half-integer power is a product with the inverse root, which vector units compute
much faster than a division and a root; what several terms multiply by is computed once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

from kernelwright.expr.nodes import Apply, Constant, Node, transform

_MOST = 9
"""Greatest power, in halves, that is written as a product of roots."""


@dataclass(frozen=True)
class HalfPower:
    """`base` to the power of `halves` / 2."""

    base: Node
    halves: int


def half_power(node: Node) -> HalfPower | None:
    """A term as a half-integer power of another, or None where it is no power."""
    if not isinstance(node, Apply):
        return None
    match node.op:
        case "sqrt":
            return HalfPower(node.args[0], 1)
        case "rsqrt":
            return HalfPower(node.args[0], -1)
        case "reciprocal":
            inner = half_power(node.args[0])
            return HalfPower(inner.base, -inner.halves) if inner else None
        case "pow":
            return _power(*node.args)
        case "mul":
            return _product(*node.args)
        case _:
            return None


def _power(base: Node, exponent: Node) -> HalfPower | None:
    if not isinstance(exponent, Constant):
        return None
    inner = half_power(base)
    # (x**2)**0.5 is |x|: only powers of odd numbers of roots, which need x >= 0, multiply
    if inner is None or inner.halves % 2 == 0:
        inner = HalfPower(base, 2)
    halves = inner.halves * float(exponent.value)
    if halves != int(halves) or abs(halves) > _MOST:
        return None
    return HalfPower(inner.base, int(halves))


def _product(left: Node, right: Node) -> HalfPower | None:
    first, second = half_power(left), half_power(right)
    odd = next((p for p in (first, second) if p is not None and p.halves % 2), None)
    if odd is None:
        return None
    total = 0
    for side, power in ((left, first), (right, second)):
        if side is odd.base:
            total += 2
        elif power is not None and power.base is odd.base:
            total += power.halves
        else:
            return None
    return HalfPower(odd.base, total)


def inverse_roots(body: Node) -> Node:
    """The term with odd powers of roots, and divisions by them, as products of roots."""

    def change(node: Node) -> Node:
        if not isinstance(node, Apply) or node.op not in ("div", "pow", "reciprocal"):
            return node
        power = half_power(node.args[1] if node.op == "div" else node)
        if power is None or power.halves % 2 == 0:
            return node
        if node.op != "div":
            return _product_of_roots(power.base, power.halves)
        return Apply("mul", (node.args[0], _product_of_roots(power.base, -power.halves)))

    return transform(body, change)


def _product_of_roots(base: Node, halves: int) -> Node:
    if halves < 0:
        return chain("mul", [Apply("rsqrt", (base,))] * -halves)
    return chain("mul", [base] * (halves // 2) + [Apply("sqrt", (base,))])


def chain(op: str, terms: Sequence[Node]) -> Node:
    """Terms joined by an operation, from the left."""
    return reduce(lambda a, b: Apply(op, (a, b)), terms)


def flattened(node: Node, op: str) -> list[Node]:
    """The operands of a chain of one operation, in order."""
    if not (isinstance(node, Apply) and node.op == op):
        return [node]
    return [part for arg in node.args for part in flattened(arg, op)]


def share_factors(bodies: Sequence[Node]) -> list[Node]:
    """Products with the factors that all of them have multiplied first, as one term."""
    factors = [Counter(flattened(body, "mul")) for body in bodies]
    if len(factors) < 2:
        return list(bodies)
    common = factors[0]
    for other in factors[1:]:
        common = common & other
    if common.total() < 2:
        return list(bodies)
    shared = _balanced(list(common.elements()))
    rests = [list((own - common).elements()) for own in factors]
    return [chain("mul", [shared, *rest]) for rest in rests]


def _balanced(factors: Sequence[Node]) -> Node:
    """A product as a tree, which waits less for its parts than a chain."""
    if len(factors) == 1:
        return factors[0]
    middle = len(factors) // 2
    return Apply("mul", (_balanced(factors[:middle]), _balanced(factors[middle:])))


def products_last(body: Node, varies: Callable[[Node], bool]) -> Node:
    """Sums of three or more terms with varying products last: each is one fused operation."""

    def change(node: Node) -> Node:
        if not isinstance(node, Apply) or node.op != "add":
            return node
        terms = flattened(node, "add")
        if len(terms) < 3:
            return node

        def late(term: Node) -> bool:
            return isinstance(term, Apply) and term.op == "mul" and varies(term)

        return chain("add", sorted(terms, key=late))

    return transform(body, change)
