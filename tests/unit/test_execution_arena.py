"""Shared memory: prefaulted, sealed, and gone when it is closed."""

import mmap
import os

import numpy as np
import pytest

from kernelwright.errors import HarnessError
from kernelwright.execution import Arena


def test_views_share_the_pages_and_start_at_zero():
    with Arena("x", 10_000) as arena:
        assert arena.nbytes == 12288
        assert not arena.view().any()
        arena.view(100, 4)[:] = 7
        assert list(arena.view(99, 6)) == [0, 7, 7, 7, 7, 0]
        with mmap.mmap(arena.fd, arena.nbytes) as other:
            assert other[100] == 7


def test_base_is_aligned_for_every_vector_type():
    with Arena("x", 4096) as arena:
        assert arena.view().ctypes.data % 64 == 0


def test_large_arenas_use_whole_huge_pages():
    with Arena("x", (16 << 20) + 1) as arena:
        assert arena.nbytes == 18 << 20


def test_a_seal_stops_later_writers_but_not_the_judge():
    with Arena("x", 4096) as arena:
        arena.view()[0] = 1
        arena.seal()
        with pytest.raises(PermissionError):
            mmap.mmap(arena.fd, 4096)
        with pytest.raises(PermissionError):
            os.pwrite(arena.fd, b"\2", 0)
        arena.view()[0] = 3
        with mmap.mmap(arena.fd, 4096, mmap.MAP_SHARED, mmap.PROT_READ) as reader:
            assert reader[0] == 3


def test_the_size_cannot_be_changed():
    with Arena("x", 4096) as arena, pytest.raises(PermissionError):
        os.ftruncate(arena.fd, 0)


def test_pages_are_there_before_the_first_use():
    import resource

    with Arena("x", 32 << 20) as arena:
        values = arena.view().view(np.float32)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        values[:] = 1
        assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 64


def test_what_is_outside_is_refused():
    with Arena("x", 4096) as arena:
        for offset, nbytes in ((-1, 4), (0, 4097), (4097, 0), (8, -8)):
            with pytest.raises(HarnessError, match="not in the arena 'x'"):
                arena.view(offset, nbytes)
    with pytest.raises(HarnessError, match="not in the arena"):
        arena.view()
    with pytest.raises(HarnessError, match="positive size"):
        Arena("x", 0)
    with pytest.raises(HarnessError, match="exceeds the free memory"):
        Arena("x", 1 << 50)


def test_closing_gives_everything_back():
    descriptors, shared = set(os.listdir("/proc/self/fd")), set(os.listdir("/dev/shm"))
    for _ in range(20):
        arena = Arena("x", 1 << 20)
        view = arena.view()
        arena.close()
        arena.close()
        del view
    assert set(os.listdir("/proc/self/fd")) == descriptors
    assert set(os.listdir("/dev/shm")) <= shared
    with open("/proc/self/maps") as maps:
        assert not [line for line in maps if "kernelwright-x" in line]
