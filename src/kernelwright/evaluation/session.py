"""One candidate in one worker: starting it, calling it, and checking what it wrote."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from kernelwright.build import Artifact
from kernelwright.errors import HarnessError
from kernelwright.evaluation.arguments import arguments, size_arguments
from kernelwright.evaluation.clocks import agreed_us, dishonest, excess_us
from kernelwright.evaluation.expected import (
    Equivalence,
    Fault,
    describe,
)
from kernelwright.evaluation.faults import failed, fault_of
from kernelwright.evaluation.needs import Needs
from kernelwright.evaluation.pool import Pool
from kernelwright.evaluation.prepared import (
    PreparedMemory,
    Preparer,
    export_problem,
)
from kernelwright.evaluation.workspace import Workspaces
from kernelwright.execution import Arena, Call, CallReport, Failure, Limits, Worker
from kernelwright.model import (
    Candidate,
    Host,
    Reason,
    Rejected,
    Signature,
    Stage,
    Workload,
)

_LOADING = (Reason.LOAD_FAILED, Reason.MISSING_SYMBOL, Reason.NOT_PARALLEL)
_FULLY_ONE_IN = 8
_STARTS = 3
"""A worker may be ended from outside while it starts, as by a system that is short of memory."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What sessions share: the problem's signature, memory, threads and limits."""

    signature: Signature
    threads: int
    limits: Limits
    flush_bytes: int
    """What a worker's team reads right before every call, timed or not."""
    slack_us: float
    """What honest handshakes differ by."""
    workspaces: Workspaces
    prepared: PreparedMemory
    host: Callable[[Artifact], Host]
    """How a worker runs an artifact."""
    equivalence: Callable[[Pool, int, int], Equivalence | None]
    """Asks the oracle about a case and an output slot, where the problem judges itself."""
    fill_gbs: float | None = None
    """How fast a device fills outputs with poison inside of the judge's bracket; None: nobody does.
    """


@dataclass(slots=True)
class Session:
    """A candidate's worker with the pools that it maps."""

    candidate: Candidate
    artifact: Artifact
    bench: Bench
    pools: tuple[Pool, ...]
    worker: Worker
    scratch: Arena | None
    """The workspace arena that this worker maps."""
    elapsed_us: list[float] = field(default_factory=list[float])
    """Times of timed calls on the bench workload."""
    excess_us: list[float] = field(default_factory=list[float])
    """How much longer the judge's clock said each took, beyond the handshake and what the judge
    itself waited for a processor."""
    restarts: int = 0
    """Workers started anew because the former one had met what it was to be called on."""
    _excused: bool = False
    """A kill has been excused: once only, or a worker would end itself in its slow calls."""
    _guest: object = field(default_factory=object)
    """Stands for the process that is there now."""
    _met: set[tuple[str, int, int]] = field(default_factory=set[tuple[str, int, int]])
    """Pool, generation and case of every call of this worker."""
    needs: Needs = field(default_factory=Needs)
    preparer: Preparer | None = None
    """Where the kernel prepacks static inputs: who does."""
    prepare_us: list[float] = field(default_factory=list[float])
    """Times of preparations for the bench workload."""
    _lent: Arena | None = None
    """The arena of prepared bytes that this worker maps."""

    @staticmethod
    def start(
        candidate: Candidate, artifact: Artifact, bench: Bench, pools: Sequence[Pool]
    ) -> Session | Rejected:
        """Start a worker that maps these pools; the first one warms up workers started later."""
        guest = object()
        worker = _start(candidate, artifact, bench, pools, guest)
        if isinstance(worker, Failure):
            return Rejected(Stage.LOAD, worker.reason, worker.detail)
        wrong = export_problem(candidate.entry, worker, bench.signature)
        if wrong is not None:
            worker.close()
            return Rejected(Stage.LOAD, Reason.BAD_DECLARATION, wrong)
        scratch = bench.workspaces.arena
        session = Session(candidate, artifact, bench, tuple(pools), worker, scratch, _guest=guest)
        session._lent = bench.prepared.lent
        if worker.exports_prepare:
            session.preparer = Preparer(
                bench.signature,
                bench.prepared,
                session.pools,
                lambda arenas: _process(candidate, artifact, bench, arenas),
            )
        return session

    def met(self, pool: Pool, case: int) -> bool:
        """Whether this worker was already called on these very values."""
        return (pool.label, pool.generation, case) in self._met

    def make_ready(self, pool: Pool, case: int) -> Fault | None:
        """See to it that the worker never met the values of a case and maps enough scratch.

        What a kernel remembers of contents is thereby worth nothing: no process sees any twice.
        """
        if self.met(pool, case):
            fault = self.renew(pool)
            if fault is not None:
                return fault
        return self._make_room(pool.workloads[case])

    def renew(self, pool: Pool) -> Fault | None:
        """Go on in another worker, which has met nothing and is warm."""
        return self._renew() or self._warm_up(pool)

    def call(self, pool: Pool, case: int, slots: tuple[int, int]) -> CallReport | Fault:
        """One call: inputs from one slot, outputs to another; the worker is frozen afterwards.

        Whenever the worker runs before the call (its team is woken, its caches are filled), inputs
        are blank and outputs poison: it meets what it is to compute when the clock runs.
        Where the worker was killed, the call is made again in another one, once in a session.
        """
        found = self._call(pool, case, slots)
        if self._excused or not isinstance(found, Fault) or found.reason is not Reason.KILLED:
            return found
        self._excused = True
        return self.renew(pool) or self._call(pool, case, slots)

    def _call(self, pool: Pool, case: int, slots: tuple[int, int]) -> CallReport | Fault:
        for other in self.pools:
            other.blank()
            other.admit(self._guest)
        self.bench.workspaces.admit(self._guest)
        self.bench.prepared.blank()
        fault = self.make_ready(pool, case)
        if fault is not None:
            return fault
        fault = self._prepare(pool, case, slots[0])
        if fault is not None:
            return fault
        pool.poison(case, slots[1])
        workload = pool.workloads[case]
        scratch, prepared = self.needs.workspace[workload], self.needs.prepared[workload]
        self._met.add((pool.label, pool.generation, case))
        pool.fresh = False

        def lay_out() -> None:
            self.bench.workspaces.poison(scratch)
            pool.load(case, slots[0])
            pool.evict(case, slots)
            self.bench.workspaces.evict(pool.throw_out)
            self.bench.prepared.lend(prepared, pool.throw_out)

        call = Call(arguments(self.bench.signature, pool, case, slots, scratch, prepared))
        again = pool.poison_again(case, slots[1])
        report = self.worker.call(call, self.bench.flush_bytes, True, lay_out, again)
        if isinstance(report, Failure):
            return failed(report, workload)
        pool.fetch(case, slots[1])
        return self._trespass(pool, case, slots[0]) or (
            fault_of(report, workload, self.bench.threads) or report
        )

    def _trespass(self, pool: Pool, case: int, slot: int) -> Fault | None:
        """What the last call wrote where it must not, beside its outputs."""
        workload = pool.workloads[case]
        broken = self.bench.workspaces.broken_zone(self.needs.workspace[workload])
        if broken is not None:
            return Fault(Reason.RED_ZONE, f"{broken}; on {describe(workload)}")
        changed = pool.changed_input(case, slot)
        if changed is not None:
            return Fault(Reason.WROTE_INPUT, f"wrote to '{changed}'; on {describe(workload)}")
        return None

    def check(self, pool: Pool, case: int, slots: tuple[int, int]) -> Fault | float:
        """One untimed call, verified completely; the error in tolerance units when it is right."""
        report = self.call(pool, case, slots)
        return report if isinstance(report, Fault) else self.verify(pool, case, slots[1])

    def verify(self, pool: Pool, case: int, out: int) -> Fault | float:
        """Check everything that a call wrote; the error in tolerance units when it is right."""
        broken = pool.broken_zone(case, out)
        if broken is not None:
            place = f"{broken}; on {describe(pool.workloads[case])}"
            return Fault(Reason.RED_ZONE, place)
        checked = pool.check_fully(case, out, self.bench.equivalence(pool, case, out))
        return checked.fault or checked.error

    def timed(
        self,
        pool: Pool,
        case: int,
        slots: tuple[int, int],
        chosen: Sequence[list[slice]] | None = None,
    ) -> float | Fault:
        """A timed call on a case, verified (only in chosen parts, if given).

        Returns:
            Microseconds, or what was wrong.
        """
        report = self.call(pool, case, slots)
        if isinstance(report, Fault):
            return report
        fault = self._check_timed(pool, case, slots[1], chosen)
        if fault is not None:
            return fault
        overhead = self.worker.handshake_overhead_us + self._poisoning_us(pool, case)
        self.elapsed_us.append(report.elapsed_us)
        self.excess_us.append(excess_us(report, overhead))
        return agreed_us(report, overhead, self.bench.slack_us)

    def _poisoning_us(self, pool: Pool, case: int) -> float:
        """What the worker's host needs to fill the outputs before its clock starts."""
        if self.bench.fill_gbs is None:
            return 0.0
        return sum(place.nbytes for place in pool.output_slots[case][0]) / (
            1e3 * self.bench.fill_gbs
        )

    def _check_timed(
        self, pool: Pool, case: int, out: int, chosen: Sequence[list[slice]] | None
    ) -> Fault | None:
        whole_zones = pool.broken_zone(case, out) is None
        if chosen is not None:
            if whole_zones and pool.check_sample(case, out, chosen):
                return None
        else:
            # elementwise nearly always; now and then, unforeseeably, also the error as a whole
            quick = secrets.randbelow(_FULLY_ONE_IN) > 0 and pool.check_fast(case, out)
            if whole_zones and (quick or pool.is_known(case, out)):
                return None
        result = self.verify(pool, case, out)
        if isinstance(result, Fault):
            return result
        pool.remember(case, out)
        return None

    def dishonest_clock(self, floor_us: float) -> Fault | None:
        """Judge the times of this worker as a whole: physics, and the judge's own clock."""
        return dishonest(self.elapsed_us, self.excess_us, floor_us)

    def close(self) -> None:
        """End its processes."""
        self.worker.close()
        if self.preparer is not None:
            self.preparer.close()

    def _renew(self) -> Fault | None:
        """Another worker in the place of this one: it has met nothing."""
        self.worker.close()
        self._guest = object()
        worker = _start(self.candidate, self.artifact, self.bench, self.pools, self._guest)
        if isinstance(worker, Failure):
            return Fault(worker.reason, worker.detail)
        self.worker, self.scratch = worker, self.bench.workspaces.arena
        self._lent = self.bench.prepared.lent
        self._met.clear()
        self.restarts += 1
        return None

    def _warm_up(self, pool: Pool) -> Fault | None:
        """Bring a worker that was started anew to where the former one was: its code is loaded."""
        checks = self.pools[0]
        cases = checks.usable()
        if pool is checks or not cases:
            return None
        largest = max(cases, key=lambda n: sum(p.nbytes for p in checks.input_slots[n]))
        # what it writes was verified when the first worker was called on these very values
        result = self.call(checks, largest, (largest, 0))
        return result if isinstance(result, Fault) else None

    def _make_room(self, workload: Workload) -> Fault | None:
        """See that all memory is there that a workload needs; larger arenas mean a new worker."""
        bench = self.bench
        most = bench.limits.memory_bytes
        fault = self.needs.learn(self.worker, bench.signature, workload, most)
        if fault is not None:
            return fault
        scratch, workspaces = self.needs.workspace[workload], bench.workspaces
        packed, memory = self.needs.prepared[workload], bench.prepared
        if not workspaces.holds(scratch):
            workspaces.grow(scratch)
        memory.grow(packed)
        if (scratch and self.scratch is not workspaces.arena) or (
            packed and self._lent is not memory.lent
        ):
            return self._renew()
        return None

    def _prepare(self, pool: Pool, case: int, slot: int) -> Fault | None:
        """Let the static inputs of a case be prepacked while the worker that calls is frozen."""
        workload = pool.workloads[case]
        nbytes = self.needs.prepared[workload]
        if self.preparer is None or not nbytes:
            return None
        self.worker.freeze()
        sizes = size_arguments(self.bench.signature, workload)
        report = self.preparer.prepare(pool, case, slot, sizes, nbytes)
        if isinstance(report, Failure):
            return failed(report, workload)
        broken = self.bench.prepared.made.broken_zone(nbytes)
        if broken is not None:
            return Fault(Reason.RED_ZONE, f"{broken}; on {describe(workload)}")
        if pool.shared:
            overhead = self.worker.handshake_overhead_us
            self.prepare_us.append(agreed_us(report, overhead, self.bench.slack_us))
        return fault_of(report, workload, self.bench.threads, "its preparation")


def rejected(fault: Fault, stage: Stage) -> Rejected:
    """A fault as a verdict; what concerns loading is of the stage `load`."""
    return Rejected(
        Stage.LOAD if fault.reason in _LOADING else stage, fault.reason, fault.diagnostic
    )


def _start(
    candidate: Candidate, artifact: Artifact, bench: Bench, pools: Sequence[Pool], guest: object
) -> Worker | Failure:
    """A worker that finds nothing: no inputs, no answers, nothing that another one left."""
    for pool in pools:
        pool.blank()
        pool.admit(guest)
    bench.workspaces.admit(guest)
    bench.prepared.blank()
    arenas = [arena for pool in pools for arena in pool.arenas]
    arenas += [*bench.workspaces.arenas(), *bench.prepared.arenas()]
    return _process(candidate, artifact, bench, arenas)


def _process(
    candidate: Candidate, artifact: Artifact, bench: Bench, arenas: Sequence[Arena]
) -> Worker | Failure:
    """A process of the kernel, begun again when it is ended from outside."""
    start = partial(
        Worker.start, artifact.path, candidate.entry, bench.host(artifact), arenas, bench.threads,
        bench.limits, bench.flush_bytes,
    )  # fmt: skip
    for _ in range(_STARTS - 1):
        with suppress(HarnessError):  # nothing of the candidate has run
            worker = start()
            if isinstance(worker, Worker) or worker.reason is not Reason.KILLED:
                return worker
    return start()
