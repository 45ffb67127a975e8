"""The judge of one problem, dtype and set of sizes on one machine."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import numpy as np

from kernelwright.build import Artifact, CppBuilder
from kernelwright.errors import ProblemError
from kernelwright.evaluation import acceptance, screening
from kernelwright.evaluation.baselines import BaselineReport, BaselineRole, report_of
from kernelwright.evaluation.expected import Equivalence
from kernelwright.evaluation.heldout import examine
from kernelwright.evaluation.oracle_client import OracleClient
from kernelwright.evaluation.pool import Pool, bytes_per_set, make_pool
from kernelwright.evaluation.roof import BenchCost, RoofReader
from kernelwright.evaluation.rounds import Role, Samples, one_round
from kernelwright.evaluation.screening import ScreenReport
from kernelwright.evaluation.session import Bench, Session, Workspaces, default_runtime
from kernelwright.evaluation.settings import JudgeSettings
from kernelwright.evaluation.wire import Json, workload_from_json, workload_to_json
from kernelwright.expr import Program, from_json
from kernelwright.model import (
    Bound,
    Candidate,
    Dtype,
    FrozenMap,
    Machine,
    PublicProblem,
    Rejected,
    Verdict,
    Workload,
    WorkloadResult,
)
from kernelwright.numerics import median_estimate
from kernelwright.problems import ProblemReference, public_from_json
from kernelwright.roofline import floor_us

Told = Callable[[str], None]


class Judge:
    """Decides what is right and how fast it is.

    Open it before use (`with judge.open():`). Never runs candidate code nor the problem's file
    itself; does not import torch.

    Args:
        reference: the problem.
        dtype: workload dtype; None: the first that the problem declares.
        sizes: bench sizes; None: the first that the problem declares for CPUs.
        machine: where this runs.
        builder: the builder whose artifacts it will get.
        seed: decides the sizes of the check workloads; None: drawn. Inputs, orders and held-out
            sizes are drawn from the system's entropy whatever the seed.
        settings: how thorough to be.
    """

    public: PublicProblem
    program: Program | None
    """The reference in the expression form; None when it is outside it."""
    unmatched_reason: str | None
    """Why there is no program."""
    bench: Workload
    cost: BenchCost
    baseline_names: tuple[str, ...]
    has_equivalence: bool
    """The problem judges (some of) its outputs itself."""
    checks: Pool
    pool: Pool
    """Of the bench workload."""

    def __init__(
        self,
        reference: ProblemReference,
        dtype: Dtype | str | None,
        sizes: Mapping[str, int] | None,
        machine: Machine,
        builder: CppBuilder,
        seed: int | None = None,
        settings: JudgeSettings | None = None,
    ) -> None:
        self.reference = reference
        self.machine = machine
        self.builder = builder
        self.settings = settings or JudgeSettings()
        self.rng = np.random.default_rng(secrets.randbits(128))
        self.absent: dict[str, str] = {}
        """Baselines that could not run, and why."""
        self.baseline_reports: tuple[BaselineReport, ...] = ()
        self._asked = (None if dtype is None else str(dtype), sizes)
        self._seed = secrets.randbits(32) if seed is None else seed
        self._ready: list[str] | None = None
        self._champion: Session | None = None
        self._heldout_checked = 0
        self._workspaces = Workspaces()
        self._open = False

    # Opening and closing -------------------------------------------------------------------------

    def open(self, progress: Told | None = None) -> Judge:
        """Start the oracle, load the problem, make all secret inputs and expected values.

        Args:
            progress: told what happens.

        Raises:
            ProblemError: the problem is not usable as asked for.
            HarnessError: our own machinery failed.
        """
        tell = progress or _silent
        self._open = True
        try:
            tell("starting the oracle")
            self.oracle = OracleClient(self.machine.cores)
            dtype, sizes = self._asked
            self._take(self.oracle.load(self.reference, dtype, sizes, self._seed))
            tell("computing expected values")
            self._make_pools()
            self.roof = RoofReader(self.machine)
            self.oracle.freeze()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """End all processes and give the memory back; safe to call twice."""
        if not self._open:
            return
        self._open = False
        for name in ("_champion", "roof", "oracle", "checks", "pool", "_workspaces"):
            part = getattr(self, name, None)
            if part is not None:
                part.close()

    def __enter__(self) -> Judge:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # What others ask -----------------------------------------------------------------------------

    @property
    def dtype(self) -> Dtype:
        """Of the bench workload."""
        return self.bench.dtype

    @property
    def sizes(self) -> FrozenMap[str, int]:
        """Of the bench workload."""
        return self.bench.sizes

    def verified(self) -> dict[str, Any]:
        """How an accepted result was verified, as plain data."""
        used = [self.checks.workloads[n] for n in self.checks.usable()]
        return {
            "workloads": len(used),
            "distributions": sorted({w.distribution for w in used}),
            "heldout": self._heldout_checked,
            "refused": sorted(set(self.checks.refused.values())),
        }

    def admit(self) -> list[str]:
        """Findings of the problem's admission gate; empty when it is sound."""
        return self.oracle.admit(str(self.dtype))

    def screen(
        self,
        candidate: Candidate,
        artifact: Artifact,
        champion: tuple[Candidate, Artifact] | None = None,
        seconds: float | None = None,
    ) -> ScreenReport:
        """Check a candidate on all check workloads and rank it against the champion."""
        session = self.session(candidate, artifact)
        if isinstance(session, Rejected):
            return ScreenReport(session)
        try:
            self._shuffle()
            rival = None if champion is None else self._champion_session(*champion)
            budget = self.settings.screen_seconds if seconds is None else seconds
            report = screening.screen(self, session, rival, budget)
            if report.champion_fault is not None:
                self._drop_champion()
            return report
        finally:
            session.close()

    def accept(
        self,
        candidate: Candidate,
        artifact: Artifact,
        own: tuple[Candidate, Artifact] | None = None,
    ) -> Verdict:
        """Judge a candidate thoroughly, beside every baseline and the user's own kernel."""
        with self._pair(candidate, artifact, own) as (session, other):
            if isinstance(session, Rejected):
                return session
            return acceptance.accept(self, session, other)

    def duel(
        self,
        candidate: Candidate,
        artifact: Artifact,
        rival: tuple[Candidate, Artifact] | None = None,
    ) -> ScreenReport:
        """Two kernels in the same fully verified rounds, until their ratio is precise."""
        with self._pair(candidate, artifact, rival) as (session, other):
            if isinstance(session, Rejected):
                return ScreenReport(session)
            return acceptance.duel(self, session, other)

    def time_baselines(self, rounds: int = 12) -> dict[str, float]:
        """Median microseconds of every baseline that runs here; `baseline_reports` says more."""
        roles = self.baseline_roles()
        samples = Samples({role.name: [] for role in roles})
        runners: list[Role] = [*roles]
        for number in range(rounds + 2 if roles else 0):
            one_round(runners, self.pool, self.rng, samples, reload=False)
            if number == 1:  # the first two rounds fill the allocator
                samples = Samples({role.name: [] for role in roles})
                for role in roles:
                    role.faults.clear()
        self.baseline_reports = tuple(
            report_of(role, median_estimate(samples.by_role[role.name])) for role in roles
        )
        return {report.name: report.time_us.median for report in self.baseline_reports}

    # What screening and acceptance share ---------------------------------------------------------

    @property
    def flush_bytes(self) -> int:
        """What the timed process flushes right before a call."""
        return int(self.settings.flush_factor * self.machine.l3_bytes)

    @property
    def floor_us(self) -> float:
        """A time that no cold call is under."""
        m = self.machine
        best = max(m.read_gbs, m.copy_gbs, m.triad_gbs, m.write_gbs)
        return floor_us(self.cost.bytes_read, self.cost.bytes_written, best, m.l3_bytes)

    def live_bound(self) -> Bound:
        """The bound at this moment."""
        return self.roof.bound(self.cost)

    def session(self, candidate: Candidate, artifact: Artifact, *more: Pool) -> Session | Rejected:
        """A fresh worker that maps all pools."""
        return Session.start(candidate, artifact, self._bench(), (self.checks, self.pool, *more))

    def renew(self, pool: Pool, count: int | None = None) -> None:
        """Fresh inputs and expected values for the first `count` cases (None: all)."""
        if pool.fresh and count is None:
            return
        number = len(pool.workloads) if count is None else min(count, len(pool.workloads))
        with self.oracle.running():
            pool.fill(self.oracle, [secrets.randbits(48) for _ in range(number)])

    def baseline_roles(self) -> list[BaselineRole]:
        """Baselines that run here, each compiled and warmed up."""
        if self._ready is None:
            asked = self.settings.baselines
            wanted = [n for n in self.baseline_names if asked is None or n in asked]
            self._ready = [name for name in wanted if self._prepare(name)]
        return [
            BaselineRole(name, self.oracle, self.pool, self.flush_bytes, self.rng, self.equivalence)
            for name in self._ready
        ]

    def equivalence(self, pool: Pool, case: int, out: int) -> Equivalence | None:
        """Asks the oracle about outputs that the problem judges itself."""
        if not self.has_equivalence:
            return None
        places = pool.secrets[case]
        payload: Json = {
            "workload": workload_to_json(pool.workloads[case]),
            "secret": pool.secret.name,
            "arena": pool.outputs.name,
            "inputs": [place.to_json() for place in places.inputs],
            "expected": [place.to_json() for place in places.expected],
            "outputs": [place.to_json() for place in pool.output_slots[case][out]],
        }
        return lambda: self.oracle.equivalent(payload)

    def heldout(
        self, session: Session, race: acceptance.Race
    ) -> tuple[WorkloadResult, ...] | Rejected:
        """Check secret sizes; see `heldout.examine`."""
        checked, result = examine(self, session, race)
        if not isinstance(result, Rejected):
            self._heldout_checked = checked
        return result

    def lose(self, name: str, why: str) -> None:
        """A baseline failed on the way."""
        self.absent[name] = why

    # Inside --------------------------------------------------------------------------------------

    def _take(self, reply: Json) -> None:
        self.public = public_from_json(reply["public"])
        self.program = None if reply["program"] is None else from_json(reply["program"])
        self.unmatched_reason = reply["unmatched"]
        self.bench = workload_from_json(reply["bench"])
        self.cost = BenchCost(
            int(reply["bytes_read"]), int(reply["bytes_written"]), float(reply["operations"] or 0)
        )
        self.baseline_names = tuple(reply["baselines"])
        self.has_equivalence = bool(reply["equivalence"])
        self._check_workloads = [workload_from_json(w) for w in reply["checks"]]
        require_known(self.settings.baselines or (), self.baseline_names)

    def _make_pools(self) -> None:
        settings, signature = self.settings, self.public.signature
        self.checks = make_pool(
            "check", signature, self._check_workloads, 2, shared=False, oracle=self.oracle
        )
        self.renew(self.checks)
        each = bytes_per_set(signature, self.bench)
        count = max(2, min(settings.secret_sets, settings.memory_bytes // max(each, 1)))
        self.pool = make_pool(
            "bench", signature, [self.bench] * count, settings.slots, shared=True,
            oracle=self.oracle,
        )  # fmt: skip
        self.renew(self.pool)
        for pool in (self.checks, self.pool):
            if not pool.usable():
                raise ProblemError(
                    f"the problem '{self.public.name}' cannot be judged at these sizes: "
                    f"{next(iter(pool.refused.values()), 'it has no check workloads')}"
                )

    def _bench(self) -> Bench:
        return Bench(
            self.public.signature,
            self.machine.cores,
            self.settings.limits,
            self._workspaces,
            default_runtime,
            self.equivalence,
        )

    def _prepare(self, name: str) -> bool:
        workload = workload_to_json(self.bench)
        inputs = self.pool.input_slots[0]
        why = self.oracle.prepare(name, workload, self.pool.inputs.name, inputs)
        if why is not None:
            self.absent[name] = why
        return why is None

    def _shuffle(self) -> None:
        """Give secret sets other addresses; different ones in all slots as far as they go."""
        usable, slots = self.pool.usable(), len(self.pool.holds)
        order = [int(case) for case in self.rng.permutation(usable)]
        for slot in range(slots):
            case = order[slot % len(order)]
            if self.pool.holds[slot] != case:
                self.pool.load(case, slot)

    def _champion_session(self, candidate: Candidate, artifact: Artifact) -> Session | None:
        """The champion's worker, kept between screenings; None when it does not start."""
        current = self._champion
        if current is None or current.artifact.key != artifact.key or not current.worker.alive:
            self._drop_champion()
            fresh = self.session(candidate, artifact)
            if isinstance(fresh, Rejected):
                return None
            self._champion = fresh
        return self._champion

    def _drop_champion(self) -> None:
        if self._champion is not None:
            self._champion.close()
            self._champion = None

    @contextmanager
    def _pair(
        self, candidate: Candidate, artifact: Artifact, other: tuple[Candidate, Artifact] | None
    ) -> Generator[tuple[Session | Rejected, Session | None]]:
        """Sessions of a candidate and, where it starts, of another kernel; the champion is gone."""
        self._drop_champion()
        first = self.session(candidate, artifact)
        second = None if other is None else self.session(*other)
        if isinstance(second, Rejected):
            self.lose(acceptance.OWN, second.diagnostic)
            second = None
        try:
            yield first, second
        finally:
            for session in (first, second):
                if isinstance(session, Session):
                    session.close()


def require_known(asked: Sequence[str], names: Sequence[str]) -> None:
    """Refuse baselines that the problem does not have.

    Raises:
        ProblemError: naming the first of them and those that there are.
    """
    for name in asked:
        if name not in names:
            raise ProblemError(f"the problem has no baseline '{name}', only {', '.join(names)}")


def _silent(text: str) -> None:
    """Progress that goes nowhere."""
