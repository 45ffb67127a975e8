"""How element types are stored in numpy, and rounding to them from float64.

numpy has no bfloat16: such tensors are carried as `uint16` words, and decoded by shifting the word
into the upper half of a float32.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernelwright.model import Dtype

Array = NDArray[Any]
Float64 = NDArray[np.float64]

_STORAGE: dict[Dtype, str] = {
    Dtype.F64: "<f8", Dtype.F32: "<f4", Dtype.F16: "<f2", Dtype.BF16: "<u2",
    Dtype.I64: "<i8", Dtype.I32: "<i4", Dtype.I16: "<i2", Dtype.I8: "i1",
    Dtype.U8: "u1", Dtype.BOOL: "u1",
}  # fmt: skip
_LARGEST = {
    Dtype.F64: float(np.finfo(np.float64).max),
    Dtype.F32: float(np.finfo(np.float32).max),
    Dtype.F16: 65504.0,
    Dtype.BF16: float.fromhex("0x1.fep127"),
}


def storage(dtype: Dtype) -> np.dtype[Any]:
    """The numpy dtype whose bytes are those of `dtype` (bf16: the 16-bit word)."""
    return np.dtype(_STORAGE[dtype])


def largest(dtype: Dtype) -> float:
    """The largest finite value of a floating dtype."""
    return _LARGEST[dtype]


def smallest_step(dtype: Dtype) -> float:
    """An absolute error that is always forgiven: underflow may flush to zero.

    The smallest normal number, except for f16, where that is large (6e-5) and hardware does not
    flush: there the spacing of its subnormals.
    """
    if dtype is Dtype.F16:
        return 2.0**-24
    return float(np.finfo(np.float64 if dtype is Dtype.F64 else np.float32).tiny)


def decode(raw: Array, dtype: Dtype) -> Array:
    """Values of stored elements, exactly, in a native numpy type (bf16: float32).

    Args:
        raw: elements in `storage(dtype)`, any shape; an array that already holds native floats
            (float32 or float64) is returned as it is.
        dtype: the element type.
    """
    if dtype is Dtype.BF16 and raw.dtype == np.uint16:
        return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return raw


def encode(values: Array, dtype: Dtype) -> Array:
    """Round values once, to nearest even, into `storage(dtype)`; integers are converted."""
    if dtype is not Dtype.BF16:
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(values).astype(storage(dtype))
    bits = _round_to_odd(np.asarray(values, dtype=np.float64)).view(np.uint32)
    nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    upper = bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))
    return np.where(nan, np.uint16(0x7FC0), (upper >> np.uint32(16)).astype(np.uint16))


def _round_to_odd(x: Float64) -> NDArray[np.float32]:
    """To float32 so that a second rounding to a narrower type equals one rounding from float64.

    Boldo and Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using
    rounding to odd" (2008): truncate, then set the last bit when anything was lost.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        near = x.astype(np.float32)
        back = near.astype(np.float64)
        inexact = (back != x) & ~np.isnan(x)
        away = inexact & (np.abs(back) > np.abs(x))
    bits = near.view(np.uint32) - away.astype(np.uint32)
    return (bits | inexact.astype(np.uint32)).view(np.float32)
