"""Element types, their widths and their names in C."""

from enum import StrEnum


class Dtype(StrEnum):
    """Element type of a tensor, spelt as on the command line."""

    F64 = "f64"
    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"
    I64 = "i64"
    I32 = "i32"
    I16 = "i16"
    I8 = "i8"
    U8 = "u8"
    BOOL = "bool"

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return _ITEMSIZE[self]

    @property
    def is_float(self) -> bool:
        """Whether values are rounded reals."""
        return self in _UNIT_ROUNDOFF

    @property
    def unit_roundoff(self) -> float:
        """Half the distance from 1 to the next value; 0 for exact types."""
        return _UNIT_ROUNDOFF.get(self, 0.0)

    @property
    def c_type(self) -> str:
        """The element type in the kernel ABI (`kernelwright.h` defines `bf16` and `f16`)."""
        return _C_TYPE[self]


_ITEMSIZE = {
    Dtype.F64: 8, Dtype.F32: 4, Dtype.F16: 2, Dtype.BF16: 2,
    Dtype.I64: 8, Dtype.I32: 4, Dtype.I16: 2, Dtype.I8: 1, Dtype.U8: 1, Dtype.BOOL: 1,
}  # fmt: skip
_UNIT_ROUNDOFF = {
    Dtype.F64: 2.0**-53, Dtype.F32: 2.0**-24, Dtype.F16: 2.0**-11, Dtype.BF16: 2.0**-8,
}  # fmt: skip
_C_TYPE = {
    Dtype.F64: "double", Dtype.F32: "float", Dtype.F16: "f16", Dtype.BF16: "bf16",
    Dtype.I64: "int64_t", Dtype.I32: "int32_t", Dtype.I16: "int16_t", Dtype.I8: "int8_t",
    Dtype.U8: "uint8_t", Dtype.BOOL: "uint8_t",
}  # fmt: skip
