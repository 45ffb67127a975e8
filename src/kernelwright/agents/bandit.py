"""Which model is asked next: gain for what it costs, and a second chance for the unlucky."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kernelwright.llm import Model
from kernelwright.model import Exchange

_PRIOR_GAIN = 0.05
"""Log gain that every model is credited with: one without luck so far is not written off."""


@dataclass(frozen=True, slots=True)
class Account:
    """What one model has done."""

    proposals: int
    gain: float
    """Sum of the logarithms of speed-ups over what led when each was asked for."""
    cost: float


def choose(
    models: Sequence[Model], exchanges: Sequence[Exchange], gains: Mapping[str, Sequence[float]]
) -> Model:
    """The model with the greatest upper confidence bound of gain per cost.

    After UCB1 (Auer, Cesa-Bianchi and Fischer, 2002), with the bound as a factor, as the scale of
    gains per dollar is unknown. Deterministic: equals go to the first.

    Args:
        models: at least one.
        exchanges: all that were made.
        gains: by model, the logarithm of each proposal's speed-up (0 for none).
    """
    if len(models) == 1:
        return models[0]
    accounts = [_account(model.name, exchanges, gains.get(model.name, ())) for model in models]
    total = sum(account.proposals for account in accounts)

    def promise(account: Account) -> float:
        if account.proposals == 0:
            return math.inf
        mean = (account.gain + _PRIOR_GAIN) / max(account.cost, 1e-12)
        return mean * (1 + math.sqrt(2 * math.log(max(total, 2)) / account.proposals))

    best = max(range(len(models)), key=lambda place: (promise(accounts[place]), -place))
    return models[best]


def _account(name: str, exchanges: Sequence[Exchange], gains: Sequence[float]) -> Account:
    priced = all(e.usage.dollars for e in exchanges if e.outcome != "failed")
    # in a fixed order: replies come in as they please, and sums must be the same in a replay
    own = sorted((e for e in exchanges if e.model == name), key=lambda exchange: exchange.key)
    cost = sum(
        (e.usage.dollars or 0.0) if priced else e.usage.input_tokens + 4.0 * e.usage.output_tokens
        for e in own
    )
    return Account(len(gains), sum(gains), cost)
