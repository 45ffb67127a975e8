"""Strategies without a model of what they learn: in order, at random, by prediction."""

from collections.abc import Iterator
from heapq import merge
from itertools import islice
from operator import itemgetter
from random import Random

from kernelwright.model import Rejected
from kernelwright.search.strategy import Round, SeededStrategy, openings
from kernelwright.search.view import FamilyView, Request, View
from kernelwright.space import Values

_POOL = 4096
"""Points of one family that are ranked by prediction; a larger space is sampled."""


class ExhaustiveStrategy(SeededStrategy):
    """Every valid point in order, the families taking turns."""

    name = "exhaustive"

    def proposals(self, current: Round) -> Iterator[Request]:
        """Nothing beyond what every strategy falls back on."""
        return iter(())


class RandomStrategy(SeededStrategy):
    """Uniform over the valid points of a family, the family drawn by its share of all points."""

    name = "random"

    def proposals(self, current: Round) -> Iterator[Request]:
        """Draws until most of them are known; the rest comes in order."""
        families = current.view.families
        sizes = [family.space.size for family in families]
        for _ in range(256 + 16 * current.count if families else 0):
            family = current.rng.choices(families, weights=sizes)[0]
            yield Request(family.identity, family.space.sample(current.rng))


class ModelRankedStrategy(SeededStrategy):
    """Predicted best first, alternating with neighbours of what measured best.

    Without predictions it starts from the defaults and walks from neighbour to neighbour.
    """

    name = "model-ranked"

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self._predicted = PredictedOrder(seed)

    def proposals(self, current: Round) -> Iterator[Request]:
        """Openings first, then the two streams in turn."""
        yield from openings(current.view.families, most=1)
        ranked = (r for r in self._predicted.requests(current.view.families) if current.is_fresh(r))
        near = (r for r in neighbours_of_best(current.view) if current.is_fresh(r))
        while True:
            batch = [*islice(near, 1), *islice(ranked, 1)]
            if not batch:
                return
            yield from batch


class PredictedOrder:
    """Points of all families by predicted time; each family's are ranked once and kept."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._ranked: dict[str, list[tuple[float, Request]]] = {}

    def requests(self, families: tuple[FamilyView, ...]) -> Iterator[Request]:
        """Predicted best first; families without a model are left out."""
        streams = [self._of(family) for family in families if family.predict is not None]
        for _, request in merge(*streams, key=itemgetter(0)):
            yield request

    def _of(self, family: FamilyView) -> list[tuple[float, Request]]:
        if family.identity not in self._ranked:
            assert family.predict is not None
            points = pool(family, Random(f"{self._seed} {family.identity}"), _POOL)
            pairs = [(family.predict(p), Request(family.identity, p)) for p in points]
            self._ranked[family.identity] = sorted(pairs, key=itemgetter(0))
        return self._ranked[family.identity]


def pool(family: FamilyView, rng: Random, size: int) -> list[Values]:
    """Every valid point where there are at most `size`, otherwise about `size` drawn ones."""
    if family.space.size <= size:
        return list(family.space.enumerate(size))
    return list(dict.fromkeys(family.space.sample(rng) for _ in range(size)))


def neighbours_of_best(view: View, elites: int | None = None) -> Iterator[Request]:
    """Neighbours of the best measured point, then of the second best, and so on."""
    measured = [
        (tried.outcome, place, tried.request)
        for place, tried in enumerate(view.tried)
        if not isinstance(tried.outcome, Rejected)
    ]
    for _, _, request in sorted(measured, key=lambda item: item[:2])[:elites]:
        space = view.family(request.family).space
        yield from (Request(request.family, near) for near in space.neighbours(request.values))
