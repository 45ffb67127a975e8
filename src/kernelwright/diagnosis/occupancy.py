"""How many blocks of a kernel a multiprocessor holds at once, and what leaves no room for more.

Source: table "Technical Specifications per Compute Capability" of NVIDIA's CUDA programming guide,
and the rules of its occupancy calculator: registers are handed out to warps in units of 256, to
each quarter of a multiprocessor apart; shared memory in units of 128 bytes, after 1 KiB for the
system.
"""

import re
from dataclasses import dataclass

WARP = 32
_REGISTERS = 65536
_REGISTER_UNIT = 256
_QUARTERS = 4


@dataclass(frozen=True, slots=True)
class Limits:
    """What a multiprocessor holds."""

    warps: int
    blocks: int
    shared_bytes: int
    reserved_bytes: int
    """Of shared memory, for the system, in each block."""
    shared_unit: int = 128


_LIMITS = {
    70: Limits(64, 32, 96 << 10, 0, 256),
    72: Limits(64, 32, 96 << 10, 0, 256),
    75: Limits(32, 16, 64 << 10, 0, 256),
    80: Limits(64, 32, 164 << 10, 1024),
    86: Limits(48, 16, 100 << 10, 1024),
    87: Limits(48, 16, 164 << 10, 1024),
    89: Limits(48, 24, 100 << 10, 1024),
    90: Limits(64, 32, 228 << 10, 1024),
    100: Limits(64, 32, 228 << 10, 1024),
    103: Limits(64, 32, 228 << 10, 1024),
    110: Limits(48, 24, 228 << 10, 1024),
    120: Limits(48, 24, 100 << 10, 1024),
    121: Limits(48, 24, 100 << 10, 1024),
}
"""By compute capability, times ten."""


@dataclass(frozen=True, slots=True)
class Occupancy:
    """Blocks on a multiprocessor."""

    blocks: int
    limiter: str
    """`registers`, `shared memory`, `threads` or `blocks`; of equal ones the first."""
    share: float
    """Resident threads over the most that the multiprocessor holds."""


def limits_of(architecture: str) -> Limits | None:
    """Limits of an architecture such as `sm_90a`; None: it is not in the table."""
    match = re.fullmatch(r"sm_(\d+)[af]?", architecture)
    return _LIMITS.get(int(match[1])) if match else None


def occupancy(limits: Limits, threads: int, registers: int, shared_bytes: int) -> Occupancy:
    """How many blocks fit.

    Args:
        limits: of the multiprocessor.
        threads: of a block, at least 1.
        registers: of a thread.
        shared_bytes: of a block, static and dynamic.
    """
    warps = -(-threads // WARP)
    shared = _up(shared_bytes + limits.reserved_bytes, limits.shared_unit)
    fits = {
        "registers": _warps_by_registers(registers) // warps,
        "shared memory": limits.shared_bytes // shared if shared else limits.blocks,
        "threads": limits.warps // warps,
        "blocks": limits.blocks,
    }
    limiter = min(fits, key=fits.__getitem__)
    blocks = fits[limiter]
    return Occupancy(blocks, limiter, min(1.0, blocks * warps / limits.warps))


def _warps_by_registers(registers: int) -> int:
    if registers <= 0:
        return 1 << 20
    of_warp = _up(registers * WARP, _REGISTER_UNIT)
    return _REGISTERS // _QUARTERS // of_warp * _QUARTERS


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
