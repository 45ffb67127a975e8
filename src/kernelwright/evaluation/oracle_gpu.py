"""The oracle's way to a GPU: references computed there, baselines timed there by events."""

import ctypes
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager

import torch

from kernelwright.cuda_driver import driver
from kernelwright.errors import ProblemError
from kernelwright.execution import device_arenas

_HEAD_START = 1 << 20
"""Clock cycles, about half a millisecond: for a process that was woken a moment ago."""
_LONGEST_HEAD_START = 1 << 26
_LAZY_PEER_ACCESS = 1
_SCARCE = 4
"""A GPU of whose memory less than this part is free gets back what torch keeps for later."""


class _Handle(ctypes.Structure):
    """`CUipcMemHandle`, which is passed by value."""

    _fields_ = [("reserved", ctypes.c_ubyte * 64)]


class _Lent:
    """Device memory as torch takes it from others."""

    def __init__(self, address: int, nbytes: int) -> None:
        self.__cuda_array_interface__ = {
            "shape": (nbytes,), "typestr": "|u1", "data": (address, False), "version": 3,
        }  # fmt: skip


class Gpu:
    """The first GPU, as torch has it.

    Raises:
        ProblemError: torch cannot use it.
    """

    def __init__(self) -> None:
        if not torch.cuda.is_available():
            raise ProblemError(
                "torch cannot use the GPU, so there is nothing to compare with: install a build "
                f"of torch for CUDA (this is {torch.__version__})"
            )
        self.device = torch.device("cuda")
        self._head_start = _HEAD_START
        self.flush_bytes = 0
        """Read right before the next call that is timed."""
        self._flushed = torch.zeros(0, device=self.device)
        self._read = torch.zeros((), device=self.device)
        self._started = torch.cuda.Event(enable_timing=True)
        self._stopped = torch.cuda.Event(enable_timing=True)
        self._opened: dict[str, tuple[str, int, torch.Tensor]] = {}
        """Arenas of the judge that are open here: handle, address, bytes."""

    @contextmanager
    def computing(self) -> Generator[None]:
        """References run here: on the GPU, without the narrow formats that torch takes for f32."""
        with self.device, torch.backends.cudnn.flags(allow_tf32=False):
            yield

    def lend(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Copies on the GPU, in memory of torch's own."""
        return {name: tensor.to(self.device, copy=True) for name, tensor in tensors.items()}

    def memory(self, name: str) -> torch.Tensor:
        """All bytes of an arena that the judge lends to this process, by name.

        Raises:
            KeyError: none of that name is attached.
            HarnessError: it cannot be opened.
        """
        lent = device_arenas()
        for gone in [
            n for n, (handle, *_) in self._opened.items() if lent.get(n, ("",))[0] != handle
        ]:
            _, address, _ = self._opened.pop(gone)
            torch.cuda.synchronize()
            driver().call("cuIpcCloseMemHandle", ctypes.c_uint64(address))
        if name not in self._opened:
            handle, nbytes = lent[name]
            address = ctypes.c_uint64()
            driver().call(
                "cuIpcOpenMemHandle_v2", ctypes.byref(address),
                _Handle.from_buffer_copy(bytes.fromhex(handle)), _LAZY_PEER_ACCESS,
            )  # fmt: skip
            data = torch.as_tensor(_Lent(address.value, nbytes), device=self.device)
            self._opened[name] = handle, address.value, data
        return self._opened[name][2]

    def give_back(self) -> None:
        """Return memory that torch keeps for later, where little is free for judge and workers."""
        free, total = torch.cuda.mem_get_info()
        if free * _SCARCE < total:
            torch.cuda.empty_cache()

    def timed_ns(self, call: Callable[[], None]) -> float:
        """Nanoseconds of a call between two events, after a wait and a flush.

        As `worker/cuda_host.cu` does: what keeps the GPU busy before the call hides the time in
        which the processor enqueues it. Where that was too short, so that the GPU ran dry, the
        call is made again after a longer one. A call that waits for the GPU itself always runs
        dry: its gaps are its own.
        """
        if self._flushed.numel() * 4 != self.flush_bytes:
            self._flushed = torch.ones(self.flush_bytes // 4, device=self.device)
        while True:
            torch.cuda.synchronize()
            torch.cuda._sleep(self._head_start)  # pyright: ignore
            if self.flush_bytes:
                torch.sum(self._flushed, dim=0, out=self._read)
            self._started.record()
            call()
            self._stopped.record()
            dry = self._started.query()
            torch.cuda.synchronize()
            if not dry or self._head_start >= _LONGEST_HEAD_START:
                return 1e6 * self._started.elapsed_time(self._stopped)
            self._head_start *= 2
