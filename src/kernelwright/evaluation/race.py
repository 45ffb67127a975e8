"""Timed rounds of a candidate beside everyone it is compared with."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Protocol

from kernelwright.diagnosis import Reader
from kernelwright.evaluation.baselines import BaselineRole
from kernelwright.evaluation.expected import Fault
from kernelwright.evaluation.roof import RoofSamples
from kernelwright.evaluation.rounds import (
    KernelRole,
    Role,
    Samples,
    Stumble,
    one_round,
    typical_us,
)
from kernelwright.evaluation.screening import CANDIDATE
from kernelwright.evaluation.session import Session
from kernelwright.model import Estimate, FrozenMap, Peer, WorkloadResult
from kernelwright.numerics import (
    FEWEST,
    AcceptRule,
    median_estimate,
    sequential_median,
    sequential_ratio,
)
from kernelwright.roofline import fraction_of_bound

if TYPE_CHECKING:
    from kernelwright.evaluation.judge import Judge

OWN = "own"
"""Name of the user's own kernel among the baselines."""


class Rule(Protocol):
    """Says when enough rounds were made."""

    def done(self, speedup: Sequence[float]) -> bool:
        """Whether to stop, after rounds with these ratios (best rival over candidate)."""
        ...


@dataclass(slots=True)
class Race:
    """The candidate and everyone it is compared with, on one pool of fresh values."""

    judge: Judge
    candidate: KernelRole
    baselines: list[BaselineRole]
    own: KernelRole | None
    samples: Samples
    roofs: RoofSamples
    calls: int
    """Of each role in a round; the median of their times counts."""
    telemetry: Reader | None = None

    @staticmethod
    def prepare(
        judge: Judge, session: Session, baselines: Sequence[BaselineRole], own: Session | None
    ) -> Race:
        """Nobody has run yet. The sessions are the race's from now on: `close` ends them."""
        names = [CANDIDATE, *(role.name for role in baselines), *([OWN] if own else [])]
        samples = Samples({name: [] for name in names})
        rival = None if own is None else KernelRole(OWN, own, judge.pool, _everything)
        candidate = KernelRole(CANDIDATE, session, judge.pool, _everything)
        calls = 1 if baselines else judge.settings.duel_calls
        return Race(
            judge, candidate, list(baselines), rival, samples, RoofSamples(), calls,
            judge.ground.telemetry(),
        )  # fmt: skip

    def close(self) -> None:
        """End the kernels' processes; samples stay."""
        self.candidate.session.close()
        if self.own is not None:
            self.own.session.close()

    @property
    def rivals(self) -> list[str]:
        """Baselines, as far as they pass the check; all, if none does."""
        passing = [role.name for role in self.baselines if role.passes]
        own = [OWN] if self.own is not None else []
        return passing + own or [role.name for role in self.baselines]

    def run(self, rule: Rule, seconds: float) -> Fault | None:
        """Rounds until the rule has seen enough, or time is up.

        In every round each kernel is in a new process. Where memory and threads of a process happen
        to lie makes one process of a kernel faster than another for as long as it lives. In one
        process per kernel the rounds would agree about that accident; in a new one every round,
        rounds are independent draws, as the sign test assumes.
        """
        judge = self.judge
        roles: list[Role] = [self.candidate, *self.baselines]
        if self.own is not None:
            roles.append(self.own)
        end = time.monotonic() + seconds
        while True:
            stumble = self._round(roles)
            if stumble is not None and stumble.role == OWN and self.own is not None:
                roles = [role for role in roles if role.name != OWN]
                self.samples.by_role.pop(OWN)
                self.own.session.close()
                self.own = None
                judge.lose(OWN, stumble.fault.diagnostic)
                continue
            if stumble is not None:
                return stumble.fault
            self.roofs.rates.append(judge.roof.read(judge.cost))
            if self.telemetry is not None:
                self.telemetry.read()
            if self.samples.rounds < FEWEST:
                continue
            if rule.done(self.deciding()) or time.monotonic() > end:
                break
        return self.candidate.session.dishonest_clock(judge.floor_us(self.candidate.session))

    def _round(self, roles: Sequence[Role]) -> Stumble | None:
        """New processes where they differ, then verified calls by turns; medians are a sample."""
        pool, times = self.judge.pool, Samples({role.name: [] for role in roles})
        renewed = roles if self.judge.ground.renews else ()
        for role in renewed:
            fault = role.session.renew(pool) if isinstance(role, KernelRole) else None
            if fault is not None:
                return Stumble(role.name, fault)
        for _ in range(min(self.calls, len(pool.usable()))):
            stumble = one_round(roles, pool, self.judge.rng, times)
            if stumble is not None:
                return stumble
        for name, values in times.by_role.items():
            self.samples.by_role[name].append(median(values))
        return None

    @property
    def best(self) -> str | None:
        """The fastest rival in these rounds."""
        return self.samples.fastest(self.rivals) if self.rivals else None

    def deciding(self) -> list[float]:
        """What the interval is about: best rival over candidate, or the candidate's own times."""
        best = self.best
        if best is None:
            return self.samples.by_role[CANDIDATE]
        return self.samples.ratios(best, CANDIDATE)

    def speedup(self) -> Estimate | None:
        """Against the best rival; None where there is none."""
        return sequential_median(self.deciding()) if self.rivals else None

    def wins(self, rule: AcceptRule) -> bool:
        """Whether the candidate is proved faster than every rival.

        Than every one: so it does not matter that the best is chosen in the same rounds.
        """
        ratios = [self.samples.ratios(name, CANDIDATE) for name in self.rivals]
        return bool(ratios) and all(rule.wins(each) for each in ratios)

    def result(self, error: float, precise: bool) -> WorkloadResult:
        """Everything that was measured."""
        times = self.samples.by_role[CANDIDATE]
        bounds = self.roofs.bounds(self.judge.cost)
        raw = {name: tuple(values) for name, values in self.samples.by_role.items()}
        raw["roof"] = tuple(bounds.per_round_us)
        return WorkloadResult(
            workload=self.judge.bench,
            time_us=median_estimate(times),
            rounds=self.samples.rounds,
            bound=bounds.typical,
            fraction_of_bound=fraction_of_bound(bounds.per_round_us, times),
            peers=tuple(self._peers()),
            absent=FrozenMap(self.judge.absent),
            error=error,
            samples_us=FrozenMap(raw),
            within_target=precise,
            prepare_us=typical_us(self.candidate.session.prepare_us),
            prepared_bytes=self.candidate.session.needs.prepared.get(self.judge.bench, 0),
            telemetry=self.telemetry.summary() if self.telemetry is not None else None,
        )

    def _peers(self) -> list[Peer]:
        candidate = self.samples.by_role[CANDIDATE]
        checks = {
            role.name: (role.passes, role.error, typical_us(role.prepare_us))
            for role in self.baselines
        }
        if self.own is not None:
            checks[OWN] = (True, 0.0, typical_us(self.own.session.prepare_us))
        return [
            Peer(
                name,
                median_estimate(self.samples.by_role[name]),
                sequential_ratio(self.samples.by_role[name], candidate),
                passes,
                error,
                prepare_us,
            )
            for name, (passes, error, prepare_us) in checks.items()
        ]


def _everything() -> None:
    """Of every call of a race all outputs are verified."""
