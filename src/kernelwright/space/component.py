"""A group of tunables that constraints tie together, and the valid points of that group alone."""

from collections.abc import Iterator, Sequence
from itertools import islice
from random import Random

from kernelwright.model import FrozenMap, TunableValue
from kernelwright.space.constraints import Constraint
from kernelwright.space.declarations import Tunable

Point = tuple[TunableValue, ...]

_STORED = 100_000
"""Valid points that are listed once and kept; a larger component is walked anew each time."""
_VISITS = 1_000_000
"""Partial assignments looked at before a walk gives up."""
_DRAWS = 2_000
"""Draws from all points before a component too large to list is sampled by a random walk."""


class TooLarge(Exception):
    """A component has too many partial assignments to be walked through."""


class Component:
    """Tunables with every constraint on them; other components never change what is valid here."""

    def __init__(
        self,
        tunables: Sequence[Tunable],
        constraints: Sequence[Constraint],
        sizes: FrozenMap[str, int],
    ) -> None:
        self.tunables = tuple(tunables)
        self.constraints = tuple(constraints)
        self._sizes = sizes
        self._checks = self._by_depth()
        self._points: tuple[Point, ...] | None = None
        self._is_large = False

    def _by_depth(self) -> tuple[tuple[Constraint, ...], ...]:
        """Constraints by the number of leading tunables that must be set to decide them."""
        names = [tunable.name for tunable in self.tunables]
        depths: list[list[Constraint]] = [[] for _ in range(len(names) + 1)]
        for constraint in self.constraints:
            places = [names.index(name) + 1 for name in constraint.names if name in names]
            depths[max(places, default=0)].append(constraint)
        return tuple(tuple(level) for level in depths)

    def walk(self, rng: Random | None = None) -> Iterator[Point]:
        """Valid points in declared order, or in random (not uniform) order with a generator.

        Depth first; a branch is cut as soon as a constraint whose names are all set fails.

        Raises:
            TooLarge: more partial assignments were visited than a walk may take.
        """
        environment: dict[str, TunableValue] = dict(self._sizes)
        visits = 0

        def descend(depth: int, chosen: Point) -> Iterator[Point]:
            nonlocal visits
            visits += 1
            if visits > _VISITS:
                raise TooLarge
            if not all(check.holds(environment) for check in self._checks[depth]):
                return
            if depth == len(self.tunables):
                yield chosen
                return
            tunable = self.tunables[depth]
            values = list(tunable.values)
            if rng is not None:
                rng.shuffle(values)
            for value in values:
                environment[tunable.name] = value
                yield from descend(depth + 1, (*chosen, value))

        yield from descend(0, ())

    def points(self) -> tuple[Point, ...] | None:
        """Every valid point in declared order; None where there are too many to list."""
        if self._points is None and not self._is_large:
            try:
                found = tuple(islice(self.walk(), _STORED + 1))
            except TooLarge:
                found = None
            self._is_large = found is None or len(found) > _STORED
            self._points = None if self._is_large else found
        return self._points

    def iterate(self) -> Iterator[Point]:
        """Valid points in declared order; ends early where a walk gives up."""
        listed = self.points()
        if listed is not None:
            yield from listed
            return
        try:
            yield from self.walk()
        except TooLarge:
            return

    def sample(self, rng: Random) -> Point:
        """A valid point: uniform, except in a component that is too large and too tight."""
        listed = self.points()
        if listed is not None:
            return listed[rng.randrange(len(listed))]
        for _ in range(_DRAWS):
            drawn = tuple(t.values[rng.randrange(len(t.values))] for t in self.tunables)
            if self.holds(drawn):
                return drawn
        return next(self.walk(rng))

    def holds(self, point: Point) -> bool:
        """Whether every constraint is true at a point."""
        environment = {
            **self._sizes,
            **{t.name: v for t, v in zip(self.tunables, point, strict=True)},
        }
        return all(check.holds(environment) for check in self.constraints)
