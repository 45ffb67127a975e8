"""The bound of a workload under live rates, and the floor that no honest time is under.

The bound is the roofline of Williams, Waterman and Patterson (2009) at the rates that this machine
reaches *now*: it is for reporting and stopping, and a kernel may slip under it. The floor is for
rejecting: it asks for rates that this machine cannot reach in any state.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kernelwright.model import Bound

IMPOSSIBLE = 4.0
"""Times the best measured memory rate. Shared machines swing by about 1.7 times; 4 they do not."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What the roof probe reached at one moment."""

    roof: str
    """The memory probe that set it, such as `read` or `triad`."""
    gbs: float
    """Memory traffic of that probe, GB/s (10^9), reads plus writes."""
    gflops: float = 0.0
    """Arithmetic peak of `unit`, GFLOP/s; 0: not known, then memory alone bounds."""
    unit: str = "fma"
    """`fma` (fp32 fused multiply-adds) or `bf16 products`."""


def bound(bytes_moved: int, operations: float, rates: Rates) -> Bound:
    """The least time for a workload at these rates.

    Args:
        bytes_moved: provably necessary bytes: inputs once, outputs once.
        operations: arithmetic operations, a fused multiply-add counting 2.
        rates: live rates; `gbs` positive.
    """
    memory_us = bytes_moved / (rates.gbs * 1e3)
    compute_us = operations / (rates.gflops * 1e3) if rates.gflops > 0 else 0.0
    if compute_us > memory_us:
        return Bound(compute_us, "compute", bytes_moved, operations, rates.unit, rates.gflops)
    return Bound(memory_us, "memory", bytes_moved, operations, rates.roof, rates.gbs)


def fraction_of_bound(bounds_us: Sequence[float], times_us: Sequence[float]) -> float:
    """Median over rounds of bound over time, each with its own round's roof.

    Raises:
        ValueError: no round, or lengths that differ.
    """
    if not bounds_us or len(bounds_us) != len(times_us):
        raise ValueError(f"{len(bounds_us)} bounds and {len(times_us)} times are not pairs")
    return float(np.median([b / t for b, t in zip(bounds_us, times_us, strict=True)]))


def floor_us(bytes_read: int, bytes_written: int, best_gbs: float, cache_bytes: int) -> float:
    """A time that a cold call cannot be under.

    Inputs must come from memory, because the cache was flushed; outputs may stay in the cache as
    far as they fit. Operations do not count: how many are needed depends on the algorithm.

    Args:
        bytes_read: input bytes that every algorithm must read.
        bytes_written: output bytes.
        best_gbs: best memory rate ever measured here, GB/s.
        cache_bytes: last-level cache.
    """
    needed = bytes_read + max(0, bytes_written - cache_bytes)
    return needed / (IMPOSSIBLE * best_gbs * 1e3) if best_gbs > 0 else 0.0
