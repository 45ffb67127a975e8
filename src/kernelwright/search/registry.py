"""Strategies by name: ours and those that installed packages register."""

from importlib.metadata import entry_points

from kernelwright.errors import UserError
from kernelwright.search.plain import ExhaustiveStrategy, ModelRankedStrategy, RandomStrategy
from kernelwright.search.portfolio import DefaultStrategy
from kernelwright.search.strategy import SeededStrategy, Strategy
from kernelwright.search.tpe import OptunaStrategy

GROUP = "kernelwright.strategies"
"""Entry-point group; each entry is called with `seed=` and returns a strategy."""

_OURS: dict[str, type[SeededStrategy]] = {
    DefaultStrategy.name: DefaultStrategy,
    ModelRankedStrategy.name: ModelRankedStrategy,
    OptunaStrategy.name: OptunaStrategy,
    RandomStrategy.name: RandomStrategy,
    ExhaustiveStrategy.name: ExhaustiveStrategy,
}


def strategy_names() -> tuple[str, ...]:
    """Every name that `strategy_named` takes, ours first."""
    others = {point.name for point in entry_points(group=GROUP)}
    return (*_OURS, *sorted(others - set(_OURS)))


def strategy_named(name: str, seed: int = 0) -> Strategy:
    """A strategy by name.

    Raises:
        UserError: no such strategy is installed.
    """
    if name in _OURS:
        return _OURS[name](seed)
    for point in entry_points(group=GROUP):
        if point.name == name:
            return point.load()(seed=seed)
    raise UserError(f"there is no strategy '{name}': choose from {', '.join(strategy_names())}")
