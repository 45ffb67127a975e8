"""Baselines: timed in the oracle's process, and judged like candidates."""

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from kernelwright.evaluation.expected import Equivalence, Fault
from kernelwright.evaluation.oracle_client import OracleClient
from kernelwright.evaluation.pool import Pool
from kernelwright.evaluation.wire import workload_to_json
from kernelwright.model import Estimate

COMPILED = ("compile", "max-autotune")
"""Baselines that compile for every size."""
_VERIFY_AGAIN = 0.2
"""Share of a baseline's later calls that are verified; its first on every input set always is."""


@dataclass(slots=True)
class BaselineRole:
    """One baseline on the bench workload."""

    name: str
    oracle: OracleClient
    pool: Pool
    flush_bytes: int
    rng: np.random.Generator
    equivalence: Callable[[Pool, int, int], Equivalence | None]
    error: float = 0.0
    """Largest error so far, in tolerance units."""
    passes: bool = True
    diagnostic: str = ""
    """What is wrong with its results, if they fail the check."""
    faults: list[int] = field(default_factory=list[int])
    """Page faults of every timed call."""
    prepare_us: list[float] = field(default_factory=list[float])
    """What packing the static inputs took, where it packs them; once for each input set."""
    _seen: set[int] = field(default_factory=set[int])

    def met(self, case: int) -> bool:
        """A baseline is ours: it remembers nothing."""
        del case
        return False

    def timed(self, case: int, slots: tuple[int, int]) -> float | Fault:
        """One call; its results are verified on each input set, and now and then again."""
        arena, inputs = self.pool.lay_before_oracle(case, slots[0])
        workload = workload_to_json(self.pool.workloads[case])
        self.pool.evict(case, slots)
        report = self.oracle.timed(self.name, workload, arena, inputs, self.flush_bytes)
        self.faults.append(report.minor_faults + report.major_faults)
        if case not in self._seen or self.rng.random() < _VERIFY_AGAIN:
            self._verify(case, slots[1])
        # the oracle is ours: its own clock needs no second opinion, and a bracket around an
        # interpreter that wakes with cold caches would be too long
        return report.elapsed_us

    def _verify(self, case: int, out: int) -> None:
        arena, places = self.pool.place_for_oracle(case, out, self)
        packed_us = self.oracle.collect(arena, places)
        if packed_us is not None:
            self.prepare_us.append(packed_us)
        if case in self._seen and self.pool.check_fast(case, out):
            return
        self._seen.add(case)
        equivalence = self.equivalence(self.pool, case, out)
        checked = self.pool.check_fully(case, out, equivalence, diagnose=not self.diagnostic)
        self.error = max(self.error, checked.error)
        if checked.fault is not None:
            self.passes, self.diagnostic = False, self.diagnostic or checked.fault.diagnostic


@dataclass(frozen=True, slots=True)
class BaselineReport:
    """What the baselines take before any candidate is known."""

    name: str
    time_us: Estimate
    passes_check: bool
    error: float
    """Largest error in units of the tolerance."""
    diagnostic: str
    page_faults: float
    """Median per timed call; near 0, or the allocator is being measured."""


def report_of(role: BaselineRole, time_us: Estimate) -> BaselineReport:
    """A role that ran, as a report."""
    return BaselineReport(
        role.name, time_us, role.passes, role.error, role.diagnostic, float(median(role.faults))
    )
