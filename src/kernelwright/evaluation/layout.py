"""Where tensors lie in shared memory: aligned as the ABI promises and no better, with red zones."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernelwright.model import Dtype, TensorArgument
from kernelwright.numerics import storage

PAGE = 4096
ALIGNMENT = 64
POISON = 0xFF
"""Surrounds inputs and fills what nobody uses: NaN in every floating dtype."""
Bytes = NDArray[np.uint8]
ZONE: Bytes = np.frombuffer(os.urandom(PAGE), dtype=np.uint8)
"""What red zones hold: secret, so that nobody can write it by intent."""


@dataclass(frozen=True, slots=True)
class Place:
    """One tensor in an arena."""

    name: str
    dtype: Dtype
    shape: tuple[int, ...]
    offset: int
    nbytes: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        return self.nbytes // self.dtype.itemsize

    def bytes_in(self, arena: Bytes) -> Bytes:
        """Its bytes in a view of the whole arena."""
        return arena[self.offset : self.offset + self.nbytes]

    def array_in(self, arena: Bytes) -> NDArray[Any]:
        """Its elements in storage form, flat."""
        return self.bytes_in(arena).view(storage(self.dtype))

    def red_zones(self, arena: Bytes) -> tuple[Bytes, Bytes]:
        """The bytes right before and right after it that belong to nobody."""
        end = self.offset + self.nbytes
        return arena[self.offset - PAGE : self.offset], arena[end : end + PAGE]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "name": self.name,
            "dtype": str(self.dtype),
            "shape": list(self.shape),
            "offset": self.offset,
            "nbytes": self.nbytes,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Place":
        """Back from plain data."""
        return Place(
            data["name"], Dtype(data["dtype"]), tuple(data["shape"]), data["offset"], data["nbytes"]
        )


def pack(
    tensors: Iterable[TensorArgument],
    sizes: Mapping[str, int],
    dtype: Dtype,
    start: int,
    shift: int = 1,
) -> tuple[tuple[Place, ...], int]:
    """Places for tensors from `start` on, and the end of what they take.

    Every tensor has a page before and after it for itself. It starts at an odd multiple of 64
    bytes in its page, so a kernel that needs more alignment than the ABI promises fails.

    Args:
        tensors: in the order of the prototype.
        sizes: sizes of all dimension names.
        dtype: dtype of the workload.
        start: a multiple of 4096.
        shift: which odd multiple; slots use different ones, as addresses should differ.
    """
    places: list[Place] = []
    for tensor in tensors:
        offset = start + PAGE + (ALIGNMENT * (2 * shift - 1)) % PAGE
        nbytes = tensor.nbytes(sizes, dtype)
        places.append(
            Place(tensor.name, tensor.resolve(dtype), tensor.shape(sizes), offset, nbytes)
        )
        start = page_up(offset + nbytes) + PAGE
    return tuple(places), start


def pack_before_guards(
    tensors: Iterable[TensorArgument], sizes: Mapping[str, int], dtype: Dtype, start: int
) -> tuple[tuple[Place, ...], int]:
    """Places for tensors that end right before a page that can be made unreadable.

    As alignment stays at an odd multiple of 64 bytes and no better, up to 127 bytes lie between.
    The guards are the pages that begin where the page of a tensor's last byte ends.

    Args:
        tensors: in the order of the prototype.
        sizes: sizes of all dimension names.
        dtype: dtype of the workload.
        start: a multiple of 4096.
    """
    places: list[Place] = []
    for tensor in tensors:
        nbytes = tensor.nbytes(sizes, dtype)
        lines = -(-nbytes // ALIGNMENT)
        lines += 1 - lines % 2  # an odd number of them before a page's end starts at an odd one
        end = page_up(start + PAGE + lines * ALIGNMENT)
        offset = end - lines * ALIGNMENT
        places.append(
            Place(tensor.name, tensor.resolve(dtype), tensor.shape(sizes), offset, nbytes)
        )
        start = end + PAGE
    return tuple(places), start


def digest(arena: Bytes, places: Iterable[Place]) -> str:
    """A hash of what lies in some places, equal for equal bytes."""
    found = blake2b(digest_size=16)
    for place in places:
        found.update(place.bytes_in(arena).data)
    return found.hexdigest()


def page_up(nbytes: int) -> int:
    """The next multiple of a page."""
    return -(-nbytes // PAGE) * PAGE


def sample(
    places: Sequence[Place], blocks: int, elements: int, rng: np.random.Generator
) -> list[list[slice]]:
    """Both ends and random blocks of every place, as slices of elements."""
    chosen: list[list[slice]] = []
    for place in places:
        n = place.elements
        if n <= (blocks + 2) * elements:
            chosen.append([slice(0, n)])
            continue
        starts = [0, n - elements, *(int(s) for s in rng.integers(0, n - elements, blocks))]
        chosen.append([slice(s, s + elements) for s in starts])
    return chosen
