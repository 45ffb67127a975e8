"""Shared pages that the judge and a role both map.

An arena is an anonymous memory file: it has no name in any file system, so nothing stays behind
when the processes that hold it end.
"""

import contextlib
import fcntl
import mmap
import os
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from kernelwright.errors import HarnessError

HUGE_PAGE = 2 << 20
_F_SEAL_FUTURE_WRITE = 0x10


def _available_bytes() -> int:
    """Memory that can be had without swapping; touching more would end the process, not raise."""
    with open("/proc/meminfo") as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return 1 << 62


class Arena:
    """Prefaulted shared memory of at least `nbytes` bytes, zeroed, aligned to 2 MiB.

    Args:
        name: How `Pointer` and `arena_view` call it; unique among the arenas of a role.
        nbytes: Size; rounded up to whole pages (4 KiB, or 2 MiB when that wastes under 1/8).
        huge: Ask for 2 MiB pages.

    Raises:
        HarnessError: the memory cannot be had.
    """

    mirrored = False
    """Whether workers find other memory than `view` shows; `put` and `fetch` go between."""
    prefaulted = True
    """Whether all pages are there from the start."""

    def __init__(self, name: str, nbytes: int, huge: bool = True) -> None:
        if nbytes <= 0:
            raise HarnessError(f"the arena '{name}' needs a positive size, not {nbytes}")
        self.name = name
        self.huge = huge and nbytes >= HUGE_PAGE
        page = HUGE_PAGE if self.huge and nbytes >= 8 * HUGE_PAGE else mmap.PAGESIZE
        self.nbytes = -(-nbytes // page) * page
        """Size in bytes as mapped."""
        self.sealed = False
        """Whether workers can only read it."""
        self.guards: tuple[int, ...] = ()
        """Offsets of pages that workers can neither read nor write."""
        if self.prefaulted and self.nbytes > _available_bytes():
            raise HarnessError(f"the arena '{name}' of {self.nbytes} bytes exceeds the free memory")
        self._fd = -1
        self._map: mmap.mmap | None = None
        try:
            self._fd = os.memfd_create(
                f"kernelwright-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
            )
            os.ftruncate(self._fd, self.nbytes)
            fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            self._map = mmap.mmap(self._fd, self.nbytes, mmap.MAP_SHARED)
            if self.huge:
                with contextlib.suppress(OSError, ValueError):
                    self._map.madvise(mmap.MADV_HUGEPAGE)
            self._bytes = np.frombuffer(self._map, np.uint8)
            if self.prefaulted:
                self._bytes[:: mmap.PAGESIZE] = 0
        except (OSError, ValueError, MemoryError) as error:
            self.close()
            raise HarnessError(
                f"no {self.nbytes} bytes of shared memory for '{name}': {error}"
            ) from error

    @property
    def fd(self) -> int:
        """The memory file, to be handed to roles."""
        return self._fd

    def view(self, offset: int = 0, nbytes: int | None = None) -> NDArray[np.uint8]:
        """Writable view of the judge's mapping; must not be used after `close`.

        Raises:
            HarnessError: the range is outside the arena, or the arena is closed.
        """
        end = self.nbytes if nbytes is None else offset + nbytes
        if self._map is None or offset < 0 or end < offset or end > self.nbytes:
            raise HarnessError(f"bytes {offset} to {end} are not in the arena '{self.name}'")
        return self._bytes[offset:end]

    def fill(self, offset: int, nbytes: int, byte: int) -> None:
        """Set bytes, wherever workers find this memory."""
        self.view(offset, nbytes)[:] = byte

    def put(self, offset: int, source: NDArray[np.uint8]) -> None:
        """Copy bytes to where workers find this memory."""
        np.copyto(self.view(offset, source.size), source)

    def copy(self, offset: int, nbytes: int, source: Self, start: int | None = None) -> None:
        """Copy bytes that lie at `start` (None: the same offset) of another arena."""
        self.put(offset, source.view(offset if start is None else start, nbytes))

    def flood(self, word: int) -> None:
        """Fill all of it with a 64-bit word, or its lower half, over and over."""
        memory = self.view()
        memory[: memory.size // 8 * 8].view(np.uint64)[:] = np.uint64(word)

    def fetch(self, offset: int, nbytes: int) -> NDArray[np.uint8]:
        """View of what lies there now, as workers left it."""
        return self.view(offset, nbytes)

    @property
    def handle(self) -> str | None:
        """How another process opens memory of a device; None: it maps the memory file."""
        return None

    @property
    def specification(self) -> str:
        """How a worker's host is told of it (`worker/host.hpp`)."""
        guards = ",".join(str(offset // mmap.PAGESIZE) for offset in self.guards)
        return f"{self.fd}:{self.nbytes}:{int(not self.sealed)}:{guards}"

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What a worker inherits to map it."""
        return (self.fd,)

    def seal(self) -> None:
        """Let later mappings read only; maps that exist already (the judge's) stay writable."""
        fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, _F_SEAL_FUTURE_WRITE | fcntl.F_SEAL_SEAL)
        self.sealed = True

    def close(self) -> None:
        """Give the memory back; views that still exist keep their mapping until they go."""
        if hasattr(self, "_bytes"):
            del self._bytes
        if self._map is not None:
            with contextlib.suppress(BufferError):
                self._map.close()
            self._map = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> "Arena":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
