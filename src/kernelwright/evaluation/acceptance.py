"""Acceptance: what may be claimed of a candidate, on fresh values, with everything verified."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kernelwright.evaluation.baselines import BaselineRole
from kernelwright.evaluation.expected import Fault
from kernelwright.evaluation.roof import RoofSamples
from kernelwright.evaluation.rounds import KernelRole, Role, Samples, one_round
from kernelwright.evaluation.screening import (
    CANDIDATE,
    ScreenReport,
    check_bench,
    check_workloads,
)
from kernelwright.evaluation.session import Session, rejected
from kernelwright.model import (
    Estimate,
    FrozenMap,
    Measured,
    Peer,
    Reason,
    Rejected,
    Stage,
    Verdict,
    WorkloadResult,
)
from kernelwright.numerics import AcceptRule, median_estimate, paired_ratio
from kernelwright.roofline import fraction_of_bound

if TYPE_CHECKING:
    from kernelwright.evaluation.judge import Judge

OWN = "own"
"""Name of the user's own kernel among the baselines."""


@dataclass(slots=True)
class Race:
    """The candidate and everyone it is compared with, on one pool of fresh values."""

    judge: Judge
    session: Session
    baselines: list[BaselineRole]
    own: Session | None
    samples: Samples
    roofs: RoofSamples

    @staticmethod
    def prepare(
        judge: Judge, session: Session, baselines: Sequence[BaselineRole], own: Session | None
    ) -> Race:
        """Nobody has run yet."""
        names = [CANDIDATE, *(role.name for role in baselines), *([OWN] if own else [])]
        samples = Samples({name: [] for name in names})
        return Race(judge, session, list(baselines), own, samples, RoofSamples())

    @property
    def rivals(self) -> list[str]:
        """Baselines, as far as they pass the check; all, if none does."""
        passing = [role.name for role in self.baselines if role.passes]
        own = [OWN] if self.own is not None else []
        return passing + own or [role.name for role in self.baselines]

    def run(self, rule: AcceptRule, seconds: float) -> Fault | None:
        """Rounds until the ratio to the best rival is precise, or time is up."""
        judge = self.judge
        roles: list[Role] = [self._kernel(CANDIDATE, self.session), *self.baselines]
        if self.own is not None:
            roles.append(self._kernel(OWN, self.own))
        end = time.monotonic() + seconds
        while True:
            stumble = one_round(roles, judge.pool, judge.rng, self.samples, reload=True)
            if stumble is not None and stumble.role == OWN and self.own is not None:
                roles = [role for role in roles if role.name != OWN]
                self.samples.by_role.pop(OWN)
                self.own = None
                judge.lose(OWN, stumble.fault.diagnostic)
                continue
            if stumble is not None:
                return stumble.fault
            self.roofs.rates.append(judge.roof.read(judge.cost))
            if rule.done(self.deciding()):
                break
            if self.samples.rounds >= min(rule.least, 6) and time.monotonic() > end:
                break
        return self.session.dishonest_clock(judge.floor_us)

    def deciding(self) -> list[float]:
        """What the interval is about: best rival over candidate, or the candidate's own times."""
        if not self.rivals:
            return self.samples.by_role[CANDIDATE]
        return self.samples.ratios(self.samples.fastest(self.rivals), CANDIDATE)

    def speedup(self) -> Estimate | None:
        """Against the best rival; None where there is none."""
        return median_estimate(self.deciding()) if self.rivals else None

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
        )

    def _peers(self) -> list[Peer]:
        candidate = self.samples.by_role[CANDIDATE]
        checks = {role.name: (role.passes, role.error) for role in self.baselines}
        if self.own is not None:
            checks[OWN] = (True, 0.0)
        return [
            Peer(
                name,
                median_estimate(self.samples.by_role[name]),
                paired_ratio(self.samples.by_role[name], candidate),
                passes,
                error,
            )
            for name, (passes, error) in checks.items()
        ]

    def _kernel(self, name: str, session: Session) -> KernelRole:
        pool, flush = self.judge.pool, self.judge.flush_bytes
        return KernelRole(name, session, pool, flush, lambda: None)


def accept(judge: Judge, session: Session, own: Session | None) -> Verdict:
    """Judge a candidate thoroughly.

    Fresh values; all check workloads; interleaved rounds with every baseline; held-out sizes; and,
    where it wins, the same win again in a fresh process on fresh values.
    """
    judge.renew(judge.pool)
    judge.renew(judge.checks)
    fault, worst = check_workloads(judge, session)
    if fault is not None:
        return rejected(fault, Stage.CHECK)
    fault, error = check_bench(judge, session)
    if fault is not None:
        return rejected(fault, Stage.ACCEPT)
    if own is not None:
        wrong, _ = check_workloads(judge, own)
        if wrong is not None:  # a wrong kernel is no baseline
            judge.lose(OWN, wrong.diagnostic)
            own = None
    race = Race.prepare(judge, session, judge.baseline_roles(), own)
    settings = judge.settings
    fault = race.run(settings.accept, settings.accept_seconds)
    if fault is not None:
        return rejected(fault, Stage.ACCEPT)
    precise = settings.accept.precise(race.deciding())
    heldout = judge.heldout(session, race)
    if isinstance(heldout, Rejected):
        return heldout
    again = _confirm(judge, session, race)
    if isinstance(again, Rejected):
        return again
    if again is not race:
        race, precise = again, settings.accept.precise(again.deciding())
    result = race.result(max(worst, error), precise)
    return Measured((result, *heldout), accepted=True)


def _confirm(judge: Judge, session: Session, first: Race) -> Rejected | Race:
    """A win must be there again in a fresh process on fresh values.

    Returns:
        The race to publish. Where the win was not there again, and not refuted either, that is a
        second race with every baseline: the first, lucky one does not count.
    """
    claim = first.speedup()
    if claim is None or claim.low <= 1.0:
        return first  # nothing is claimed
    settings = judge.settings
    judge.renew(judge.pool, count=2)
    rival = first.samples.fastest(first.rivals)
    session.close()
    fresh = judge.session(session.candidate, session.artifact)
    if isinstance(fresh, Rejected):
        return Rejected(Stage.ACCEPT, fresh.reason, f"in a fresh process: {fresh.diagnostic}")
    try:
        fault, _ = check_bench(judge, fresh)
        roles = [role for role in first.baselines if role.name == rival]
        again = Race.prepare(judge, fresh, roles, first.own if rival == OWN else None)
        rule = AcceptRule(settings.confirm_rounds, settings.confirm_rounds)
        fault = fault or again.run(rule, settings.confirm_seconds)
        if fault is not None:
            text = f"in a fresh process on fresh values: {fault.diagnostic}"
            return Rejected(Stage.ACCEPT, fault.reason, text)
        found = again.speedup()
        if found is not None and found.high < 1.0:
            text = (
                f"{claim.median:.3f} times as fast as {rival} at first, then {found.median:.3f} "
                f"({found.low:.3f} to {found.high:.3f}) in a fresh process on fresh values"
            )
            return Rejected(Stage.ACCEPT, Reason.LOST_AGAIN, text)
        if found is None or found.median >= 1.0:
            return first
        second = Race.prepare(judge, fresh, judge.baseline_roles(), first.own)
        fault = second.run(settings.accept, settings.accept_seconds)
        return second if fault is None else rejected(fault, Stage.ACCEPT)
    finally:
        fresh.close()


def duel(judge: Judge, session: Session, rival: Session | None) -> ScreenReport:
    """Two kernels side by side on fresh values, everything verified; no baselines."""
    judge.renew(judge.pool)
    fault, worst = check_workloads(judge, session)
    if fault is not None:
        return ScreenReport(rejected(fault, Stage.CHECK))
    fault, error = check_bench(judge, session)
    if fault is not None:
        return ScreenReport(rejected(fault, Stage.ACCEPT))
    race = Race.prepare(judge, session, (), rival)
    rule = judge.settings.accept
    fault = race.run(rule, judge.settings.accept_seconds)
    if fault is not None:
        return ScreenReport(rejected(fault, Stage.ACCEPT))
    lost = judge.absent.pop(OWN, None)
    result = race.result(max(worst, error), rule.precise(race.deciding()))
    times = race.samples.by_role
    ratio = paired_ratio(times[CANDIDATE], times[OWN]) if OWN in times else None
    return ScreenReport(Measured((result,), accepted=False), ratio, champion_fault=lost)
