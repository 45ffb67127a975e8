"""The default strategy: several proposers of points, one surrogate that ranks what they propose."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from kernelwright.search.plain import PredictedOrder, neighbours_of_best
from kernelwright.search.strategy import Round, SeededStrategy, openings
from kernelwright.search.surrogate import Array, Rows, Surrogate
from kernelwright.search.tpe import FamilySampler
from kernelwright.search.view import Request, View
from kernelwright.space import Values

_OPENINGS = 3
"""Defaults of each family that are tried before anything is learned."""
_ELITES = 4
"""Best points whose neighbours are considered."""
_DRAWN = 320
"""Uniformly drawn points considered in each round, shared between the families."""
_PREDICTED = 100
"""Best predicted points considered in each round; the first two are openings."""
_SUGGESTED = 1
"""Suggestions of the Parzen estimator considered in each round, for the best family."""
_ROWS = 500
"""Points considered in each round, at most."""
_SHORT = 64
"""Of these, points of each family that are scored again after each choice."""


class DefaultStrategy(SeededStrategy):
    """Defaults of every family first, then whatever promises most in any family.

    Considered are neighbours of the best points, neighbours of those, the best predicted,
    suggestions of Optuna's Parzen estimator, remaining defaults and points drawn uniformly. A
    Gaussian process for each family, with the family's predictions as a prior, ranks them by
    expected improvement over the best of all families, so that a family that is clearly worse is
    left alone. Within a batch each choice counts as measured at its estimate.
    """

    name = "default"

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self._predicted = PredictedOrder(seed)

    def proposals(self, current: Round) -> Iterator[Request]:
        """Openings, families without a right point yet, then the ranking."""
        view = current.view
        for request in openings(view.families, most=_OPENINGS):
            if not is_hopeless(view, request.family):
                yield request
        predicted = list(islice(self._predicted.requests(view.families), _PREDICTED))
        yield from predicted[:2]
        best = view.best()
        for family in view.families:
            if not view.values_of(family.identity) and not is_hopeless(view, family.identity):
                yield from (
                    Request(family.identity, family.space.sample(current.rng)) for _ in range(2)
                )
        if best is not None:
            yield from _Ranking(current, best.request, predicted).requests()


def is_hopeless(view: View, identity: str) -> bool:
    """Whether a family is left alone: four rejections and nothing right, or clearly slower.

    Clearly slower is 2 times the best of all after two outcomes, 1.3 times after six.
    """
    values = [value for _, value in view.values_of(identity)]
    if not values:
        return len(view.rejected_of(identity)) >= 4
    ratio = min(values) / view.least()
    return (ratio > 2 and len(values) >= 2) or (ratio > 1.3 and len(values) >= 6)


@dataclass(frozen=True, slots=True)
class _ShortList:
    """Points of one family with their scores: expected improvement times chance to be right."""

    points: list[Values]
    rows: Rows
    chances: Array
    scores: Array


class _Ranking:
    """Points of one round, chosen one after the other by expected improvement."""

    def __init__(self, current: Round, best: Request, further: Sequence[Request]) -> None:
        self._current = current
        self._further = further
        self._view = current.view
        self._best = best
        self._families = {
            f.identity: f
            for f in current.view.families
            if current.view.values_of(f.identity) and not is_hopeless(current.view, f.identity)
        }
        self._least = current.view.least()
        self._surrogates = {i: self._fit(i) for i in self._families}

    def requests(self) -> Iterator[Request]:
        """Most promising first, until the short lists are used up."""
        points: dict[str, list[Values]] = {}
        for request in islice(self._considered(), _ROWS):
            points.setdefault(request.family, []).append(request.values)
        lists = {i: self._short_list(i, found) for i, found in points.items()}
        while lists:
            family = max(lists, key=lambda identity: float(lists[identity].scores.max()))
            chosen = lists[family]
            place = int(np.argmax(chosen.scores))
            yield Request(family, chosen.points[place])
            self._surrogates[family].assume(chosen.rows.take([place]))
            del lists[family]
            if len(chosen.points) > 1:
                rest = [other for other in range(len(chosen.points)) if other != place]
                lists[family] = self._scored(family, chosen, rest)

    def _short_list(self, identity: str, points: list[Values]) -> "_ShortList":
        rows = Rows.of(self._families[identity], points)
        chances = self._surrogates[identity].chance(rows)
        everything = _ShortList(points, rows, chances, np.zeros(len(points)))
        scored = self._scored(identity, everything, range(len(points)))
        best = np.argsort(-scored.scores, kind="stable")[:_SHORT]
        return self._scored(identity, scored, [int(place) for place in best])

    def _scored(self, identity: str, kept: "_ShortList", places: Sequence[int]) -> "_ShortList":
        rows, chances = kept.rows.take(places), kept.chances[list(places)]
        scores = self._surrogates[identity].promise(rows, self._least) * chances
        return _ShortList([kept.points[place] for place in places], rows, chances, scores)

    def _considered(self) -> Iterator[Request]:
        seen: set[Request] = set()
        for request in self._sources():
            if request.family in self._families and self._current.is_fresh(request):
                if request not in seen:
                    yield request
                seen.add(request)

    def _sources(self) -> Iterator[Request]:
        yield from neighbours_of_best(self._view, _ELITES)
        yield from openings(self._view.families)
        yield from self._further
        best = self._families[self._best.family]
        sampler = FamilySampler(best, self._current)
        for _ in range(_SUGGESTED):
            yield Request(best.identity, sampler.suggest())
        for family in self._families.values():
            for _ in range(max(8, _DRAWN // len(self._families))):
                yield Request(family.identity, family.space.sample(self._current.rng))
        for near in best.space.neighbours(self._best.values):
            for further in best.space.neighbours(near):
                yield Request(best.identity, further)

    def _fit(self, identity: str) -> Surrogate:
        view, family = self._view, self._families[identity]
        fitted = Surrogate(family, view.values_of(identity), view.rejected_of(identity))
        for request in self._current.pending:
            if request.family == identity:
                fitted.assume(Rows.of(family, [request.values]))
        return fitted
