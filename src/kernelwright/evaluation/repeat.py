"""Many calls in one process, and equal calls in several: what single calls do not show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernelwright.evaluation.expected import Fault
from kernelwright.evaluation.session import Session
from kernelwright.model import Rejected

if TYPE_CHECKING:
    from kernelwright.evaluation.judge import Judge

_PROCESSES = 3


def check_many(judge: Judge, session: Session) -> tuple[Fault | None, float]:
    """One call on every secret set in one process, each verified completely.

    A round of an acceptance meets a process for one call only. What goes wrong later, in the third
    call or when values change under the same address, is found here.

    Returns:
        What was wrong, or None; and the largest error in tolerance units.
    """
    pool, rng, worst = judge.pool, judge.rng, 0.0
    cases = [int(case) for case in rng.permutation(pool.usable())]
    for case in cases:
        if session.met(pool, case):  # by the call before these
            continue
        slot, out = (
            int(rng.integers(len(pool.input_slots))),
            int(rng.integers(len(pool.output_slots[0]))),
        )
        found = session.check(pool, case, (slot, out))
        if isinstance(found, Fault):
            return found, worst
        worst = max(worst, found)
    return None, worst


def is_deterministic(judge: Judge, session: Session) -> bool | Fault:
    """Whether calls on one secret input, each in a process of its own, give the same bytes.

    Args:
        judge: whose bench pool is used.
        session: names the kernel; its process is not used.
    """
    pool, outcomes = judge.pool, set[str]()
    case = pool.usable()[0]
    fresh = judge.session(session.candidate, session.artifact)
    if isinstance(fresh, Rejected):
        return Fault(fresh.reason, f"in another process: {fresh.diagnostic}")
    try:
        for _ in range(_PROCESSES):
            found = fresh.check(pool, case, (0, 0))  # no process meets the same values twice
            if isinstance(found, Fault):
                return found
            outcomes.add(pool.digest(case, 0))
    finally:
        fresh.close()
    return len(outcomes) == 1
