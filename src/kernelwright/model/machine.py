"""Facts about the machine that results were measured on."""

import re
from dataclasses import dataclass, field
from typing import Literal

from kernelwright.model.mapping import FrozenMap

Target = Literal["cpu", "cuda"]
"""Where kernels run: the processors of this machine, or its NVIDIA GPU."""


_PRODUCTS = "bf16 products"


def bf16_products(count: int) -> str:
    """The unit of multiply-adds that are each done by so many products of bf16."""
    return _PRODUCTS if count == 1 else f"{count} {_PRODUCTS}"


def products_of(unit: str) -> int:
    """How many products of bf16 a unit of `bf16_products` takes; 0: it does multiply-adds."""
    return int(unit.removesuffix(_PRODUCTS) or 1) if unit.endswith(_PRODUCTS) else 0


def fastest_unit(unit: str, fma_gflops: float, bf16_gflops: float) -> tuple[str, float]:
    """What does operations of a kind fastest, and its GFLOP/s.

    Args:
        unit: `fma`, `bf16 products`, or so many of them for each, such as `6 bf16 products`;
            multiply-adds do all of them where that is no slower.
        fma_gflops: of fp32 multiply-adds.
        bf16_gflops: of bf16 products; 0 where there is no unit for them.
    """
    count = products_of(unit)
    rate = bf16_gflops / count if count else 0.0
    return (unit, rate) if rate > fma_gflops else ("fma", fma_gflops)


def language_target(language: str) -> Target:
    """Where kernels of a language run: CUDA C++ and Triton on the GPU, others on processors."""
    return "cuda" if language in ("cuda", "triton") else "cpu"


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
            unit: as of `fastest_unit`.
        """
        return fastest_unit(unit, self.fma_gflops, self.bf16_gflops)
