"""Paired rounds: every role called once a round, in random order, one runnable at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol

import numpy as np

from kernelwright.evaluation.expected import Fault
from kernelwright.evaluation.pool import Pool
from kernelwright.evaluation.session import Session


class Role(Protocol):
    """Someone who is timed on the bench workload."""

    @property
    def name(self) -> str:
        """Unique in a round."""
        ...

    def met(self, case: int) -> bool:
        """Whether its process has met these values; it is replaced before it meets them again."""
        ...

    def timed(self, case: int, slots: tuple[int, int]) -> float | Fault:
        """One call on a case, by way of these slots; microseconds or what went wrong."""
        ...


@dataclass(slots=True)
class KernelRole:
    """A candidate, or an own kernel as baseline."""

    name: str
    session: Session
    pool: Pool
    choose: Callable[[], Sequence[list[slice]] | None]
    """Parts to verify; None: everything."""

    def met(self, case: int) -> bool:
        """Whether the worker has met these values."""
        return self.session.met(self.pool, case)

    def timed(self, case: int, slots: tuple[int, int]) -> float | Fault:
        """One verified call."""
        return self.session.timed(self.pool, case, slots, self.choose())


@dataclass(slots=True)
class Samples:
    """Microseconds by role, in round order: every role has one per round."""

    by_role: dict[str, list[float]]

    @property
    def rounds(self) -> int:
        """Complete rounds."""
        return min((len(values) for values in self.by_role.values()), default=0)

    def ratios(self, over: str, under: str) -> list[float]:
        """One ratio a round."""
        return [a / b for a, b in zip(self.by_role[over], self.by_role[under], strict=True)]

    def fastest(self, names: Sequence[str]) -> str:
        """The name with the least median."""
        return min(names, key=lambda name: median(self.by_role[name]))


@dataclass(frozen=True, slots=True)
class Stumble:
    """A role that failed in a round."""

    role: str
    fault: Fault


def typical_us(times_us: Sequence[float]) -> float | None:
    """Their median; None where nothing was timed."""
    return median(times_us) if times_us else None


def one_round(
    roles: Sequence[Role],
    pool: Pool,
    rng: np.random.Generator,
    samples: Samples,
    case: int | None = None,
) -> Stumble | None:
    """Call every role once on the same values, in random order.

    Args:
        roles: who is timed.
        pool: of the bench workload.
        rng: secret.
        samples: gets one time for every role, or none when a role failed.
        case: the one to use; None: a random one of those that fewest roles have met.
    """
    times: dict[str, float] = {}
    if case is None:
        case, slot = _least_met(roles, pool, rng), int(rng.integers(len(pool.input_slots)))
    else:
        slot = case
    for number in rng.permutation(len(roles)):
        role = roles[int(number)]
        result = role.timed(case, (slot, int(rng.integers(len(pool.output_slots[case])))))
        if isinstance(result, Fault):
            return Stumble(role.name, result)
        times[role.name] = result
    for name, time_us in times.items():
        samples.by_role[name].append(time_us)
    return None


def _least_met(roles: Sequence[Role], pool: Pool, rng: np.random.Generator) -> int:
    """A case for whose sake fewest workers must be replaced."""
    counts = {case: sum(role.met(case) for role in roles) for case in pool.usable()}
    least = min(counts.values())
    return int(rng.choice([case for case, count in counts.items() if count == least]))
