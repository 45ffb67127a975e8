"""What rules look at."""

from dataclasses import dataclass

from kernelwright.model import Gpu, KernelFacts, Limit, Target, Workload


@dataclass(frozen=True, slots=True)
class Situation:
    """A kernel on one workload, with the least that it must do and what the machine reaches."""

    target: Target
    workload: Workload
    time_us: float
    bytes_moved: int
    """Necessary ones."""
    operations: float
    memory_us: float
    """What the necessary bytes take at the measured rate."""
    compute_us: float
    unit: str
    """`fma`, or products that matrix units make, such as `bf16 products`."""
    kernels: tuple[KernelFacts, ...]
    """Longest first."""
    gpu: Gpu | None = None
    vector_bits: int = 0
    """Of the processor."""

    @property
    def memory_share(self) -> float:
        """Of the memory's rate."""
        return self.memory_us / self.time_us if self.time_us > 0 else 0.0

    @property
    def compute_share(self) -> float:
        """Of the arithmetic's rate."""
        return self.compute_us / self.time_us if self.time_us > 0 else 0.0

    @property
    def slack(self) -> float:
        """What neither explains."""
        return max(0.0, 1 - max(self.memory_share, self.compute_share))


@dataclass(frozen=True, slots=True)
class Hint:
    """A finding before it has its moves."""

    limit: Limit
    weight: float
    sentence: str
    evidence: dict[str, float]
