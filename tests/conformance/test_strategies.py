from contextlib import nullcontext

import pytest

from kernelwright.search import (
    DefaultStrategy,
    ExhaustiveStrategy,
    ModelRankedStrategy,
    OptunaStrategy,
    RandomStrategy,
)
from kernelwright.testing.strategies import StrategyConformance, view_of


class TestDefault(StrategyConformance):
    def make(self, seed):
        return DefaultStrategy(seed)


class TestModelRanked(StrategyConformance):
    def make(self, seed):
        return ModelRankedStrategy(seed)


class TestOptuna(StrategyConformance):
    def make(self, seed):
        return OptunaStrategy(seed)


class TestRandom(StrategyConformance):
    def make(self, seed):
        return RandomStrategy(seed)


class TestExhaustive(StrategyConformance):
    def make(self, seed):
        return ExhaustiveStrategy(seed)


class Forgetful(RandomStrategy):
    """Forgets what it asked."""

    def ask(self, view, count=1):
        self._asked.clear()
        return super().ask(view.__class__(view.families, (), view.remaining), count)


WIDE = "// @tune A = 1, 2, 3, 4, 5, 6, 7, 8\n// @tune B = 1, 2, 3, 4, 5, 6, 7, 8"


@pytest.mark.parametrize("strategy", [RandomStrategy, Forgetful])
def test_the_suite_catches_a_strategy_that_repeats_itself(strategy):
    class Suite(StrategyConformance):
        def make(self, seed):
            return strategy(seed)

    honest = strategy is RandomStrategy
    with nullcontext() if honest else pytest.raises(AssertionError):
        Suite().test_pending_requests_are_not_asked_again([view_of(WIDE)])
