"""Held-out sizes: drawn in secret, for every acceptance anew."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

from kernelwright.evaluation.baselines import COMPILED, BaselineRole
from kernelwright.evaluation.expected import Fault
from kernelwright.evaluation.pool import Pool
from kernelwright.evaluation.pool_making import make_pool
from kernelwright.evaluation.rounds import KernelRole, Role, Samples, one_round
from kernelwright.evaluation.screening import CANDIDATE
from kernelwright.evaluation.session import Session, rejected
from kernelwright.evaluation.wire import workload_from_json, workload_to_json
from kernelwright.model import (
    Peer,
    Rejected,
    Stage,
    Workload,
    WorkloadResult,
)
from kernelwright.numerics import median_estimate, paired_ratio

if TYPE_CHECKING:
    from kernelwright.evaluation.acceptance import Race
    from kernelwright.evaluation.judge import Judge

_ROUNDS = 7
_SHORT_US = 50.0
"""A baseline call below this says more about overheads than about the kernel."""


def examine(
    judge: Judge, session: Session, race: Race
) -> tuple[int, tuple[WorkloadResult, ...] | Rejected]:
    """Check held-out sizes for right results, and time the largest against the best rival.

    Returns:
        How many were checked; results of the timed ones, or why the candidate is rejected.
    """
    count = judge.settings.heldout
    if count == 0:
        return 0, ()
    found = judge.oracle.heldout(str(judge.dtype), secrets.randbits(48), count)
    workloads = [workload_from_json(data) for data in found]
    pool = make_pool(
        f"heldout{secrets.randbits(32):x}", judge.public.signature, workloads, 2, shared=False,
        oracle=judge.oracle, arena=judge.ground.make_arena,
    )  # fmt: skip
    pool.throw_out = judge.pool.throw_out
    try:
        judge.renew(pool)
        fresh = judge.session(session.candidate, session.artifact, pool)
        if isinstance(fresh, Rejected):
            return 0, fresh
        try:
            for case in pool.usable():
                result = fresh.check(pool, case, (case, case % 2))
                if isinstance(result, Fault):
                    return 0, _told(judge, result)
            return len(pool.usable()), _time_largest(judge, fresh, pool, race)
        finally:
            fresh.close()
    finally:
        judge.oracle.detach([pool.secret, pool.inputs, pool.outputs])
        pool.close()


def _time_largest(
    judge: Judge, session: Session, pool: Pool, race: Race
) -> tuple[WorkloadResult, ...] | Rejected:
    """Time a few; a kernel that is only fast at the sizes it was tuned for is flagged."""
    rival = _rival(race)
    if rival is None:
        return ()
    order = sorted(pool.usable(), key=lambda n: -_volume(judge, pool.workloads[n]))
    results: list[WorkloadResult] = []
    for case in order[: judge.settings.heldout_timed]:
        result = _time_one(judge, session, pool, case, rival)
        if isinstance(result, Fault):
            return _told(judge, result)
        if result is None:
            continue
        results.append(replace(result, collapsed=_collapsed(result, race, judge.settings.collapse)))
    return tuple(results)


def _told(judge: Judge, fault: Fault) -> Rejected:
    """The verdict, without the sizes: it may be read by whoever proposes the next candidate."""
    judge.heldout_faults.append(fault.diagnostic)
    words = str(fault.reason).replace("_", " ")
    text = f"{words} at held-out sizes, which stay secret until the end"
    stage = rejected(fault, Stage.ACCEPT).stage
    return Rejected(stage, fault.reason, text)


def _collapsed(result: WorkloadResult, race: Race, factor: float) -> bool:
    """Whether it is surely slower than the rival, and far from what it was at the bench sizes."""
    peer = result.peers[0]
    bench = paired_ratio(race.samples.by_role[peer.name], race.samples.by_role[CANDIDATE])
    slow = peer.speedup.high < min(1.0, bench.median / factor)
    return slow and peer.time_us.median > _SHORT_US


def _rival(race: Race) -> str | None:
    """The fastest baseline that need not compile for every size."""
    names = [role.name for role in race.baselines if role.name in race.rivals]
    ready = [name for name in names if name not in COMPILED]
    return race.samples.fastest(ready) if ready else None


def _time_one(
    judge: Judge, session: Session, pool: Pool, case: int, rival: str
) -> WorkloadResult | Fault | None:
    """A few paired rounds; None when the baseline cannot run at these sizes."""
    workload = pool.workloads[case]
    arena, inputs = pool.lay_before_oracle(case, case)
    why = judge.oracle.prepare(rival, workload_to_json(workload), arena, inputs)
    if why is not None:
        return None
    baseline = BaselineRole(
        rival, judge.oracle, pool, judge.oracle_flush_bytes, judge.rng, judge.equivalence
    )
    kernel = KernelRole(CANDIDATE, session, pool, lambda: None)
    roles: list[Role] = [kernel, baseline]
    samples = Samples({CANDIDATE: [], rival: []})
    while samples.rounds < _ROUNDS:
        stumble = one_round(roles, pool, judge.rng, samples, case)
        if stumble is not None:
            return stumble.fault
    times = samples.by_role[CANDIDATE]
    peer = Peer(
        rival,
        median_estimate(samples.by_role[rival]),
        paired_ratio(samples.by_role[rival], times),
        baseline.passes,
        baseline.error,
    )
    return WorkloadResult(
        workload, median_estimate(times), samples.rounds, peers=(peer,), within_target=False
    )


def _volume(judge: Judge, workload: Workload) -> int:
    tensors = judge.public.signature.tensors
    return sum(tensor.nbytes(workload.sizes, workload.dtype) for tensor in tensors)
