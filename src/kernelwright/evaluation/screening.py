"""Screening: is a candidate right, and is it worth more time? Cheap on purpose."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from kernelwright.evaluation.expected import Fault
from kernelwright.evaluation.layout import sample
from kernelwright.evaluation.rounds import KernelRole, Role, Samples, one_round, typical_us
from kernelwright.evaluation.session import Session, rejected
from kernelwright.model import (
    Estimate,
    FrozenMap,
    Measured,
    Reason,
    Stage,
    Verdict,
    WorkloadResult,
)
from kernelwright.numerics import Decision, ScreenRule, median_estimate, paired_ratio

if TYPE_CHECKING:
    from kernelwright.evaluation.judge import Judge

CANDIDATE = "candidate"
CHAMPION = "champion"
_WRONG = (Reason.WRONG_RESULT, Reason.NOT_WRITTEN)


@dataclass(frozen=True, slots=True)
class ScreenReport:
    """What screening found."""

    verdict: Verdict
    ratio: Estimate | None = None
    """The candidate's time over the champion's, paired: below 1 the candidate is faster."""
    hopeless: bool = False
    """Stopped early because it is surely slower."""
    champion_fault: str | None = None
    """The champion failed in a round: it must not stay champion."""


def check_workloads(judge: Judge, session: Session) -> tuple[Fault | None, float]:
    """One fully verified call on every check workload.

    Returns:
        The most telling fault (wrong values do not end the checks; a crash does), and the largest
        error in tolerance units.
    """
    worst, outs = 0.0, len(judge.checks.output_slots[0])
    cases = judge.checks.usable()
    faults: list[Fault] = []
    for number, case in enumerate(cases):
        result = session.check(judge.checks, case, (case, number % outs))
        if not isinstance(result, Fault):
            worst = max(worst, result)
        elif result.reason in _WRONG:
            faults.append(result)
        else:
            return result, worst
    if not faults:
        return None, worst
    told = next((fault for fault in faults if fault.partial), faults[0])
    text = f"{told.diagnostic} (wrong on {len(faults)} of {len(cases)} check workloads)"
    return Fault(told.reason, text, told.partial), worst


def check_bench(judge: Judge, session: Session) -> tuple[Fault | None, float]:
    """One fully verified call on the bench workload: the warm-up, but for its time like any other.

    Returns:
        What was wrong, and the error in tolerance units.
    """
    pool, rng = judge.pool, judge.rng
    slots = int(rng.integers(len(pool.input_slots))), int(rng.integers(len(pool.output_slots[0])))
    result = session.check(pool, int(rng.choice(pool.usable())), slots)
    return (result, 0.0) if isinstance(result, Fault) else (None, result)


def screen(
    judge: Judge, session: Session, champion: Session | None, seconds: float
) -> ScreenReport:
    """Check and rank one candidate.

    Args:
        judge: whose pools and settings hold.
        session: the candidate's, fresh.
        champion: the best so far, already checked; None: the candidate runs alone.
        seconds: longest that the rounds take.
    """
    fault, worst = check_workloads(judge, session)
    if fault is not None:
        return ScreenReport(rejected(fault, Stage.CHECK))
    fault, error = check_bench(judge, session)
    if fault is not None:
        return ScreenReport(rejected(fault, Stage.SCREEN))
    return _rounds(judge, session, champion, seconds, max(worst, error))


def _rounds(
    judge: Judge, session: Session, champion: Session | None, seconds: float, error: float
) -> ScreenReport:
    roles = _roles(judge, session, champion)
    samples = Samples({role.name: [] for role in roles})
    rule = judge.settings.screen
    end = time.monotonic() + seconds
    decision, lost = Decision.CONTINUE, None
    while decision is Decision.CONTINUE:
        stumble = one_round(roles, judge.pool, judge.rng, samples)
        if stumble is not None and stumble.role == CANDIDATE:
            return ScreenReport(rejected(stumble.fault, Stage.SCREEN))
        if stumble is not None:  # the candidate is measured alone
            lost, roles = stumble.fault.diagnostic, roles[:1]
            samples = Samples({CANDIDATE: []})
        decision = _decide(rule, samples)
        if samples.rounds >= rule.first and time.monotonic() > end:
            decision = Decision.STOP if decision is Decision.CONTINUE else decision
    clock = session.dishonest_clock(judge.floor_us(session))
    if clock is not None:
        return ScreenReport(rejected(clock, Stage.SCREEN), champion_fault=lost)
    ratio = None
    if CHAMPION in samples.by_role:
        ratio = paired_ratio(samples.by_role[CANDIDATE], samples.by_role[CHAMPION])
    hopeless = decision is Decision.HOPELESS
    return ScreenReport(_measured(judge, session, samples, error), ratio, hopeless, lost)


def _decide(rule: ScreenRule, samples: Samples) -> Decision:
    """Against a champion by the rule; alone, a third of its rounds suffice for a first look."""
    if CHAMPION in samples.by_role:
        return rule.decide(samples.ratios(CHAMPION, CANDIDATE))
    enough = samples.rounds >= max(rule.first, rule.most // 3)
    return Decision.STOP if enough else Decision.CONTINUE


def _roles(judge: Judge, session: Session, champion: Session | None) -> list[Role]:
    settings = judge.settings

    def choose() -> list[list[slice]] | None:
        if judge.has_equivalence:
            return None
        places = judge.pool.output_slots[0][0]
        return sample(places, settings.sample_blocks, settings.sample_elements, judge.rng)

    roles: list[Role] = [KernelRole(CANDIDATE, session, judge.pool, choose)]
    if champion is not None:
        roles.append(KernelRole(CHAMPION, champion, judge.pool, choose))
    return roles


def _measured(judge: Judge, session: Session, samples: Samples, error: float) -> Measured:
    times = samples.by_role[CANDIDATE]
    bound = judge.live_bound()
    result = WorkloadResult(
        workload=judge.bench,
        time_us=median_estimate(times),
        rounds=samples.rounds,
        bound=bound,
        fraction_of_bound=bound.median_us / median(times),
        error=error,
        samples_us=FrozenMap({name: tuple(values) for name, values in samples.by_role.items()}),
        within_target=False,
        prepare_us=typical_us(session.prepare_us),
        prepared_bytes=session.needs.prepared.get(judge.bench, 0),
    )
    return Measured((result,))
