"""What judging needs before anything is asked: the oracle, the pools, the roof, the baselines."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from math import inf
from types import TracebackType
from typing import Self

import numpy as np

from kernelwright.build import Artifact, Builder
from kernelwright.errors import ProblemError
from kernelwright.evaluation.baselines import BaselineReport, BaselineRole
from kernelwright.evaluation.expected import Equivalence
from kernelwright.evaluation.oracle_client import OracleClient
from kernelwright.evaluation.pool import FEWEST_SETS, Pool
from kernelwright.evaluation.pool_making import bytes_per_set, make_pool
from kernelwright.evaluation.prepared import PreparedMemory, static_bytes
from kernelwright.evaluation.roof import BenchCost
from kernelwright.evaluation.session import Bench, Session
from kernelwright.evaluation.settings import JudgeSettings
from kernelwright.evaluation.targets import ground_of
from kernelwright.evaluation.wire import Json, workload_from_json, workload_to_json
from kernelwright.evaluation.workspace import Workspaces
from kernelwright.expr import Program, from_json
from kernelwright.model import (
    Bound,
    Candidate,
    Dtype,
    FrozenMap,
    Machine,
    PublicProblem,
    Rejected,
    Target,
    Workload,
)
from kernelwright.problems import ProblemReference, public_from_json

Told = Callable[[str], None]
_MANY_BYTES = 1 << 30
"""What more secret sets than the fewest may take; each spares a restart of workers."""
ENOUGH_SETS = 8
"""Secret sets beyond which no more are made between screenings."""
_FILL_SECONDS = 2.0
"""Time after which no more secret sets than the fewest are made."""
_TOP_UP_SECONDS = 1.0
"""What one more set may take between screenings: it spares a few starts of workers."""


class Preparation:
    """One problem, dtype and set of sizes on one machine, made ready to judge candidates on.

    Args:
        reference: the problem.
        dtype: workload dtype; None: the first that the problem declares.
        sizes: bench sizes; None: the first that the problem declares for the target.
        machine: where this runs.
        builder: the builder whose artifacts it will get.
        seed: decides the sizes of the check workloads; None: drawn. Inputs, orders and held-out
            sizes are drawn from the system's entropy whatever the seed.
        settings: how thorough to be.
        target: where kernels run.

    Raises:
        MachineError: the target is not there.
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
        builder: Builder,
        seed: int | None = None,
        settings: JudgeSettings | None = None,
        target: Target = "cpu",
    ) -> None:
        self.reference = reference
        self.machine = machine
        self.builder = builder
        self.settings = settings or JudgeSettings()
        self.ground = ground_of(target, machine, self.settings.flush_factor)
        self.rng = np.random.default_rng(secrets.randbits(128))
        self.absent: dict[str, str] = {}
        """Baselines that could not run, and why."""
        self.heldout_faults: list[str] = []
        """What was wrong at held-out sizes, with the sizes: for the end of a campaign."""
        self.baseline_reports: tuple[BaselineReport, ...] = ()
        self._asked = (None if dtype is None else str(dtype), sizes)
        self._seed = secrets.randbits(32) if seed is None else seed
        self._ready: list[str] | None = None
        self._wrong: dict[str, str] = {}
        self._workspaces = Workspaces(make=self.ground.make_arena)
        self._prepared = PreparedMemory(self.ground.make_arena)
        self._open = False

    # Opening and closing -------------------------------------------------------------------------

    def open(self, progress: Told | None = None) -> Self:
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
            self.oracle = OracleClient(
                self.ground.oracle_threads, self.reference, self.ground.devices,
                self.ground.libraries,
            )  # fmt: skip
            dtype, sizes = self._asked
            target = self.ground.target
            self._take(self.oracle.load(self.reference, dtype, sizes, self._seed, target))
            tell("computing expected values")
            self._make_pools()
            self.roof = self.ground.roof()
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
        for name in ("roof", "oracle", "checks", "pool", "_workspaces", "_prepared"):
            part = getattr(self, name, None)
            if part is not None:
                part.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def dtype(self) -> Dtype:
        """Of the bench workload."""
        return self.bench.dtype

    @property
    def sizes(self) -> FrozenMap[str, int]:
        """Of the bench workload."""
        return self.bench.sizes

    # What screening and acceptance share ---------------------------------------------------------

    @property
    def oracle_flush_bytes(self) -> int:
        """What the oracle flushes: the intermediates of a baseline lie in memory of its own."""
        return self.ground.oracle_flush_bytes

    def floor_us(self, session: Session) -> float:
        """A time that no cold call is under: what was prepared may be all that it reads of weights.

        Args:
            session: of the kernel that is called.
        """
        read = self.cost.bytes_read
        packed = session.needs.prepared.get(self.bench, 0)
        if packed:
            read -= max(0, static_bytes(self.public.signature, self.bench) - packed)
        return self.ground.floor_us(max(0, read), self.cost.bytes_written)

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
            seconds = _FILL_SECONDS if pool.shared else None
            pool.fill(self.oracle, [secrets.randbits(48) for _ in range(number)], seconds)

    def top_up(self) -> None:
        """One more secret set, up to a few: each spares screenings to come restarts of workers."""
        if len(self.pool.cases) < ENOUGH_SETS and self.pool.set_seconds <= _TOP_UP_SECONDS:
            with self.oracle.running():
                self.pool.extend(self.oracle, secrets.randbits(48))

    def baseline_roles(self) -> list[BaselineRole]:
        """Baselines that run here, each compiled and warmed up."""
        if self._ready is None:
            asked = self.settings.baselines
            wanted = [
                name
                for name in self.baseline_names
                if (name not in self._further if asked is None else name in asked)
            ]
            self._ready = [name for name in wanted if self._prepare(name)]
        flush = self.oracle_flush_bytes
        roles: list[BaselineRole] = []
        for name in self._ready:
            role = BaselineRole(name, self.oracle, self.pool, flush, self.rng, self.equivalence)
            if self._wrong[name]:
                role.passes, role.error = False, inf
                role.diagnostic = self._wrong[name]
            roles.append(role)
        return roles

    def equivalence(self, pool: Pool, case: int, out: int) -> Equivalence | None:
        """Asks the oracle about outputs that the problem judges itself."""
        if not self.has_equivalence or pool.secret.mirrored:
            return None  # on a device the oracle itself asks the problem
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
            int(reply["bytes_read"]), int(reply["bytes_written"]),
            float(reply["operations"] or 0), reply["unit"],
        )  # fmt: skip
        self.baseline_names = tuple(reply["baselines"])
        self._further = frozenset[str](reply["further"])
        self.has_equivalence = bool(reply["equivalence"])
        self._check_workloads = [workload_from_json(w) for w in reply["checks"]]
        require_known(self.settings.baselines or (), self.baseline_names)

    def _make_pools(self) -> None:
        settings, signature = self.settings, self.public.signature
        self.checks = make_pool(
            "check", signature, self._check_workloads, 2, shared=False, oracle=self.oracle,
            arena=self.ground.make_arena,
        )  # fmt: skip
        self.renew(self.checks)
        each = bytes_per_set(signature, self.bench, self.ground.secret_bytes is None)
        most = self.ground.secret_bytes or settings.memory_bytes
        many = self.ground.secret_bytes or min(most, _MANY_BYTES)
        few = min(FEWEST_SETS, most // each)
        sets = settings.secret_sets * self.ground.more_sets
        count = max(2, few, min(sets, many // each))
        self.pool = make_pool(
            "bench", signature, [self.bench] * count, settings.slots, shared=True,
            oracle=self.oracle, arena=self.ground.make_arena,
        )  # fmt: skip
        self.pool.throw_out = self.ground.throw_out
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
            self.ground.threads,
            self.settings.limits,
            self.ground.flush_bytes,
            self.ground.slack_us,
            self._workspaces,
            self._prepared,
            lambda artifact: self.builder.host(artifact, self.public.signature, self.dtype),
            self.equivalence,
            self.ground.fill_gbs,
        )

    def _prepare(self, name: str) -> bool:
        workload = workload_to_json(self.bench)
        arena, inputs = self.pool.lay_before_oracle(self.pool.usable()[0], 0)
        why = self.oracle.prepare(name, workload, arena, inputs)
        if why is not None:
            self.absent[name] = why
        else:
            self._wrong[name] = self.oracle.wrong(name, str(self.bench.dtype))
        return why is None


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
