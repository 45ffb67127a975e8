"""Where calls are made: on this machine's processors, or on its NVIDIA GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from kernelwright.build import solo_host
from kernelwright.cuda_driver import device_files, library_files
from kernelwright.diagnosis import Reader, reader
from kernelwright.errors import MachineError
from kernelwright.evaluation.clocks import SLACK_US
from kernelwright.evaluation.pool import MakeArena
from kernelwright.evaluation.roof import BenchCost, RoofReader
from kernelwright.execution import Arena, DeviceArena
from kernelwright.machine import Evict, evictor, flush_bytes
from kernelwright.model import Bound, Gpu, Host, Machine, Target, fastest_unit
from kernelwright.roofline import Rates, bound, datasheet_floor_us, floor_us, memory_rate

DEVICE_SLACK_US = 1000.0
"""What honest brackets of calls on a GPU may be longer than the call, beyond the handshake: in a
virtual machine 40 us as a rule and 400 at times. So there the bracket only rejects, where it is off
in every call; work beside the stream is found by the host (`worker/cuda_host.cu`)."""
_MORE_SETS = 3
_FILL_SHARE = 0.95
"""Of the probed rate of writing, that filling outputs is taken to reach: with all of it an honest
kernel with an output of 2 GiB looked 52 us late on an H200, where 50 us or 5 % are allowed."""
_SECRET_SHARE = 4
"""Of a GPU's memory that secret sets may take: references need more than they do."""


class Roof(Protocol):
    """Says what the machine reaches."""

    def read(self, cost: BenchCost) -> Rates:
        """Rates at this moment."""
        ...

    def bound(self, cost: BenchCost) -> Bound:
        """The bound at this moment."""
        ...

    def close(self) -> None:
        """End what it needs."""
        ...


@dataclass(frozen=True, slots=True)
class Ground:
    """What differs between targets for the judge."""

    target: Target
    threads: int
    """Of a kernel's team."""
    oracle_threads: int
    make_arena: MakeArena
    """Makes the memory that workers are lent."""
    throw_out: Evict | None
    """Evicts an array from the caches; None where that cannot be done."""
    flush_bytes: int
    """What is read right before every call of a kernel."""
    oracle_flush_bytes: int
    """The same before a baseline, whose intermediates lie in memory of its own."""
    slack_us: float
    """What honest handshakes differ by."""
    renews: bool
    """Whether every round of a race is in a new process: what a process happens to get of memory
    and processors makes it faster or slower than others, as long as it lives."""
    roof: Callable[[], Roof]
    floor_us: Callable[[int, int], float]
    """A time that no cold call is under, by bytes read and written."""
    secret_bytes: int | None = None
    """Device memory that secret sets may take; None: they lie in the judge's own."""
    more_sets: int = 1
    """Times the usual secret sets: where they are made quickly and workers start slowly."""
    fill_gbs: float | None = None
    """See `Bench`."""
    devices: tuple[Path, ...] = ()
    """Device files that the oracle opens."""
    libraries: tuple[Path, ...] = ()
    """Folders of libraries that it needs for them."""
    solo: Callable[[], Host | None] = lambda: None
    """The program that runs a kernel alone, for tools that look at it; None: there is none."""
    telemetry: Callable[[], Reader | None] = lambda: None
    """Reads the state of the device; None: it cannot be asked."""


def ground_of(target: Target, machine: Machine, flush_factor: float) -> Ground:
    """What the judge needs to know of a target.

    Args:
        target: `cpu` or `cuda`.
        machine: where it is.
        flush_factor: last-level caches to flush before a call.

    Raises:
        MachineError: there is no such device here.
    """
    return _gpu(machine, flush_factor) if target == "cuda" else _processors(machine, flush_factor)


def _processors(machine: Machine, factor: float) -> Ground:
    evict = evictor(machine.toolchains[0])
    best = max(machine.read_gbs, machine.copy_gbs, machine.triad_gbs, machine.write_gbs)
    return Ground(
        target="cpu",
        threads=machine.cores,
        oracle_threads=machine.cores,
        make_arena=Arena,
        throw_out=evict,
        flush_bytes=flush_bytes(machine, evict is not None, factor),
        oracle_flush_bytes=flush_bytes(machine, False, factor),
        slack_us=SLACK_US,
        renews=True,
        roof=lambda: RoofReader(machine),
        floor_us=lambda read, written: floor_us(read, written, best, machine.l3_bytes),
    )


def _gpu(machine: Machine, factor: float) -> Ground:
    gpu = machine.gpu
    if gpu is None:
        why = machine.missing.get("gpu", "no NVIDIA GPU")
        raise MachineError(f"the target cuda cannot be used here: {why}")
    flush = int(factor * gpu.l2_bytes)
    folders = dict.fromkeys(path.parent for path in library_files())
    return Ground(
        target="cuda",
        threads=1,
        oracle_threads=machine.cores,
        make_arena=DeviceArena,
        throw_out=None,
        flush_bytes=flush,
        oracle_flush_bytes=flush,
        slack_us=DEVICE_SLACK_US,
        renews=False,
        roof=lambda: GpuRoof(gpu),
        floor_us=lambda read, written: datasheet_floor_us(
            read, written, gpu.peak_gbs, gpu.l2_bytes
        ),
        secret_bytes=gpu.memory_bytes // _SECRET_SHARE,
        more_sets=_MORE_SETS,
        fill_gbs=_FILL_SHARE * gpu.write_gbs,
        devices=tuple(device_files()),
        libraries=tuple(folders),
        solo=lambda: solo_host(machine.toolchains, gpu.architecture),
        telemetry=reader,
    )


@dataclass(frozen=True, slots=True)
class GpuRoof:
    """The rates that were measured when the machine was probed: a GPU is nobody else's meanwhile.

    Reading, copying and writing differ, so the memory rate is that at the workload's own mix.
    """

    gpu: Gpu

    def read(self, cost: BenchCost) -> Rates:
        """Rates for a workload."""
        gpu = self.gpu
        rates = {"read": gpu.read_gbs, "copy": gpu.copy_gbs, "write": gpu.write_gbs}
        memory = memory_rate(cost.bytes_read, cost.bytes_written, rates)
        unit, gflops = fastest_unit(cost.unit, gpu.fma_gflops, gpu.bf16_gflops)
        return replace(memory, gflops=gflops, unit=unit)

    def bound(self, cost: BenchCost) -> Bound:
        """The bound of a workload."""
        return bound(cost.bytes_moved, cost.operations, self.read(cost))

    def close(self) -> None:
        """Nothing runs."""
