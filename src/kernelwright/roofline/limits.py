"""The bound of a workload under live rates, and the floor that no honest time is under.

The bound is the roofline of Williams, Waterman and Patterson (2009) at the rates that this machine
reaches *now*: it is for reporting and stopping, and a kernel may slip under it. The floor is for
rejecting: it asks for rates that this machine cannot reach in any state.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from kernelwright.model import Bound

IMPOSSIBLE = 4.0
"""Times the best measured memory rate. Shared machines swing by about 1.7 times; 4 they do not."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What the roof probe reached at one moment."""

    roof: str
    """The memory probes that set it, such as `read` or `copy and read`."""
    gbs: float
    """Memory traffic of that probe, GB/s (10^9), reads plus writes."""
    gflops: float = 0.0
    """Arithmetic peak of `unit`, GFLOP/s; 0: not known, then memory alone bounds."""
    unit: str = "fma"
    """`fma` (fp32 fused multiply-adds) or so many `bf16 products` for each."""


READ_SHARES = {"read": 1.0, "triad": 2 / 3, "copy": 0.5, "write": 0.0}
"""Of the bytes that each memory probe moves, how many it reads."""


def memory_rate(read_bytes: int, write_bytes: int, rates_gbs: Mapping[str, float]) -> Rates:
    """What memory gives at a workload's mix of reads and writes.

    Reads and writes have limits of their own (where a core reads 32 GB/s a streaming copy may move
    50), so the rate of one mix is no limit of another. Two probes, one after the other, move any
    mix between theirs; the best two count.

    Args:
        read_bytes: of the workload.
        write_bytes: of the workload; not both are 0.
        rates_gbs: by probe, reads plus writes; they enclose the workload's mix.

    Raises:
        ValueError: nothing is moved, or no two probes enclose the mix.
    """
    total = read_bytes + write_bytes
    if total <= 0:
        raise ValueError("a workload that moves nothing has no rate")
    share, found = read_bytes / total, dict[str, float]()
    for more, less in product(rates_gbs, repeat=2):
        low, high = READ_SHARES[less], READ_SHARES[more]
        if not low <= share <= high:
            continue
        part = (share - low) / (high - low) if high > low else 1.0
        names = [name for name, used in ((more, part), (less, 1 - part)) if used > 0]
        found[" and ".join(names)] = 1 / (part / rates_gbs[more] + (1 - part) / rates_gbs[less])
    if not found:
        raise ValueError(f"no probes among {', '.join(rates_gbs)} enclose {share:.0%} reads")
    best = max(found, key=found.__getitem__)
    return Rates(best, found[best])


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


def datasheet_floor_us(
    bytes_read: int, bytes_written: int, peak_gbs: float, cache_bytes: int
) -> float:
    """A time that a cold call cannot be under on a device whose memory clock is known.

    As `floor_us`, but by the rate that the memory's clock and width allow, which nothing exceeds.

    Args:
        bytes_read: input bytes that every algorithm must read.
        bytes_written: output bytes.
        peak_gbs: of the datasheet, GB/s.
        cache_bytes: last-level cache, whose lines need not be written back within the call.
    """
    needed = bytes_read + max(0, bytes_written - cache_bytes)
    return needed / (peak_gbs * 1e3) if peak_gbs > 0 else 0.0
