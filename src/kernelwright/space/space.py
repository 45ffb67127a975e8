"""The space of valid assignments of one source's tunables."""

from collections.abc import Collection, Iterator, Mapping
from itertools import islice, product
from math import prod
from random import Random

from kernelwright.errors import CandidateError
from kernelwright.model import FrozenMap, TunableValue
from kernelwright.space.component import Component, Point, TooLarge
from kernelwright.space.constraints import Constraint
from kernelwright.space.declarations import Declarations, Tunable, parse_declarations

Values = FrozenMap[str, TunableValue]


class Space:
    """Tunables, the constraints between them, and the points where all of those hold.

    Tunables that no constraint ties together are independent, so the space is a product of small
    components: counting, enumerating and drawing uniformly cost what the components cost.

    Args:
        declarations: what the source declares.
        sizes: values of the dimensions that constraints name; a constraint that names a dimension
            without a size is left out.

    Raises:
        CandidateError: no point is valid.
    """

    def __init__(self, declarations: Declarations, sizes: Mapping[str, int] | None = None) -> None:
        self.declarations = declarations
        self._sizes = FrozenMap(sizes or {})
        self._by_name = {tunable.name: tunable for tunable in declarations.tunables}
        known = {*self._by_name, *self._sizes}
        self._active = tuple(c for c in declarations.constraints if known.issuperset(c.names))
        self._components = self._split()
        self._default = self._first()

    @classmethod
    def of(
        cls,
        source: str,
        sizes: Mapping[str, int] | None = None,
        *,
        dimensions: Collection[str] | None = None,
        toolchains: Collection[str] | None = None,
    ) -> "Space":
        """The space of a source on a machine.

        Args:
            source: a kernel with `@tune` and `@require` lines.
            sizes: values of its dimensions.
            dimensions: names that constraints may use beside tunables; None: not checked.
            toolchains: compilers that `CXX` may name; None: all that are declared.

        Raises:
            CandidateError: a declaration is wrong, no declared compiler is installed, or no point
                is valid.
        """
        declarations = parse_declarations(source)
        if dimensions is not None:
            declarations.check_names(dimensions)
        if toolchains is not None:
            declarations = declarations.restricted({"CXX": toolchains})
        return cls(declarations, sizes)

    @property
    def tunables(self) -> tuple[Tunable, ...]:
        """In order of declaration."""
        return self.declarations.tunables

    @property
    def size(self) -> int:
        """Number of valid points (an upper bound where a component is too large to count)."""
        counts: list[int] = []
        for component in self._components:
            points = component.points()
            all_points = prod(len(tunable.values) for tunable in component.tunables)
            counts.append(all_points if points is None else len(points))
        return prod(counts)

    def default(self) -> Values:
        """The declared defaults, or the first valid point in declared order."""
        return self._default

    def complete(self, values: Mapping[str, TunableValue]) -> Values | None:
        """A valid point with the given values and the default for every other tunable.

        Unlisted names and values are replaced by the default; None when that breaks a constraint.
        """
        chosen = {
            t.name: values[t.name] if values.get(t.name) in t.values else self._default[t.name]
            for t in self.tunables
        }
        point = FrozenMap(chosen)
        return point if self._broken(point) is None else None

    def problem_with(
        self, values: Mapping[str, TunableValue], sizes: Mapping[str, int] | None = None
    ) -> str | None:
        """Why an assignment is not a valid point, in one sentence; None when it is one.

        Args:
            values: one value for every tunable.
            sizes: dimensions to check the constraints with, instead of the space's own.
        """
        for name in values:
            if name not in self._by_name:
                known = ", ".join(self._by_name) or "none"
                return f"the source has no tunable '{name}' (declared: {known})"
        for tunable in self.tunables:
            if tunable.name not in values:
                return f"the tunable '{tunable.name}' has no value"
            if values[tunable.name] not in tunable.values:
                listed = ", ".join(str(value) for value in tunable.values)
                shown = values[tunable.name]
                return f"the tunable '{tunable.name}' has no value {shown!r} (listed: {listed})"
        broken = self._broken(values, sizes)
        if broken is None:
            return None
        bound = {**(self._sizes if sizes is None else sizes), **values}
        shown = ", ".join(f"{name} = {bound[name]}" for name in broken.names)
        return f"'@require {broken.text}' (line {broken.line}) fails for {shown}"

    def neighbours(self, values: Mapping[str, TunableValue]) -> tuple[Values, ...]:
        """Valid points that differ in one tunable: next integer up or down, any other string."""
        moved = (
            FrozenMap({**values, tunable.name: other})
            for tunable in self.tunables
            for other in tunable.neighbours(values[tunable.name])
        )
        return tuple(point for point in moved if self._broken(point) is None)

    def sample(self, rng: Random) -> Values:
        """A valid point, drawn uniformly."""
        return self._join(component.sample(rng) for component in self._components)

    def enumerate(self, limit: int | None = None) -> Iterator[Values]:
        """Valid points in a fixed order, without repetition, at most `limit` of them."""
        points = (self._join(parts) for parts in self._product(0))
        return points if limit is None else islice(points, limit)

    def _product(self, place: int) -> Iterator[tuple[Point, ...]]:
        rest = self._components[place:]
        listed = [component.points() for component in rest]
        if all(points is not None for points in listed):
            yield from product(*(points or () for points in listed))
            return
        for point in rest[0].iterate():
            for others in self._product(place + 1):
                yield (point, *others)

    def _join(self, parts: Iterator[Point] | tuple[Point, ...]) -> Values:
        chosen: dict[str, TunableValue] = {}
        for component, point in zip(self._components, parts, strict=True):
            chosen.update({t.name: v for t, v in zip(component.tunables, point, strict=True)})
        return FrozenMap({name: chosen[name] for name in self._by_name})

    def _broken(
        self, values: Mapping[str, TunableValue], sizes: Mapping[str, int] | None = None
    ) -> Constraint | None:
        environment = {**(self._sizes if sizes is None else sizes), **values}
        constraints = self._active if sizes is None else self.declarations.constraints
        for constraint in constraints:
            if all(n in environment for n in constraint.names) and not constraint.holds(
                environment
            ):
                return constraint
        return None

    def _split(self) -> tuple[Component, ...]:
        """Connected components of tunables under shared constraints, in declared order."""
        group = {name: name for name in self._by_name}
        for constraint in self._active:
            tied = [group[name] for name in constraint.names if name in group]
            for name, representative in group.items():
                if representative in tied:
                    group[name] = tied[0]
        bare = [c for c in self._active if not any(n in group for n in c.names)]
        components = [Component((), bare, self._sizes)] if bare else []
        for representative in dict.fromkeys(group.values()):
            names = {name for name, other in group.items() if other == representative}
            tunables = [t for t in self.tunables if t.name in names]
            constraints = [c for c in self._active if names.intersection(c.names)]
            components.append(Component(tunables, constraints, self._sizes))
        return tuple(components)

    def _first(self) -> Values:
        firsts: list[Point] = []
        for component in self._components:
            try:
                found = next(component.walk(), None)
            except TooLarge:
                found = None
            if found is None:
                raise CandidateError(_no_point(component, self._sizes))
            firsts.append(found)
        return self._join(tuple(firsts))


def _no_point(component: Component, sizes: Mapping[str, int]) -> str:
    texts = [f"'{c.text}' (line {c.line})" for c in component.constraints]
    dimensions = {n for c in component.constraints for n in c.names if n in sizes}
    at = ", ".join(f"{name} = {sizes[name]}" for name in sorted(dimensions))
    where = f" at {at}" if at else ""
    return f"no assignment of the tunables satisfies @require {' and '.join(texts)}{where}"
