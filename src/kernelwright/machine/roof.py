"""Live measurement of what memory and arithmetic reach, a few milliseconds at a time."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from kernelwright.build import CppBuilder, build_clock, build_runtime
from kernelwright.build.cache import user_cache_folder
from kernelwright.errors import HarnessError, MachineError
from kernelwright.execution import Arena, Call, Failure, Limits, Pointer, Worker
from kernelwright.machine.evict import evictor
from kernelwright.machine.facts import ask_for_matrix_unit
from kernelwright.model import (
    Candidate,
    FrozenMap,
    Host,
    Lineage,
    Rejected,
    Toolchain,
    TunableValue,
    bf16_products,
    products_of,
)
from kernelwright.roofline import Rates, memory_rate

SOURCE = Path(__file__).parent / "roof.cpp"
_MODES = {"read": (0, (0,)), "copy": (1, (0, 2)), "triad": (2, (0, 1, 2)), "write": (3, (2,))}
"""Mode number and which of the three arrays it moves."""
_KINDS = ("read", "copy", "triad", "write")
_STREAMS = (1, 2, 4, 8)
_ARITHMETIC = {"fma": 4, "bf16 products": 5}
"""Mode number of each kind of arithmetic."""
_ALIGN = 4096


_FILL_BYTES = 64 << 20
"""Read before the probes of a round: it displaces modified lines from private caches."""
_WAKE_BYTES = 8 << 20
"""Read by the team right before each probe: a core that slept wakes too slowly for so short one."""
_TUNED: dict[tuple[str, int], dict[str, tuple[int, int]]] = {}
"""By artifact and threads: streams and window of each probe."""


class RoofProbe:
    """A worker with our own streaming and multiply-add kernels; usable as a context manager.

    It is parked (stopped) except while it measures. Every measurement uses another part of
    large arrays, evicted before (or, where that cannot be done, arrays that are together six times
    the last level cache), so nothing is in a cache.

    Args:
        toolchains: Compilers; the first builds the kernels.
        threads: Size of the OpenMP team.
        l3_bytes: The whole last level cache.
        cache: Folder of the artifacts; default: the user's cache.

    Raises:
        MachineError: there is no compiler.
        HarnessError: the kernels do not build or do not start.
    """

    probe_ms = 1.5
    """About how long one streaming probe takes."""

    def __init__(
        self,
        toolchains: Sequence[Toolchain],
        threads: int,
        l3_bytes: int,
        cache: Path | None = None,
    ) -> None:
        folder = cache or user_cache_folder()
        builder = CppBuilder(toolchains[:1], folder)
        missing = builder.available()
        if missing:
            raise MachineError(missing)
        flags = "-O3 -march=native -ffp-contract=fast"
        if not ask_for_matrix_unit():
            flags += " -DNO_MATRIX_UNIT"
        values = FrozenMap[str, TunableValue]({"FLAGS": flags})
        source = SOURCE.read_text()
        candidate = Candidate("cpp", "kernel", source, values, "roof", Lineage("roof"))
        artifact = builder.build(candidate)
        if isinstance(artifact, Rejected):
            raise HarnessError(f"the roof kernels do not build: {artifact.diagnostic}")
        self._evict = evictor(toolchains[0])
        nbytes = 64 << 20 if self._evict else min(max(64 << 20, 2 * l3_bytes), 512 << 20)
        self._arenas = [Arena(name, nbytes) for name in ("a", "b", "c")]
        self._arenas.append(Arena("sink", 64 * max(64, threads)))
        self._nbytes = nbytes
        self._offset = 0
        self._threads = threads
        self._l3_bytes = l3_bytes
        for arena in self._arenas[:2]:
            arena.view().view(np.float32)[:] = 1.0
        runtime = build_runtime(toolchains[0], cache)
        host = Host((str(runtime),), build_clock(toolchains[0]))
        worker = Worker.start(artifact.path, "kernel", host, self._arenas, threads, Limits())
        if isinstance(worker, Failure):
            for arena in self._arenas:
                arena.close()
            raise HarnessError(f"the roof kernels do not start: {worker.detail}")
        self._worker = worker
        self._window = dict.fromkeys(_MODES, 8 << 20)
        self._streams = dict.fromkeys(_MODES, 4)
        self._tuned = _TUNED.setdefault((artifact.key, threads), {})
        self._steps = dict.fromkeys(_ARITHMETIC, 1 << 14)
        self._step_operations = {
            unit: self._checked(worker.workspace_bytes((mode,)))
            for unit, mode in _ARITHMETIC.items()
        }
        self._tune()
        worker.freeze()

    def _tune(self) -> None:
        """Find the number of streams and the window of each probe, once in a process of ours."""
        for kind in _MODES:
            if kind not in self._tuned:
                rates: dict[int, float] = {}
                for streams in _STREAMS:
                    self._streams[kind] = streams
                    rates[streams] = max(self._rate(kind) for _ in range(3))
                best = max(rates, key=rates.__getitem__)
                wanted = rates[best] * 1e6 * self.probe_ms / len(_MODES[kind][1])
                self._tuned[kind] = best, int(min(max(wanted, 4 << 20), self._nbytes // 2))
            self._streams[kind], self._window[kind] = self._tuned[kind]
        for unit in _ARITHMETIC:
            self.gflops(unit)

    @staticmethod
    def _checked(result: "int | Failure") -> int:
        if isinstance(result, Failure):
            raise HarnessError(f"the roof kernels failed: {result.detail}")
        return result

    def _run(self, offset: int, n: int, mode: int, streams: int) -> float:
        """Microseconds of one call."""
        arrays = tuple(Pointer(name, offset) for name in ("a", "b", "c"))
        call = Call((*arrays, Pointer("sink"), n, mode, streams, 0, 0, 0, 0))
        report = self._worker.call(call, flush_bytes=_WAKE_BYTES)
        if isinstance(report, Failure):
            raise HarnessError(f"the roof kernels failed: {report.detail}")
        return report.elapsed_us

    def _rate(self, kind: str) -> float:
        """GB/s of one streaming probe over the next part of the arrays."""
        window = self._window[kind] // _ALIGN * _ALIGN
        mode, used = _MODES[kind]
        if self._offset + window > self._nbytes:
            self._offset = 0
        if self._evict is not None:
            for place in used:
                self._evict(self._arenas[place].view(self._offset, window))
        us = self._run(self._offset, window // 4, mode, self._streams[kind])
        self._offset += window
        return len(used) * window / us / 1000

    def rates(self, kinds: Sequence[str] = _KINDS[:3]) -> dict[str, float]:
        """GB/s (bytes read plus bytes written) of each named probe, now; parks afterwards.

        The cache is flushed first, as before every timed call: dirty lines that others left would
        be written back at the probe's expense. The better of two turns counts.
        """
        self._worker.thaw()
        self._worker.null_call(_FILL_BYTES if self._evict else 2 * self._l3_bytes)
        turns = [{kind: self._rate(kind) for kind in kinds} for _ in range(2)]
        self._worker.freeze()
        return {kind: max(turn[kind] for turn in turns) for kind in kinds}

    def measure(self, read_bytes: int, write_bytes: int) -> Rates:
        """What memory gives a workload now, at its mix of reads and writes."""
        kinds = _KINDS if write_bytes > read_bytes else _KINDS[:3] if write_bytes else _KINDS[:1]
        return memory_rate(read_bytes, write_bytes, self.rates(kinds))

    def gflops(self, unit: str = "fma") -> float:
        """GFLOP/s of independent operations on all threads, now; parks afterwards.

        Args:
            unit: `fma` (fp32 multiply-adds), `bf16 products`, or so many of these for each
                operation (`6 bf16 products`); 0 where there is no such unit.
        """
        products = products_of(unit)
        unit = bf16_products(1) if products else unit
        each = self._step_operations[unit]
        if each == 0:
            return 0.0
        steps = self._steps[unit]
        self._worker.thaw()
        # the first turn brings the units up to speed
        us = min(self._run(0, steps, _ARITHMETIC[unit], 1) for _ in range(3))
        self._steps[unit] = int(min(max(steps * self.probe_ms * 1000 / us, 1 << 12), 1 << 24))
        self._worker.freeze()
        return steps * self._threads * each / us / 1000 / max(1, products)

    def close(self) -> None:
        """End the worker and give the memory back; safe to call twice."""
        self._worker.close()
        for arena in self._arenas:
            arena.close()

    def __enter__(self) -> "RoofProbe":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
