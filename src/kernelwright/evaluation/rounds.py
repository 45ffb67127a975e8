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

    def timed(self, slots: tuple[int, int]) -> float | Fault:
        """One call on what an input slot holds; microseconds or what went wrong."""
        ...


@dataclass(slots=True)
class KernelRole:
    """A candidate, or an own kernel as baseline."""

    name: str
    session: Session
    pool: Pool
    flush_bytes: int
    choose: Callable[[], Sequence[list[slice]] | None]
    """Parts to verify; None: everything."""

    def timed(self, slots: tuple[int, int]) -> float | Fault:
        """One verified call."""
        return self.session.timed(self.pool, slots, self.flush_bytes, self.choose())


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


def one_round(
    roles: Sequence[Role],
    pool: Pool,
    rng: np.random.Generator,
    samples: Samples,
    reload: bool,
    slots: Sequence[int] | None = None,
) -> Stumble | None:
    """Call every role once, in random order.

    Args:
        roles: who is timed.
        pool: of the bench workload.
        rng: secret.
        samples: gets one time for every role, or none when a role failed.
        reload: copy a random secret set into the slot before every call; else roles meet what the
            slots hold, all roles of a round the same slot.
        slots: input slots to use; None: all.
    """
    times: dict[str, float] = {}
    open_slots = range(len(pool.input_slots)) if slots is None else slots
    shared = open_slots[(samples.rounds + 1) % len(open_slots)]
    usable = pool.usable()
    for number in rng.permutation(len(roles)):
        slot = int(rng.choice(open_slots)) if reload else shared
        if reload:
            pool.load(int(rng.choice(usable)), slot)
        out = int(rng.integers(len(pool.output_slots[0])))
        role = roles[int(number)]
        result = role.timed((slot, out))
        if isinstance(result, Fault):
            return Stumble(role.name, result)
        times[role.name] = result
    for name, time_us in times.items():
        samples.by_role[name].append(time_us)
    return None
