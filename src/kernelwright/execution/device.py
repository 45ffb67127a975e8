"""Device memory that the judge holds and lends: one allocation, with a mirror of shared pages.

The judge alone allocates. A worker opens the memory by its CUDA IPC handle, for reading and writing
alike, so what it must not change is put there anew before each call and looked at after. The judge
looks at small parts in the mirror, where they are after `fetch`; whole outputs are compared on the
device by the oracle, in memory that no worker is lent.
"""

import ctypes
from typing import Self

import numpy as np
from numpy.typing import NDArray

from kernelwright.cuda_driver import Driver, driver
from kernelwright.errors import HarnessError
from kernelwright.execution.arena import Arena

_BLOCK = 2 << 20
"""Device memory is handed out in blocks of this size, and lent by whole blocks."""
_HANDLE_BYTES = 64


class _Context:
    """The judge's own context on the first GPU, kept until the process ends."""

    def __init__(self) -> None:
        self.driver: Driver = driver()
        self._handle = ctypes.c_void_p()
        self.driver.call("cuDevicePrimaryCtxRetain", ctypes.byref(self._handle), 0)

    def call(self, function: str, *arguments: object) -> None:
        """One function of the driver, in this context, on whatever thread."""
        self.driver.call("cuCtxSetCurrent", self._handle)
        self.driver.call(function, *arguments)


_contexts: list[_Context] = []


def _context() -> _Context:
    if not _contexts:
        _contexts.append(_Context())
    return _contexts[0]


class DeviceArena(Arena):
    """Memory of the first GPU of at least `nbytes` bytes, and a mirror whose pages come when used.

    Every operation is complete on the device when it returns.

    Args:
        name: as of an `Arena`.
        nbytes: size of both; at least this much on the device.
        huge: as of an `Arena`.

    Raises:
        HarnessError: the memory cannot be had.
    """

    mirrored = True
    prefaulted = False

    def __init__(self, name: str, nbytes: int, huge: bool = True) -> None:
        self._address = ctypes.c_uint64()
        super().__init__(name, nbytes, huge)
        self._handle = (ctypes.c_ubyte * _HANDLE_BYTES)()
        whole = -(-self.nbytes // _BLOCK) * _BLOCK
        try:
            context = _context()
            context.call("cuMemAlloc_v2", ctypes.byref(self._address), ctypes.c_size_t(whole))
            context.call("cuIpcGetMemHandle", ctypes.byref(self._handle), self._address)
            self.fill(0, self.nbytes, 0)
        except HarnessError:
            self.close()
            raise

    def fill(self, offset: int, nbytes: int, byte: int) -> None:
        """Set bytes on the device."""
        self._run("cuMemsetD8_v2", self._at(offset, nbytes), ctypes.c_ubyte(byte), nbytes)

    def put(self, offset: int, source: NDArray[np.uint8]) -> None:
        """Copy bytes to the device."""
        data = np.ascontiguousarray(source)
        address = ctypes.c_void_p(data.ctypes.data)
        self._run("cuMemcpyHtoD_v2", self._at(offset, data.size), address, data.size)

    def flood(self, word: int) -> None:
        """Fill all of it with the lower half of a 64-bit word."""
        value, count = ctypes.c_uint(word & 0xFFFFFFFF), self.nbytes // 4
        self._run("cuMemsetD32_v2", self._at(0, self.nbytes), value, count)

    def copy(self, offset: int, nbytes: int, source: Self, start: int | None = None) -> None:
        """Copy bytes that lie at `start` (None: the same offset) of another arena on the device."""
        here = self._at(offset, nbytes)
        there = source._at(offset if start is None else start, nbytes)
        self._run("cuMemcpyDtoD_v2", here, there, nbytes)

    def fetch(self, offset: int, nbytes: int) -> NDArray[np.uint8]:
        """Copy bytes from the device into the mirror; a view of them there."""
        mirror = self.view(offset, nbytes)
        address = ctypes.c_void_p(mirror.ctypes.data)
        self._run("cuMemcpyDtoH_v2", address, self._at(offset, nbytes), nbytes)
        return mirror

    @property
    def handle(self) -> str:
        """The CUDA IPC handle, in hexadecimal."""
        return bytes(self._handle).hex()

    @property
    def specification(self) -> str:
        """How a CUDA host is told of it (`worker/cuda_host.cu`)."""
        return f"ipc:{self.handle}:{self.nbytes}"

    @property
    def descriptors(self) -> tuple[int, ...]:
        """None: device memory is lent by its handle alone."""
        return ()

    def seal(self) -> None:
        """Nothing: what is lent of a device can be written by whoever opens it."""

    def close(self) -> None:
        """Give both back."""
        if self._address.value:
            _context().call("cuMemFree_v2", self._address)
            self._address = ctypes.c_uint64()
        super().close()

    def _at(self, offset: int, nbytes: int) -> ctypes.c_uint64:
        if offset < 0 or nbytes < 0 or offset + nbytes > self.nbytes:
            raise HarnessError(f"bytes {offset} to {offset + nbytes} are not in '{self.name}'")
        return ctypes.c_uint64(self._address.value + offset)

    @staticmethod
    def _run(function: str, to: object, source: object, count: int) -> None:
        if count:
            context = _context()
            context.call(function, to, source, ctypes.c_size_t(count))
            context.call("cuCtxSynchronize")
