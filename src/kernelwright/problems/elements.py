"""Element types in torch."""

from typing import Any

import torch
from numpy.typing import NDArray

from kernelwright.errors import ProblemError
from kernelwright.model import Dtype

_TORCH = {
    Dtype.F64: torch.float64, Dtype.F32: torch.float32,
    Dtype.F16: torch.float16, Dtype.BF16: torch.bfloat16,
    Dtype.I64: torch.int64, Dtype.I32: torch.int32, Dtype.I16: torch.int16, Dtype.I8: torch.int8,
    Dtype.U8: torch.uint8, Dtype.BOOL: torch.bool,
}  # fmt: skip
_OURS = {theirs: ours for ours, theirs in _TORCH.items()}


def torch_dtype(dtype: Dtype) -> torch.dtype:
    """The same element type in torch."""
    return _TORCH[dtype]


def dtype_of(tensor: torch.Tensor) -> Dtype:
    """Element type of a tensor.

    Raises:
        ProblemError: kernels cannot have arguments of this type (complex, quantised).
    """
    if tensor.dtype not in _OURS:
        raise ProblemError(f"tensors of {tensor.dtype} cannot be passed to a kernel")
    return _OURS[tensor.dtype]


def parse_dtype(text: str, where: str) -> Dtype:
    """A dtype by its short name.

    Raises:
        ProblemError: there is none of that name.
    """
    try:
        return Dtype(text)
    except ValueError:
        known = ", ".join(Dtype)
        raise ProblemError(f"{where}: unknown dtype '{text}', use one of {known}") from None


def to_storage(tensor: torch.Tensor) -> NDArray[Any]:
    """The tensor's elements as `numerics` stores them (bf16: `uint16` words), contiguous."""
    tensor = tensor.detach().contiguous()
    if tensor.dtype is torch.bfloat16:
        return tensor.view(torch.int16).numpy().view("<u2")
    if tensor.dtype is torch.bool:
        return tensor.view(torch.uint8).numpy()
    return tensor.numpy()


def from_storage(array: NDArray[Any], dtype: Dtype) -> torch.Tensor:
    """The inverse of `to_storage`; shares memory."""
    if dtype is Dtype.BF16:
        return torch.from_numpy(array.view("<i2")).view(torch.bfloat16)
    return torch.from_numpy(array).view(torch_dtype(dtype))
