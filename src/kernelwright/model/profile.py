"""What limits a kernel, with the numbers that say so and the moves that usually help."""

from dataclasses import dataclass, field
from enum import StrEnum

from kernelwright.model.machine import Target
from kernelwright.model.mapping import FrozenMap
from kernelwright.model.workload import Workload


class Limit(StrEnum):
    """What a kernel waits for."""

    MEMORY = "memory"
    """The rate of memory, for what must be moved or for more than that."""
    COMPUTE = "compute"
    """The rate of arithmetic."""
    INSTRUCTIONS = "instructions"
    """The rate at which instructions start, most of which are not the arithmetic that is asked."""
    SCALAR = "scalar"
    """On a processor: arithmetic on single values, or on narrower vectors than there are."""
    LATENCY = "latency"
    """Answers of memory or of earlier instructions: too little is on its way at once."""
    OCCUPANCY = "occupancy"
    """Too few threads: the grid is small, or registers and shared memory leave room for few."""
    LAUNCH = "launch"
    """Launches take as long as what they start."""
    SYNCHRONISATION = "synchronisation"
    """Barriers."""
    ATOMICS = "atomics"
    """Additions to the same places."""
    BANK_CONFLICTS = "bank_conflicts"
    """Lanes of a warp meet in banks of shared memory."""
    UNCOALESCED = "uncoalesced"
    """Neighbouring lanes touch places that are far apart, so that most of a sector is unused."""
    NARROW = "narrow"
    """Memory is accessed in small words."""
    SPILLS = "spills"
    """Registers do not suffice: values travel to local memory, or to the stack, and back."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that limits a kernel."""

    limit: Limit
    weight: float
    """From 0 to 1: about the share of the time that it explains. For ranking, no measurement."""
    sentence: str
    evidence: FrozenMap[str, float]
    """Numbers by what they are, with their units: `registers a thread`, `memory rate, GB/s`."""
    moves: tuple[str, ...]
    """What usually helps, most promising first."""


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """What is known of one function: a `__global__` one, or the library's on a processor."""

    name: str
    launches: int = 0
    """In one call; 0: not known."""
    us: float = 0.0
    """All its launches of a call, each timed apart on the device; 0: not known."""
    grid: int = 0
    """Blocks of its largest launch; 0: not known."""
    block: int = 0
    """Threads of a block."""
    registers: int = 0
    """Of a thread."""
    shared_bytes: int = 0
    """Of a block, static and dynamic."""
    spill_bytes: int = 0
    """Stored and loaded, as the assembler counts them in its code."""
    blocks_per_multiprocessor: int = 0
    """That fit at once; 0: not known."""
    occupancy_limiter: str = ""
    """What leaves no room for one more: `registers`, `shared memory`, `threads` or `blocks`."""
    mix: FrozenMap[str, int] = field(default_factory=FrozenMap[str, int])
    """Instructions by kind, as they stand in the code; see `diagnosis.disassembly`."""
    counters: FrozenMap[str, float] = field(default_factory=FrozenMap[str, float])
    """Metrics of Nsight Compute by name, of the longest launch; empty where it was not asked."""


@dataclass(frozen=True, slots=True)
class Profile:
    """The diagnosis of a kernel on one workload: for reports, for search, for language models."""

    target: Target
    workload: Workload
    time_us: float
    """Median of verified calls on cold caches."""
    memory_share: float
    """Time that the necessary bytes take at the machine's measured rate, over `time_us`."""
    compute_share: float
    """The same for the necessary operations."""
    findings: tuple[Finding, ...]
    """Heaviest first; never empty."""
    kernels: tuple[KernelFacts, ...] = ()
    """Longest first."""
    energy_mj: float | None = None
    """Millijoules a call, by the GPU's counter over many calls in a row (warm caches); None: not
    known."""
    sources: tuple[str, ...] = ()
    """What was asked: `rates`, `ptxas`, `disassembly`, `launches`, `occupancy`, `counters`."""
    absent: FrozenMap[str, str] = field(default_factory=FrozenMap[str, str])
    """What could not be asked, and why."""

    @property
    def limit(self) -> Limit:
        """What it waits for most."""
        return self.findings[0].limit
