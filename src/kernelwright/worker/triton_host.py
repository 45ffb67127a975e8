"""What the host of Triton candidates does on the GPU: `python_host.py` does the rest.

This runs in the candidate's process and imports nothing of ours but `triton_launch.py` beside it.
"""

import contextlib
import ctypes
import os
from collections.abc import Callable, Generator
from typing import Any

import triton_launch  # pyright: ignore


def warm_up() -> None:
    """Load what is slow to load, and learn what only other programs know, without a GPU."""
    triton_launch.warm_up(int(os.environ["KERNELWRIGHT_CAPABILITY"]))


def start(native: Any) -> Callable[[int, int, Any], Any]:
    """Use the device, and have Triton launch in the stream that the clock is held over.

    Returns:
        What makes a flat tensor of an address, a number of elements and their type.
    """
    import torch

    warm_up()
    native.kernelwright_start_device.restype = ctypes.c_uint64
    number = native.kernelwright_start_device()
    torch.cuda.set_stream(torch.cuda.ExternalStream(number))
    some = torch.zeros(64, device="cuda").add_(1)
    for dtype in (torch.float32, torch.bfloat16, torch.int64, torch.bool):
        _lent(some.data_ptr(), 2, dtype).view(2).sum().item()  # what the first time takes
    target = triton_launch.Target(_capability(torch), _properties(torch), _stream(torch), "cuda")
    triton_launch.install(target, triton_launch.Loaded)
    return _lent


@contextlib.contextmanager
def rehearsing() -> Generator[None]:
    """Kernels are compiled and put on the device in here, and not launched."""
    triton_launch.launches = False
    try:
        yield
    finally:
        triton_launch.launches = True


def _capability(torch: Any) -> int:
    major, minor = torch.cuda.get_device_capability()
    return 10 * major + minor


def _stream(torch: Any) -> Callable[[], int]:
    def current() -> int:
        return torch.cuda.current_stream().cuda_stream

    return current


def _properties(torch: Any) -> dict[str, int]:
    found = torch.cuda.get_device_properties(0)
    return {
        "max_shared_mem": found.shared_memory_per_block_optin,
        "max_num_regs": found.regs_per_multiprocessor,
        "multiprocessor_count": found.multi_processor_count,
        "warpSize": found.warp_size,
    }


class _Raw:
    """Bytes on the device, as torch takes them."""

    def __init__(self, address: int, nbytes: int) -> None:
        self.__cuda_array_interface__ = {
            "shape": (nbytes,), "typestr": "|u1", "data": (address, False), "version": 2,
        }  # fmt: skip


def _lent(address: int, count: int, dtype: Any) -> Any:
    import torch

    raw = torch.as_tensor(_Raw(address, count * dtype.itemsize), device="cuda")
    return raw.view(dtype)
