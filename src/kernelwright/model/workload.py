"""A workload: a problem at concrete sizes, one dtype, one input distribution."""

from dataclasses import dataclass, field
from typing import Literal

from kernelwright.model.dtypes import Dtype
from kernelwright.model.mapping import FrozenMap

Tier = Literal["check", "bench", "heldout"]
Scalar = float | int | bool


@dataclass(frozen=True, slots=True)
class Workload:
    """What one call computes, apart from the values in its inputs."""

    problem: str
    dtype: Dtype
    sizes: FrozenMap[str, int]
    """Every dimension name (and scalars that are dimensions) to its size."""
    scalars: FrozenMap[str, Scalar] = field(default_factory=FrozenMap[str, Scalar])
    """Every scalar parameter to its value."""
    distribution: str = "normal"
    tier: Tier = "bench"

    def label(self) -> str:
        """Short text for people: `T=4096,H=1024 f32 normal`."""
        sizes = ",".join(f"{k}={v}" for k, v in self.sizes.items())
        return f"{sizes} {self.dtype} {self.distribution}"
