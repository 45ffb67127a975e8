"""One candidate in one worker: starting it, calling it, and checking what it wrote."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from kernelwright.build import Artifact, build_runtime
from kernelwright.evaluation.expected import (
    Equivalence,
    Fault,
    check_fast,
    check_fully,
    check_sample,
    describe,
)
from kernelwright.evaluation.pool import Pool
from kernelwright.execution import Arena, Call, CallReport, Failure, Limits, Pointer, Worker
from kernelwright.model import (
    Candidate,
    Reason,
    Rejected,
    Scalar,
    ScalarArgument,
    Signature,
    Stage,
    Workload,
)

_LOADING = (Reason.LOAD_FAILED, Reason.MISSING_SYMBOL, Reason.NOT_PARALLEL)
_SLACK_US = 100.0
_SLACK_SHARE = 0.1
_FULLY_ONE_IN = 8


@dataclass(slots=True)
class Workspaces:
    """Scratch memory that kernels ask for: one arena for all, as only one worker runs at a time."""

    arena: Arena | None = None

    def arenas(self) -> tuple[Arena, ...]:
        """What workers map."""
        return () if self.arena is None else (self.arena,)

    def holds(self, nbytes: int) -> bool:
        """Whether it is large enough already."""
        return nbytes <= 0 or (self.arena is not None and self.arena.nbytes >= nbytes)

    def grow(self, nbytes: int) -> None:
        """Replace it by a larger one; workers that map the old one must be started again."""
        self.close()
        self.arena = Arena("workspace", nbytes)

    def close(self) -> None:
        """Give the memory back."""
        if self.arena is not None:
            self.arena.close()
            self.arena = None


@dataclass(frozen=True, slots=True)
class Bench:
    """What sessions share: the problem's signature, memory, threads and limits."""

    signature: Signature
    threads: int
    limits: Limits
    workspaces: Workspaces
    runtime: Callable[[Artifact], Path]
    equivalence: Callable[[Pool, int, int], Equivalence | None]
    """Asks the oracle about a case and an output slot, where the problem judges itself."""


def default_runtime(artifact: Artifact) -> Path:
    """The worker's host program for an artifact."""
    return build_runtime(artifact.toolchain)


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
    """How much longer the judge's clock said each took, beyond the handshake."""
    _workspace: dict[Workload, int] = field(default_factory=dict[Workload, int])

    @staticmethod
    def start(
        candidate: Candidate, artifact: Artifact, bench: Bench, pools: Sequence[Pool]
    ) -> Session | Rejected:
        """Start a worker that maps these pools."""
        worker = _start(candidate, artifact, bench, pools)
        if isinstance(worker, Failure):
            return Rejected(Stage.LOAD, worker.reason, worker.detail)
        scratch = bench.workspaces.arena
        return Session(candidate, artifact, bench, tuple(pools), worker, scratch)

    def call(
        self, pool: Pool, case: int, slots: tuple[int, int], flush_bytes: int = 0
    ) -> CallReport | Fault:
        """One call: inputs from one slot, outputs to another; the worker is frozen afterwards."""
        workload = pool.workloads[case]
        pool.fresh = False
        scratch = self._prepare_workspace(workload)
        if isinstance(scratch, Fault):
            return scratch
        call = Call(arguments(self.bench.signature, pool, case, slots, scratch))
        report = self.worker.call(call, flush_bytes=flush_bytes, park=True)
        if isinstance(report, Failure):
            return _failed(report, workload)
        return self._fault_of(report, workload) or report

    def check(self, pool: Pool, case: int, slots: tuple[int, int]) -> Fault | float:
        """One untimed call, verified completely; the error in tolerance units when it is right."""
        pool.poison(case, slots[1])
        report = self.call(pool, case, slots)
        return report if isinstance(report, Fault) else self.verify(pool, case, slots[1])

    def verify(self, pool: Pool, case: int, out: int) -> Fault | float:
        """Check everything that a call wrote; the error in tolerance units when it is right."""
        broken = pool.broken_zone(case, out)
        if broken is not None:
            place = f"{broken}; on {describe(pool.workloads[case])}"
            return Fault(Reason.RED_ZONE, place)
        places = pool.output_slots[case][out]
        arena = pool.outputs.view()
        equivalence = self.bench.equivalence(pool, case, out)
        checked = check_fully(pool.cases[case], places, arena, equivalence)
        return checked.fault or checked.error

    def timed(
        self,
        pool: Pool,
        slots: tuple[int, int],
        flush_bytes: int,
        chosen: Sequence[list[slice]] | None = None,
    ) -> float | Fault:
        """A timed call on what an input slot holds, verified (only in chosen parts, if given).

        Returns:
            Microseconds, or what was wrong.
        """
        case = pool.holds[slots[0]]
        pool.poison(case, slots[1], chosen)
        report = self.call(pool, case, slots, flush_bytes)
        if isinstance(report, Fault):
            return report
        fault = self._check_timed(pool, case, slots, chosen)
        if fault is not None:
            return fault
        overhead = self.worker.handshake_overhead_us
        self.elapsed_us.append(report.elapsed_us)
        self.excess_us.append(report.bracket_us - report.elapsed_us - overhead)
        return agreed_us(report, overhead)

    def _check_timed(
        self, pool: Pool, case: int, slots: tuple[int, int], chosen: Sequence[list[slice]] | None
    ) -> Fault | None:
        out = slots[1]
        places, arena = pool.output_slots[case][out], pool.outputs.view()
        whole_zones = pool.broken_zone(case, out) is None
        if chosen is None:
            # elementwise nearly always; now and then, unforeseeably, also the error as a whole
            quick = secrets.randbelow(_FULLY_ONE_IN) > 0 and check_fast(
                pool.cases[case], places, arena
            )
            if whole_zones and (quick or pool.is_known(case, out)):
                return None
            result = self.verify(pool, case, out)
            if not isinstance(result, Fault):
                pool.remember(case, out)
                return None
            return result
        if whole_zones and check_sample(pool.cases[case], places, arena, chosen):
            return None
        # the rest of the slot holds older values: only a full call makes a diagnosis
        again = self.check(pool, case, slots)
        return again if isinstance(again, Fault) else _fickle(pool.workloads[case])

    def dishonest_clock(self, floor_us: float) -> Fault | None:
        """Judge the times of this worker as a whole: physics, and the judge's own clock."""
        if not self.elapsed_us:
            return None
        typical = median(self.elapsed_us)
        # A busy machine delays the judge often, a forged clock is off in every call. Where the two
        # disagree the judge's clock has counted, so that nothing was gained in the others.
        excess = min(self.excess_us)
        if typical < floor_us:
            text = f"{typical:.3g} us a call, but physics asks for {floor_us:.3g} us at least"
            return Fault(Reason.IMPOSSIBLE_TIME, text)
        if excess > slack_us(typical):
            text = (
                f"its own clock says {typical:.4g} us a call, the judge's {excess:.4g} us more "
                "than that and the handshake"
            )
            return Fault(Reason.CLOCK_DISAGREES, text)
        return None

    def close(self) -> None:
        """End the worker."""
        self.worker.close()

    def _fault_of(self, report: CallReport, workload: Workload) -> Fault | None:
        where = f"on {describe(workload)}"
        if report.code != 0:
            return Fault(Reason.ERROR_CODE, f"the kernel returned {report.code}; {where}")
        if report.stray_threads > 0:
            text = f"{report.stray_threads} threads or processes were left after the call; {where}"
            return Fault(Reason.STRAY_THREADS, text)
        if report.mxcsr_changed:
            text = f"the call changed the rounding or denormal mode; {where}"
            return Fault(Reason.FLOATING_POINT_STATE, text)
        if report.team < self.bench.threads:
            text = f"it runs on {report.team} of {self.bench.threads} threads; {where}"
            return Fault(Reason.NOT_PARALLEL, text)
        return None

    def _prepare_workspace(self, workload: Workload) -> int | Fault:
        """Bytes of scratch for a workload; a larger arena means a new worker."""
        if workload in self._workspace:
            return self._workspace[workload]
        integers, doubles = scalar_words(self.bench.signature, workload)
        nbytes = self.worker.workspace_bytes(integers, doubles)
        if isinstance(nbytes, Failure):
            return Fault(nbytes.reason, f"{nbytes.detail}; asking for workspace")
        if not 0 <= nbytes <= self.bench.limits.memory_bytes:
            text = f"it asks for {nbytes} bytes of workspace; on {describe(workload)}"
            return Fault(Reason.OUT_OF_MEMORY, text)
        if nbytes and not self._maps(nbytes):
            self.worker.close()
            if not self.bench.workspaces.holds(nbytes):
                self.bench.workspaces.grow(nbytes)
            worker = _start(self.candidate, self.artifact, self.bench, self.pools)
            if isinstance(worker, Failure):
                return Fault(worker.reason, worker.detail)
            self.worker, self.scratch = worker, self.bench.workspaces.arena
        self._workspace[workload] = nbytes
        return nbytes

    def _maps(self, nbytes: int) -> bool:
        current = self.bench.workspaces.arena
        return self.scratch is current and self.bench.workspaces.holds(nbytes)


def arguments(
    signature: Signature, pool: Pool, case: int, slots: tuple[int, int], workspace_bytes: int
) -> tuple[Pointer | int | float, ...]:
    """The arguments of one call, in prototype order."""
    workload = pool.workloads[case]
    inputs = pool.input_slots[slots[0]]
    outputs = pool.output_slots[case][slots[1]]
    pointers = [Pointer(pool.inputs.name, place.offset) for place in inputs]
    pointers += [Pointer(pool.outputs.name, place.offset) for place in outputs]
    dimensions = [workload.sizes[name] for name in signature.dimensions]
    values = scalar_values(signature.scalars, workload.scalars)
    scratch: Pointer | int = Pointer("workspace", 0) if workspace_bytes else 0
    return (*pointers, *dimensions, *values, 0, scratch, workspace_bytes, 0)


def scalar_values(
    scalars: Sequence[ScalarArgument], values: Mapping[str, Scalar]
) -> tuple[int | float, ...]:
    """Scalars as they are passed: `double`, or an integer."""
    return tuple(
        float(values[s.name]) if s.kind == "float" else int(values[s.name]) for s in scalars
    )


def scalar_words(signature: Signature, workload: Workload) -> tuple[list[int], list[float]]:
    """Dimensions and scalars as integer and floating arguments of `ENTRY_workspace`."""
    integers = [workload.sizes[name] for name in signature.dimensions]
    doubles: list[float] = []
    for value in scalar_values(signature.scalars, workload.scalars):
        if isinstance(value, float):
            doubles.append(value)
        else:
            integers.append(value)
    return integers, doubles


def rejected(fault: Fault, stage: Stage) -> Rejected:
    """A fault as a verdict; what concerns loading is of the stage `load`."""
    return Rejected(
        Stage.LOAD if fault.reason in _LOADING else stage, fault.reason, fault.diagnostic
    )


def slack_us(elapsed_us: float) -> float:
    """How far the judge's clock may be from the timed process's own: waking up takes a while."""
    return max(_SLACK_US, _SLACK_SHARE * elapsed_us)


def agreed_us(report: CallReport, overhead_us: float) -> float:
    """The timed process's finer clock where the judge's agrees, else the judge's."""
    bracket = report.bracket_us - overhead_us
    agree = bracket - report.elapsed_us <= slack_us(report.elapsed_us)
    return report.elapsed_us if agree else bracket


def _failed(failure: Failure, workload: Workload) -> Fault:
    """A call that did not come back; inputs are mapped read-only, so writing one is a fault."""
    wrote = failure.reason is Reason.CRASH and "read-only arena" in failure.detail
    reason = Reason.WROTE_INPUT if wrote else failure.reason
    return Fault(reason, f"{failure.detail.rstrip('. ')}; on {describe(workload)}")


def _fickle(workload: Workload) -> Fault:
    text = (
        "a timed call was wrong although a repetition on the same inputs was right: a race, or a "
        f"kernel that behaves when watched; on {describe(workload)}"
    )
    return Fault(Reason.WRONG_RESULT, text)


def _start(
    candidate: Candidate, artifact: Artifact, bench: Bench, pools: Sequence[Pool]
) -> Worker | Failure:
    arenas = [arena for pool in pools for arena in pool.arenas]
    arenas += bench.workspaces.arenas()
    return Worker.start(
        artifact.path, candidate.entry, bench.runtime(artifact), arenas, bench.threads, bench.limits
    )
