"""Times, intervals and what they are compared with."""

from dataclasses import dataclass, field
from typing import Literal

from kernelwright.model.mapping import FrozenMap
from kernelwright.model.workload import Workload


@dataclass(frozen=True, slots=True)
class Estimate:
    """A median with a confidence interval (95 %).

    Ratios of an acceptance hold at every look; times, and ratios of a number of rounds fixed
    beforehand, at that number.
    """

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Bound:
    """The least time that this machine's measured limits allow for a workload."""

    median_us: float
    limiter: str
    """`memory` or `compute`."""
    bytes_moved: int
    """Provably necessary bytes: each input read once, each output written once."""
    operations: float
    """Arithmetic operations (a fused multiply-add counts 2)."""
    roof: str
    """The probe that set it, such as `triad 2:1`."""
    roof_rate: float
    """What that probe reached in the same rounds: GB/s (memory) or GFLOP/s (compute)."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A baseline's time on the same workload, in the same rounds."""

    name: str
    time_us: Estimate
    speedup: Estimate
    """Its time over the candidate's, paired by round: above 1 the candidate is faster."""
    passes_check: bool
    error: float
    """Largest error in units of the tolerance; at most 1 when it passes."""
    prepare_us: float | None = None
    """What its packing of static inputs took, outside of its time; None: it packs nothing."""


@dataclass(frozen=True, slots=True)
class Telemetry:
    """The state of a GPU, read after each round of calls; medians, unless it says otherwise."""

    readings: int
    clock_mhz: float
    """Of the multiprocessors."""
    lowest_clock_mhz: float
    most_clock_mhz: float
    """That the GPU ever has."""
    memory_clock_mhz: float
    power_w: float
    temperature_c: float
    """Highest."""
    throttling: FrozenMap[str, float] = field(default_factory=FrozenMap[str, float])
    """Share of the readings in which the GPU said that it was slowed down, by its reason."""

    @property
    def throttled(self) -> bool:
        """Whether more than a tenth of the readings say so, by one reason."""
        return any(share > 0.1 for share in self.throttling.values())


@dataclass(frozen=True, slots=True)
class WorkloadResult:
    """What was measured of one candidate on one workload."""

    workload: Workload
    time_us: Estimate
    rounds: int
    bound: Bound | None = None
    fraction_of_bound: float | None = None
    """Median over rounds of bound over time, each with its own round's roof."""
    peers: tuple[Peer, ...] = ()
    absent: FrozenMap[str, str] = field(default_factory=FrozenMap[str, str])
    """Baselines that could not run here, and why."""
    error: float = 0.0
    """Largest error in units of the tolerance; at most 1."""
    samples_us: FrozenMap[str, tuple[float, ...]] = field(
        default_factory=FrozenMap[str, tuple[float, ...]]
    )
    """Raw samples by role (`candidate`, baseline names, `roof`), in round order."""
    within_target: bool = True
    """False when the budget ended before the interval was within the target width."""
    collapsed: bool = False
    """At held-out sizes: slower than a baseline, and far slower than at the bench sizes."""
    prepare_us: float | None = None
    """What its packing of static inputs took, outside of its time; None: it packs nothing."""
    prepared_bytes: int = 0
    """What it packed them into."""
    telemetry: Telemetry | None = None
    """On a GPU whose driver tells."""

    @property
    def best_baseline(self) -> Peer | None:
        """The fastest that passes the check; where none does, the fastest (its error is shown)."""
        passing = [peer for peer in self.peers if peer.passes_check] or self.peers
        return min(passing, key=lambda peer: peer.time_us.median, default=None)


Outcome = Literal["faster", "slower", "undecided"]


@dataclass(frozen=True, slots=True)
class Claim:
    """What is said of a candidate against the best baseline, and how it came about."""

    baseline: str
    outcome: Outcome
    """`faster`: proved against every baseline, and found again in fresh processes."""
    accepted: Estimate
    """Speed-up in the first rounds of acceptance."""
    rounds: int
    confirmed: Estimate | None = None
    """Speed-up when the win was sought again; None where none was there to confirm."""
    confirming_rounds: int = 0
