"""Evicting lines, and how much is read besides."""

import time
from dataclasses import replace
from statistics import median

import numpy as np
import pytest

from kernelwright.execution import Arena
from kernelwright.machine import evictor, flush_bytes, probe


@pytest.fixture(scope="module")
def machine():
    return probe()


def _read_us(array):
    start = time.perf_counter_ns()
    array.sum()
    return (time.perf_counter_ns() - start) / 1000


def test_evicted_memory_is_cold(machine):
    evict = evictor(machine.toolchains[0])
    if evict is None:
        pytest.skip("this processor cannot evict lines")
    with Arena("evicted", 2 << 20) as arena:
        array = arena.view(0, 512 << 10).view(np.float32)
        array[:] = 1.0
        warm, cold = [], []
        for _ in range(101):
            array.sum()
            warm.append(_read_us(array))
            evict(array)
            cold.append(_read_us(array))
        assert median(cold) > 1.2 * median(warm)
        assert array.sum() == array.size  # what was modified has reached memory


def test_where_lines_are_evicted_only_private_caches_are_filled(machine):
    large = replace(machine, l2_bytes=2 << 20, l3_bytes=480 << 20, cores=2)
    assert flush_bytes(large, evicts=True) == 16 << 20
    assert flush_bytes(large, evicts=False) == 960 << 20
    small = replace(large, l3_bytes=4 << 20)
    assert flush_bytes(small, evicts=True) == flush_bytes(small, evicts=False) == 8 << 20
