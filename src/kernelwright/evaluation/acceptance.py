"""Acceptance: what may be claimed of a candidate, on fresh values, with everything verified."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kernelwright.evaluation.alone import examine_memory
from kernelwright.evaluation.expected import Fault
from kernelwright.evaluation.race import OWN, Race
from kernelwright.evaluation.repeat import check_many, is_deterministic
from kernelwright.evaluation.screening import CANDIDATE, ScreenReport, check_bench, check_workloads
from kernelwright.evaluation.session import Session, rejected
from kernelwright.model import (
    Claim,
    Estimate,
    Measured,
    Outcome,
    Reason,
    Rejected,
    Stage,
    Verdict,
)
from kernelwright.numerics import ConfirmRule, Decision, sequential_median, sequential_ratio

if TYPE_CHECKING:
    from kernelwright.evaluation.judge import Judge

__all__ = ["OWN", "Race", "accept", "duel"]


def accept(judge: Judge, session: Session, own: Session | None) -> Verdict:
    """Judge a candidate thoroughly.

    Fresh values; all check workloads; many calls in one process; interleaved rounds with every
    baseline; held-out sizes; equal calls in several processes; and, where it wins, the same win
    again on other fresh values.
    """
    judge.renew(judge.pool)
    judge.renew(judge.checks)
    error = _check(judge, session)
    if isinstance(error, Rejected):
        return error
    if own is not None:
        wrong, _ = check_workloads(judge, own)
        if wrong is not None:  # a wrong kernel is no baseline
            judge.lose(OWN, wrong.diagnostic)
            own = None
    race = Race.prepare(judge, session, judge.baseline_roles(), own)
    settings = judge.settings
    try:
        fault = race.run(settings.accept, settings.accept_seconds)
    finally:
        race.close()
    if fault is not None:
        return rejected(fault, Stage.ACCEPT)
    heldout = judge.heldout(session, race)
    if isinstance(heldout, Rejected):
        return heldout
    deterministic = is_deterministic(judge, session)
    if isinstance(deterministic, Fault):
        return rejected(deterministic, Stage.ACCEPT)
    found = _claim(judge, session, race)
    if isinstance(found, Rejected):
        return found
    race, claim = found
    sanitized = examine_memory(judge, session.candidate, session.artifact)
    if isinstance(sanitized, Rejected):
        return sanitized
    result = race.result(error, settings.accept.precise(race.deciding()))
    return Measured((result, *heldout), True, claim, deterministic, sanitized)


def _check(judge: Judge, session: Session) -> Rejected | float:
    """Is it right? The largest error in tolerance units, if so."""
    fault, worst = check_workloads(judge, session)
    if fault is not None:
        return rejected(fault, Stage.CHECK)
    fault, error = check_bench(judge, session)
    worst = max(worst, error)
    if fault is None:
        fault, error = check_many(judge, session)
    return max(worst, error) if fault is None else rejected(fault, Stage.ACCEPT)


def _claim(judge: Judge, session: Session, race: Race) -> Rejected | tuple[Race, Claim | None]:
    """What may be said against the best baseline, and the race to publish.

    A win is sought again in other processes on other fresh values. Where it is refuted the
    candidate is rejected. Where it is neither confirmed nor refuted there is a second race with
    every baseline, and the first, lucky one is not what is published.
    """
    accept, speedup, best = judge.settings.accept, race.speedup(), race.best
    if speedup is None or best is None:
        return race, None
    if not race.wins(accept):
        outcome: Outcome = "slower" if speedup.high < 1 else "undecided"
        return race, Claim(best, outcome, speedup, race.samples.rounds)
    again = _confirm(judge, session, race, best)
    if isinstance(again, Rejected):
        return again
    decision, found = again.decision, again.speedup
    if decision is Decision.HOPELESS:
        text = (
            f"{speedup.median:.3f} times as fast as {best} at first, then {found.median:.3f} "
            f"({found.low:.3f} to {found.high:.3f}) in fresh processes on fresh values"
        )
        return Rejected(Stage.ACCEPT, Reason.LOST_AGAIN, text)
    outcome = "faster"
    rounds = race.samples.rounds
    if decision is not Decision.CONFIRMED:
        second = _second(judge, session, race)
        if isinstance(second, Rejected):
            return second
        race = second
        outcome = "faster" if race.wins(accept) else "undecided"
    return race, Claim(best, outcome, speedup, rounds, found, again.rounds)


@dataclass(frozen=True, slots=True)
class _Again:
    """What came of seeking a win again."""

    decision: Decision
    speedup: Estimate
    rounds: int


@dataclass(frozen=True, slots=True)
class _UntilDecided:
    rule: ConfirmRule

    def done(self, speedup: Sequence[float]) -> bool:
        return self.rule.decide(speedup) is not Decision.CONTINUE


def _confirm(judge: Judge, session: Session, first: Race, rival: str) -> Rejected | _Again:
    judge.renew(judge.pool, count=2)
    roles = [role for role in first.baselines if role.name == rival]
    own = _start_again(judge, first.own.session) if rival == OWN and first.own else None
    again = _start(judge, session)
    if isinstance(again, Rejected):
        return again
    settings = judge.settings
    race = Race.prepare(judge, again, roles, own)
    try:
        fault = race.run(_UntilDecided(settings.confirm), settings.confirm_seconds)
    finally:
        race.close()
    if fault is not None:
        text = f"in fresh processes on fresh values: {fault.diagnostic}"
        return Rejected(Stage.ACCEPT, fault.reason, text)
    ratios = race.deciding()
    decision = settings.confirm.decide(ratios) if race.rivals else Decision.STOP
    return _Again(decision, sequential_median(ratios), race.samples.rounds)


def _second(judge: Judge, session: Session, first: Race) -> Rejected | Race:
    own = None if first.own is None else _start_again(judge, first.own.session)
    again = _start(judge, session)
    if isinstance(again, Rejected):
        return again
    race = Race.prepare(judge, again, judge.baseline_roles(), own)
    try:
        fault = race.run(judge.settings.accept, judge.settings.accept_seconds)
    finally:
        race.close()
    return race if fault is None else rejected(fault, Stage.ACCEPT)


def _start(judge: Judge, session: Session) -> Session | Rejected:
    """The same kernel in a fresh process."""
    fresh = judge.session(session.candidate, session.artifact)
    if isinstance(fresh, Rejected):
        return Rejected(Stage.ACCEPT, fresh.reason, f"in a fresh process: {fresh.diagnostic}")
    return fresh


def _start_again(judge: Judge, own: Session) -> Session | None:
    fresh = judge.session(own.candidate, own.artifact)
    if isinstance(fresh, Rejected):
        judge.lose(OWN, fresh.diagnostic)
        return None
    return fresh


def duel(judge: Judge, session: Session, rival: Session | None) -> ScreenReport:
    """Two kernels side by side on fresh values, everything verified; no baselines."""
    judge.renew(judge.pool)
    error = _check(judge, session)
    if isinstance(error, Rejected):
        return ScreenReport(error)
    race = Race.prepare(judge, session, (), rival)
    rule, settings = judge.settings.accept, judge.settings
    try:  # alone there is no ratio that could be precise
        fault = race.run(rule, settings.accept_seconds if rival else settings.confirm_seconds)
    finally:
        race.close()
    if fault is not None:
        return ScreenReport(rejected(fault, Stage.ACCEPT))
    lost = judge.absent.pop(OWN, None)
    speedup = race.speedup()
    claim = None
    if speedup is not None:
        outcome: Outcome = "slower" if speedup.high < 1 else "undecided"
        if race.wins(rule):
            outcome = "faster"
        claim = Claim(OWN, outcome, speedup, race.samples.rounds)
    result = race.result(error, rule.precise(race.deciding()))
    times = race.samples.by_role
    ratio = sequential_ratio(times[CANDIDATE], times[OWN]) if OWN in times else None
    return ScreenReport(Measured((result,), False, claim), ratio, champion_fault=lost)
