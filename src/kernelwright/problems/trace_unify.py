"""From numbers seen in several runs to expressions of dimensions and scalar parameters.

A reference is run at several settings of its sizes and scalars. A number that is the same in all
runs is a literal; one that varies is fitted, simplest form first, to what varied with it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from kernelwright.errors import Unsupported
from kernelwright.expr import Apply, Constant, Extent, Node, Parameter
from kernelwright.expr.integers import Integers
from kernelwright.expr.polynomial import Polynomial, from_dimension, to_dimension
from kernelwright.model import Scalar, ScalarArgument, evaluate_dimension

Values = tuple[int, ...]


@dataclass(frozen=True)
class Dim:
    """An extent: its expression, and its value in each run. Equal values mean equal extents."""

    text: str
    values: Values

    @property
    def is_one(self) -> bool:
        """Whether the axis has one element, whatever the sizes."""
        return set(self.values) == {1}


@dataclass(frozen=True)
class Setting:
    """Sizes and scalars of one run."""

    sizes: Mapping[str, int]
    scalars: Mapping[str, Scalar]


class Unifier:
    """Fits the numbers of one reference."""

    def __init__(
        self, settings: Sequence[Setting], dims: Sequence[str], scalars: Sequence[ScalarArgument]
    ) -> None:
        """Take the runs' settings, the dimension expressions of the signature and its scalars."""
        self._settings = settings
        self._scalars = [s for s in scalars if s.kind != "bool"]
        names = dict.fromkeys(name for setting in settings for name in setting.sizes)
        self._names: dict[str, Values] = {
            name: tuple(setting.sizes[name] for setting in settings) for name in names
        }
        for scalar in self._scalars:
            if scalar.kind == "int" and scalar.name not in self._names:
                values = tuple(int(s.scalars[scalar.name]) for s in settings)
                self._names[scalar.name] = values
        self._varying = {n: v for n, v in self._names.items() if len(set(v)) > 1}
        self._declared: dict[Values, str] = {}
        for text in [*self._names, *dims]:
            self._declared.setdefault(self._evaluate(text), text)
        self._cache: dict[Values, Polynomial | None] = {}

    def _evaluate(self, text: str) -> Values:
        known = [
            {name: v[i] for name, v in self._names.items()} for i in range(len(self._settings))
        ]
        return tuple(evaluate_dimension(text, sizes) for sizes in known)

    def declared(self, text: str) -> Dim:
        """A dimension of the signature, as it is spelt there."""
        return Dim(text, self._evaluate(text))

    def dim(self, values: Values) -> Dim:
        """An extent seen in the runs."""
        if len(set(values)) > 1 and values in self._declared:
            return Dim(self._declared[values], values)
        return Dim(to_dimension(self._fit(values)), values)

    def integer(self, values: Values) -> Node:
        """An integer seen in the runs, as a term."""
        return self._as_parameters(Integers({}).node(self._fit(values)))

    def _as_parameters(self, node: Node) -> Node:
        # an integer scalar that is no dimension of the signature is known by its parameter only
        for scalar in self._scalars:
            if isinstance(node, Extent) and node.dim == scalar.name:
                return Parameter(scalar.name, scalar.kind)
        return node

    def _fit(self, values: Values) -> Polynomial:
        if values not in self._cache:
            self._cache[values] = self._search(values, 3)
        found = self._cache[values]
        if found is None:
            raise Unsupported(
                f"an integer varies as {values}, in no simple way with sizes or scalars"
            )
        return found

    def _search(self, values: Values, depth: int) -> Polynomial | None:
        if len(set(values)) == 1:
            return Polynomial.constant(values[0])
        if values in self._declared:
            return from_dimension(self._declared[values])
        found = min(self._linear(values), key=lambda fit: fit[0], default=None)
        if found is not None and found[0] < 16:
            return found[1]
        product = self._product(values, depth)
        if product is not None:
            return product
        if found is not None:
            return found[1]
        return self._quotient(values) or self._sums(values, depth)

    def _linear(self, values: Values) -> Iterator[tuple[int, Polynomial]]:
        """`a*n + b` for a name n, with how far-fetched it is."""
        for name, seen in self._varying.items():
            rise, run = values[1] - values[0], seen[1] - seen[0]
            if run == 0 or rise % run:
                continue
            slope = rise // run
            offset = values[0] - slope * seen[0]
            if slope and all(slope * s + offset == v for s, v in zip(seen, values, strict=True)):
                factor = Polynomial.constant(slope) * from_dimension(name)
                yield abs(slope) - 1 + abs(offset), factor + Polynomial.constant(offset)

    def _product(self, values: Values, depth: int) -> Polynomial | None:
        """`n * (...)`."""
        if depth == 0 or 0 in values:
            return None
        for name, seen in self._varying.items():
            if all(s and v % s == 0 for s, v in zip(seen, values, strict=True)):
                rest = tuple(v // s for s, v in zip(seen, values, strict=True))
                if rest == values:
                    continue
                fit = self._search(rest, depth - 1)
                if fit is not None:
                    return from_dimension(name) * fit
        return None

    def _quotient(self, values: Values) -> Polynomial | None:
        """`n // k`, `(n + k - 1) // k` and their products' quotients."""
        known = dict(self._declared)
        for (n, seen), (m, other) in itertools.combinations(self._varying.items(), 2):
            known.setdefault(tuple(a * b for a, b in zip(seen, other, strict=True)), f"{n}*{m}")
        for seen, text in known.items():
            if any(v <= 0 for v in values) or len(set(seen)) == 1:
                continue
            for by in {seen[0] // values[0], seen[0] // values[0] + 1, seen[-1] // values[-1]}:
                if by < 2:
                    continue
                for more in (0, by - 1):
                    if all((s + more) // by == v for s, v in zip(seen, values, strict=True)):
                        top = to_dimension(from_dimension(text) + Polynomial.constant(more))
                        return from_dimension(f"({top})//{by}")
        return None

    def _sums(self, values: Values, depth: int) -> Polynomial | None:
        """`a*n + b*m + c` with small factors, else a name plus something fitted."""
        factors = (1, -1, 2, -2, 3, -3)
        best: tuple[int, Polynomial] | None = None
        for (n, first), (m, second) in itertools.combinations(self._varying.items(), 2):
            for a, b in itertools.product(factors, factors):
                rest = {v - a * x - b * y for v, x, y in zip(values, first, second, strict=True)}
                if len(rest) == 1:
                    offset = rest.pop()
                    cost = abs(a) + abs(b) + abs(offset)
                    if best is None or cost < best[0]:
                        sum_ = _times(a, n) + _times(b, m) + Polynomial.constant(offset)
                        best = cost, sum_
        if best is not None or depth == 0:
            return best[1] if best else None
        for (name, seen), sign in itertools.product(self._varying.items(), (1, -1)):
            rest = tuple(v - sign * s for v, s in zip(values, seen, strict=True))
            fit = self._product(rest, depth - 1) or self._sums(rest, 0)
            if fit is not None:
                return _times(sign, name) + fit
        return None

    def number(self, values: tuple[float, ...]) -> Node:
        """A float seen in the runs, as a term.

        Raises:
            Unsupported: it varies in a way that is not fitted.
        """
        if all(v == values[0] or (v != v and values[0] != values[0]) for v in values):
            return Constant(float(values[0]))
        if all(v == round(v) and abs(v) < 2**31 for v in values if math.isfinite(v)):
            whole = tuple(round(v) for v in values)
            fit = self._search(whole, 2)
            if fit is not None and not self._is_scalar(values):
                return Apply("to_float", (self._as_parameters(Integers({}).node(fit)),))
        for seen, make in self._forms():
            scaled = _scaled(values, seen)
            if scaled is not None:
                term = make()
                return term if scaled == 1.0 else Apply("mul", (term, Constant(scaled)))
        for seen, make in self._forms(products=False):
            offsets = [v - s for v, s in zip(values, seen, strict=True)]
            if _same(offsets, max(abs(v) for v in values)):
                return Apply("add", (make(), Constant(_tidy(offsets[0]))))
        raise Unsupported(f"a constant varies as {values}, in no simple way with sizes or scalars")

    def _is_scalar(self, values: tuple[float, ...]) -> bool:
        return any(
            s.kind == "float"
            and all(x.scalars[s.name] == v for x, v in zip(self._settings, values, strict=True))
            for s in self._scalars
        )

    def _bases(self) -> Iterator[tuple[tuple[float, ...], Node]]:
        for scalar in self._scalars:
            if scalar.kind == "float":
                seen = tuple(float(s.scalars[scalar.name]) for s in self._settings)
                yield seen, Parameter(scalar.name, "float")
        for values, text in self._declared.items():
            if len(set(values)) > 1:
                node = self._as_parameters(Extent(text))
                yield tuple(map(float, values)), Apply("to_float", (node,))

    def _forms(
        self, products: bool = True
    ) -> Iterator[tuple[tuple[float, ...], Callable[[], Node]]]:
        single: list[tuple[tuple[float, ...], Callable[[], Node]]] = []
        for seen, base in self._bases():
            for function, build in _FORMS:
                try:
                    single.append((tuple(map(function, seen)), lambda b=build, x=base: b(x)))
                except (ValueError, ArithmeticError):
                    continue
        yield from single
        if products:
            for (first, make), (second, remake) in itertools.combinations(single, 2):
                both = tuple(a * b for a, b in zip(first, second, strict=True))
                yield both, lambda m=make, r=remake: Apply("mul", (m(), r()))


def _times(factor: int, name: str) -> Polynomial:
    return Polynomial.constant(factor) * from_dimension(name)


def _op(name: str) -> Callable[[Node], Node]:
    return lambda x: Apply(name, (x,))


_FORMS: tuple[tuple[Callable[[float], float], Callable[[Node], Node]], ...] = (
    (lambda x: x, lambda x: x),
    (lambda x: 1 / x, _op("reciprocal")),
    (lambda x: 1 / math.sqrt(x), _op("rsqrt")),
    (math.sqrt, _op("sqrt")),
    (lambda x: x * x, lambda x: Apply("mul", (x, x))),
    (lambda x: 1 - x, lambda x: Apply("sub", (Constant(1.0), x))),
    (lambda x: 1 / (x * x), lambda x: Apply("reciprocal", (Apply("mul", (x, x)),))),
    (lambda x: 1 / (x - 1), lambda x: Apply("reciprocal", (Apply("sub", (x, Constant(1.0))),))),
    (math.log, _op("log")),
    (math.log2, _op("log2")),
    (math.exp, _op("exp")),
    (lambda x: 1 + x, lambda x: Apply("add", (x, Constant(1.0)))),
)


def _scaled(values: tuple[float, ...], seen: tuple[float, ...]) -> float | None:
    """The factor between two sequences, when there is one."""
    if any(s == 0 or not math.isfinite(s) for s in seen) or len(set(seen)) == 1:
        return None
    ratios = [v / s for v, s in zip(values, seen, strict=True)]
    if ratios[0] == 0 or not _same(ratios, abs(ratios[0])):
        return None
    return _tidy(ratios[0])


def _same(values: Sequence[float], scale: float) -> bool:
    return all(abs(v - values[0]) <= 1e-12 * scale for v in values)


def _tidy(value: float) -> float:
    """Undo the rounding of the division that found a factor."""
    for digits in range(1, 13):
        near = float(f"{value:.{digits}g}")
        if abs(near - value) <= 4e-16 * abs(value):
            return near
    return value
