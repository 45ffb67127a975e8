"""Optuna's tree-structured Parzen estimator behind ask and tell.

Bergstra et al., "Algorithms for hyper-parameter optimization", NeurIPS 2011; the joint
(multivariate) form of Falkner, Klein and Hutter, "BOHB", ICML 2018.
"""

import warnings
from collections.abc import Iterator
from math import inf, isinf
from typing import TYPE_CHECKING, Any

from kernelwright.model import FrozenMap, TunableValue
from kernelwright.search.strategy import Round, SeededStrategy, openings
from kernelwright.search.view import FamilyView, Request, View
from kernelwright.space import Space, Values

if TYPE_CHECKING:
    import optuna

_STARTUP = 8
"""Outcomes of a family before its estimator is used; until then points are drawn uniformly."""
_TRIES = 6
"""Suggestions of the estimator for one request before a point is drawn uniformly."""


class OptunaStrategy(SeededStrategy):
    """Every family's defaults, then the sampler's suggestions.

    Ordered tunables are integers to the sampler (places in the sorted list), strings are
    categories. A rejected point is a pruned trial, which the estimator always counts among the bad
    ones; a suggestion that breaks a constraint is told to it in the same way. The study is made
    anew from the outcomes in each round.

    Args:
        seed: of the strategy.
        sampler: `tpe`.
    """

    name = "tpe"

    def __init__(self, seed: int = 0, sampler: str = "tpe") -> None:
        super().__init__(seed)
        if sampler != "tpe":
            raise ValueError(f"unknown sampler {sampler!r}")

    def proposals(self, current: Round) -> Iterator[Request]:
        """Openings, then for each request a family and the sampler's point in it."""
        yield from openings(current.view.families, most=2)
        samplers = {f.identity: FamilySampler(f, current) for f in current.view.families}
        for _ in range(4 * current.count if samplers else 0):
            family = self._choose(current)
            yield Request(family.identity, samplers[family.identity].suggest())

    @staticmethod
    def _choose(current: Round) -> FamilyView:
        """A family, at random: the better its best outcome, the likelier."""
        families = current.view.families
        least = current.view.least()
        weights = [0.1 if isinf(least) else _share(current.view, f, least) for f in families]
        return current.rng.choices(families, weights=weights)[0]


def _share(view: View, family: FamilyView, least: float) -> float:
    """1 for the best family, 0.1 for one that is 1.8 times slower or was never right."""
    best = min((value for _, value in view.values_of(family.identity)), default=inf)
    return max(0.1, (least / best) ** 4)


class FamilySampler:
    """One family's study, for one round."""

    def __init__(self, family: FamilyView, current: Round) -> None:
        self._space = family.space
        self._rng = current.rng
        self._seed = current.rng.getrandbits(32)
        self._values = current.view.values_of(family.identity)
        self._rejected = current.view.rejected_of(family.identity)
        self._pending = [r.values for r in current.pending if r.family == family.identity]
        self._seen = {*(v for v, _ in self._values), *self._rejected, *self._pending}
        self._study: optuna.Study | None = None

    def suggest(self) -> Values:
        """A valid point, new where the sampler finds one."""
        if len(self._values) + len(self._rejected) < _STARTUP or not self._space.tunables:
            return self._space.sample(self._rng)
        for _ in range(_TRIES):
            point = self._draw()
            if point is not None and point not in self._seen:
                self._seen.add(point)
                return point
        return self._space.sample(self._rng)

    def _draw(self) -> Values | None:
        if self._study is None:
            self._study = self._make_study()
        import optuna

        distributions = distributions_of(self._space)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trial = self._study.ask(distributions)
        point = decode(self._space, trial.params)
        if self._space.problem_with(point) is None:
            return point  # the trial stays open, so that the next one keeps away from it
        self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        return None

    def _make_study(self) -> "optuna.Study":
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `multivariate` and `constant_liar` were experimental
            sampler = optuna.samplers.TPESampler(
                seed=self._seed, n_startup_trials=0, multivariate=True, constant_liar=True
            )
        study = optuna.create_study(direction="minimize", sampler=sampler)
        states = optuna.trial.TrialState
        distributions = distributions_of(self._space)

        def add(point: Values, state: Any, value: float | None) -> None:
            params = encode(self._space, point)
            study.add_trial(
                optuna.trial.create_trial(
                    state=state, value=value, params=params, distributions=distributions
                )
            )

        for point, value in self._values:
            add(point, states.COMPLETE, value)
        for point in [*self._rejected, *self._pending]:
            add(point, states.PRUNED, None)
        return study


def distributions_of(space: Space) -> dict[str, Any]:
    """Optuna's description of a space without its constraints."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    return {
        t.name: IntDistribution(0, len(t.values) - 1)
        if t.is_ordered
        else CategoricalDistribution([str(value) for value in t.values])
        for t in space.tunables
    }


def encode(space: Space, point: Values) -> dict[str, TunableValue]:
    """A point as the sampler sees it."""
    return {
        t.name: t.ordered.index(point[t.name]) if t.is_ordered else point[t.name]
        for t in space.tunables
    }


def decode(space: Space, params: dict[str, Any]) -> Values:
    """A point from what the sampler says."""
    point: dict[str, TunableValue] = {
        t.name: t.ordered[params[t.name]] if t.is_ordered else str(params[t.name])
        for t in space.tunables
    }
    return FrozenMap(point)
