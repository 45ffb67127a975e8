"""Scratch memory that kernels ask for: poisoned before every call, between red zones."""

import secrets
from dataclasses import dataclass

import numpy as np

from kernelwright.evaluation.layout import ALIGNMENT, PAGE, ZONE
from kernelwright.evaluation.pool import MakeArena
from kernelwright.execution import Arena
from kernelwright.machine import Evict

OFFSET = PAGE + ALIGNMENT
"""Where scratch begins in its arena: aligned as the ABI promises, and no better."""


@dataclass(slots=True)
class Workspaces:
    """One arena for all kernels, as only one worker runs at a time."""

    name: str = "workspace"
    """Of the arena."""
    what: str = "its workspace"
    make: MakeArena = Arena
    arena: Arena | None = None
    _guest: object = None
    """The process that was last let near it."""

    def admit(self, guest: object) -> None:
        """Overwrite it, unless this guest was the last one here."""
        if self._guest is not guest:
            self.poison(0)
            self._guest = guest

    def arenas(self) -> tuple[Arena, ...]:
        """What workers map."""
        return () if self.arena is None else (self.arena,)

    def holds(self, nbytes: int) -> bool:
        """Whether it is large enough already."""
        return nbytes <= 0 or (self.arena is not None and self.arena.nbytes >= _whole(nbytes))

    def grow(self, nbytes: int) -> None:
        """Replace it by a larger one; workers that map the old one must be started again."""
        self.close()
        self.arena = self.make(self.name, _whole(nbytes), True)

    def poison(self, nbytes: int) -> None:
        """Fill what the kernel may use with other NaNs than last time, the rest with secrets.

        All of the arena is overwritten, so that nothing can be kept in it between calls.
        """
        if self.arena is None:
            return
        # sign and low bits vary: NaN in every floating dtype of at least two bytes
        self.arena.flood(0x7FF87FF87FF87FF8 | secrets.randbits(64) & 0x8007800780078007)
        if nbytes:
            self.arena.put(OFFSET - PAGE, ZONE)
            self.arena.put(OFFSET + nbytes, ZONE)

    def broken_zone(self, nbytes: int) -> str | None:
        """Where a kernel wrote outside of its scratch memory; None when it did not."""
        if self.arena is None or not nbytes:
            return None
        after = self.arena.fetch(OFFSET + nbytes, PAGE)
        if not np.array_equal(after, ZONE):
            at = int(np.argmax(after != ZONE))
            return f"wrote past the end of {self.what}, first {at} bytes after it"
        if not np.array_equal(self.arena.fetch(OFFSET - PAGE, PAGE), ZONE):
            return f"wrote before the start of {self.what}"
        return None

    def evict(self, throw_out: Evict | None) -> None:
        """Throw it out of all caches."""
        if self.arena is not None and throw_out is not None:
            throw_out(self.arena.view())

    def close(self) -> None:
        """Give the memory back."""
        if self.arena is not None:
            self.arena.close()
            self.arena = None


def _whole(nbytes: int) -> int:
    return OFFSET + nbytes + PAGE
