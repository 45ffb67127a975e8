"""The judge's copy of the layout in `worker/page.hpp`."""

import ctypes

from kernelwright.execution.report import MAX_DOUBLES, MAX_INTEGERS

MAX_ARENAS = 256
MAX_POISON = 64
OUTSIDE = (1 << 64) - 1

LOAD, FLUSH, CALL, NULL_CALL, WORKSPACE, QUIT, EXPORTS, PREPARED, PREPARE, WAKE = range(1, 11)
REHEARSE = 11
HAS_PREPARE, HAS_PREPARED = 1, 2
(
    NO_PROBLEM,
    HOST_FAILED,
    LOAD_FAILED,
    MISSING_SYMBOL,
    NOT_PARALLEL,
    TWO_RUNTIMES,
    FLUSH_FAILED,
    RAISED,
    EXHAUSTED,
    DEVICE_FAULT,
    LAUNCH_FAILED,
    DEVICE_MEMORY,
) = range(12)


class Arguments(ctypes.Structure):
    """Of one call: addresses, dimensions and integers, then floating scalars."""

    _fields_ = (
        ("integers", ctypes.c_int64 * MAX_INTEGERS),
        ("doubles", ctypes.c_double * MAX_DOUBLES),
    )


class Page(ctypes.Structure):
    """Mapped by judge and worker; after the load, its worker half is the candidate's word."""

    _fields_ = (
        ("bytes", ctypes.c_uint64),
        ("command", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
        ("flush_bytes", ctypes.c_uint64),
        ("arguments", Arguments),
        ("arena_address", ctypes.c_uint64 * MAX_ARENAS),
        ("syscall_filter", ctypes.c_uint32),
        ("problem", ctypes.c_uint32),
        ("team", ctypes.c_uint32),
        ("mxcsr_changed", ctypes.c_uint32),
        ("result", ctypes.c_int64),
        ("elapsed_ns", ctypes.c_uint64),
        ("minor_faults", ctypes.c_int64),
        ("major_faults", ctypes.c_int64),
        ("signal", ctypes.c_uint32),
        ("signal_code", ctypes.c_int32),
        ("address", ctypes.c_uint64),
        ("stack_pointer", ctypes.c_uint64),
        ("library_offset", ctypes.c_uint64),
        ("writing", ctypes.c_uint32),
        ("error_number", ctypes.c_int32),
        ("text", ctypes.c_char * 1024),
        ("stream", ctypes.c_uint64),
        ("poison_before", ctypes.c_uint64),
        ("poison_after", ctypes.c_uint64),
        ("poison_address", ctypes.c_uint64 * MAX_POISON),
        ("poison_bytes", ctypes.c_uint64 * MAX_POISON),
        ("poison_byte", ctypes.c_uint64 * MAX_POISON),
    )
