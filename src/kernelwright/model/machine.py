"""Facts about the machine that results were measured on."""

import re
from dataclasses import dataclass, field
from typing import Literal

from kernelwright.model.mapping import FrozenMap

Target = Literal["cpu", "cuda"]
"""Where kernels run: the processors of this machine, or its NVIDIA GPU."""


def language_target(language: str) -> Target:
    """Where kernels of a language run: CUDA C++ on the GPU, everything else on processors."""
    return "cuda" if language == "cuda" else "cpu"


@dataclass(frozen=True, slots=True)
class Toolchain:
    """A compiler that built and ran an OpenMP probe here."""

    name: str
    """What the reserved tunable `CXX` calls it: `g++`, `clang++`, `clang++-19`."""
    path: str
    version: str
    openmp: str
    """The OpenMP runtime its binaries link: `libgomp` or `libomp`."""
    threads: int
    """Threads the probe ran on."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """An NVIDIA GPU: what its driver says, and what it reaches."""

    name: str
    """As the driver says, such as `NVIDIA H200`."""
    architecture: str
    """What to compile for, such as `sm_90a` (with the chip's own instructions)."""
    multiprocessors: int
    l2_bytes: int
    memory_bytes: int
    shared_bytes: int
    """Most shared memory that one block may ask for."""
    registers: int
    """32-bit registers of one multiprocessor."""
    threads: int
    """Most resident threads of one multiprocessor."""
    clock_mhz: float
    """Highest clock of the multiprocessors."""
    memory_clock_mhz: float
    bus_bits: int
    driver: str
    """Version of the driver."""
    peak_gbs: float
    """Memory rate of the datasheet: bus width times twice the memory clock."""
    peak_fma_gflops: float
    """fp32 rate of the datasheet: units times twice the highest clock."""
    read_gbs: float = 0.0
    write_gbs: float = 0.0
    copy_gbs: float = 0.0
    """Bytes read plus bytes written."""
    fma_gflops: float = 0.0
    bf16_gflops: float = 0.0
    """Of matrix instructions on bf16 operands, summed in fp32."""
    launch_us: float = 0.0
    """Between the starts of empty kernels that follow each other in one stream."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A device with its measured limits and its toolchains."""

    name: str
    """Short and file-name safe, such as `xeon-8259cl-2c`."""
    cpu: str
    cores: int
    """Cores that kernels and baselines use."""
    vector_bits: int
    """Widest vector unit: 128, 256 or 512."""
    isa: tuple[str, ...]
    """Instruction-set flags as the kernel reports them, such as `avx512f`, `avx2`, `fma`."""
    l1_bytes: int
    l2_bytes: int
    """Per core."""
    l3_bytes: int
    """The whole last level."""
    memory_bytes: int
    os: str
    toolchains: tuple[Toolchain, ...] = ()
    missing: FrozenMap[str, str] = field(default_factory=FrozenMap[str, str])
    """What was looked for and cannot be used, and why."""
    read_gbs: float = 0.0
    copy_gbs: float = 0.0
    """Streaming (non-temporal) copy, bytes read plus bytes written."""
    triad_gbs: float = 0.0
    """Streaming triad, two reads and one write."""
    write_gbs: float = 0.0
    fma_gflops: float = 0.0
    """fp32 fused multiply-add peak on all cores."""
    bf16_gflops: float = 0.0
    """Peak of bf16 products summed in fp32 on all cores; 0: no unit of its own for them."""
    isolation: str = "process"
    """`sandbox` or `process`."""
    versions: FrozenMap[str, str] = field(default_factory=FrozenMap[str, str])
    """`python`, `torch`, `kernelwright`, and so on."""
    gpu: Gpu | None = None
    """The first NVIDIA GPU; None where there is none."""

    def named(self, target: Target) -> str:
        """What results measured on a target are filed under: `xeon-8259cl-2c`, `nvidia-h200`."""
        if target == "cpu" or self.gpu is None:
            return self.name
        return "-".join(re.findall(r"[a-z0-9.]+", self.gpu.name.lower()))[:60]

    def arithmetic(self, unit: str) -> tuple[str, float]:
        """The unit that does operations of a kind fastest here, and its GFLOP/s.

        Args:
            unit: `fma`, or `bf16 products`, which multiply-adds do where no unit is faster.
        """
        if unit == "bf16 products" and self.bf16_gflops > self.fma_gflops:
            return unit, self.bf16_gflops
        return "fma", self.fma_gflops
