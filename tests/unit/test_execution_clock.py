"""What a timed call reports agrees with what happened."""

import os
import time

import numpy as np
import pytest
from execution_support import THREADS, arguments, built, source, started

from kernelwright.execution import Arena, Call, CallReport, Pointer
from kernelwright.execution.process import places

BUSY = """
    timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    do clock_gettime(CLOCK_MONOTONIC, &now);
    while ((now.tv_sec - start.tv_sec) * 1000000000L + now.tv_nsec - start.tv_nsec < n);
    return 0;
"""
STREAM = """
    #pragma omp parallel for
    for (int64_t i = 0; i < n; ++i) y[i] = 2 * x[i];
    return 0;
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def busy(cache):
    return built(cache, source(BUSY, "time.h"))


@pytest.fixture(scope="module")
def stream(cache):
    return built(cache, source(STREAM))


@pytest.fixture
def arenas():
    with Arena("x", 16 << 20) as x, Arena("y", 16 << 20) as y:
        x.view().view(np.float32)[:] = 3
        x.seal()
        yield [x, y]


def reports(worker, call, count, **options) -> list[CallReport]:
    found = [worker.call(call, **options) for _ in range(count)]
    assert all(isinstance(report, CallReport) for report in found), found
    return found


def test_the_bracket_agrees_with_a_busy_wait_of_2_ms(busy, arenas, cache):
    with started(busy, arenas, cache) as worker:
        found = reports(worker, arguments(2_000_000), 9)
    assert all(report.elapsed_us >= 2000 for report in found)
    assert all(report.bracket_us > report.elapsed_us for report in found)
    assert min(report.elapsed_us for report in found) < 2200
    assert min(report.bracket_us - report.elapsed_us for report in found) < 400


def test_time_outside_the_call_shows_in_the_bracket_only(busy, arenas, cache):
    with started(busy, arenas, cache) as worker:
        quiet = reports(worker, arguments(1_000), 9)
    assert min(report.elapsed_us for report in quiet) < 50
    with started(busy, arenas, cache) as worker:
        assert worker.handshake_overhead_us > 0
        nulls = [worker.null_call() for _ in range(20)]
    assert min(null.elapsed_us for null in nulls) < 5
    assert min(null.bracket_us - null.elapsed_us for null in nulls) < 200


def test_prefaulted_arenas_do_not_fault(stream, arenas, cache):
    call = arguments(4 << 20)
    with started(stream, arenas, cache) as worker:
        found = reports(worker, call, 5, flush_bytes=8 << 20)
        assert all(report.major_faults == 0 for report in found)
        assert max(report.minor_faults for report in found) <= 4
    assert (arenas[1].view().view(np.float32) == 6).all()


def test_fresh_memory_in_the_kernel_is_seen_to_fault(arenas, cache):
    body = """
        char* p = (char*)mmap(0, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (int64_t i = 0; i < n; i += 4096) p[i] = 1;
        return munmap(p, n);
    """
    with started(built(cache, source(body, "sys/mman.h")), arenas, cache) as worker:
        assert worker.call(arguments(1 << 20)).minor_faults >= 200


def test_a_call_against_itself_shows_no_difference(arenas, cache):
    """Two workers with one kernel, interleaved, the other one stopped: the ratio is 1.

    A chain of dependent additions takes the same cycles whatever else uses the memory, and best
    times are compared, so that other load on the machine does not decide.
    """
    chain = built(cache, source("float s = 0; while (n--) s += x[0]; y[0] = s; return 0;"))
    call = arguments(50_000)
    with started(chain, arenas, cache) as a, started(chain, arenas, cache) as b:
        for worker in (a, b):
            worker.freeze()
        times: dict[object, list[float]] = {a: [], b: []}
        for i in range(40):
            for worker in (a, b) if i % 2 else (b, a):
                report = worker.call(call, flush_bytes=1 << 20, park=True)
                times[worker].append(report.elapsed_us)
    assert min(times[a]) > 10
    assert 0.9 < min(times[a]) / min(times[b]) < 1.11


def test_the_flush_makes_the_data_cold(arenas, cache):
    text = source("float s = 0; for (int64_t i = 0; i < n; i += 16) s += x[i]; y[0] = s; return 0;")
    call = arguments((256 << 10) // 4)  # 256 KiB: stays in a second-level cache
    with started(built(cache, text), arenas, cache) as worker:
        reports(worker, call, 3)
        warm = min(report.elapsed_us for report in reports(worker, call, 9))
        cold = min(r.elapsed_us for r in reports(worker, call, 9, flush_bytes=96 << 20))
    assert cold > 1.5 * warm


def test_a_parked_worker_is_stopped_and_costs_no_time(arenas, cache):
    body = """
        std::thread([y] { for (;;) ++*(volatile unsigned*)y; }).detach();
        return 0;
    """
    artifact = built(cache, source(body, "thread"), FLAGS="-O1")
    with started(artifact, arenas, cache) as worker:
        worker.call(arguments(), park=True)
        counter = arenas[1].view(0, 4).view(np.uint32)
        stopped_at = int(counter[0])
        time.sleep(0.05)
        assert int(counter[0]) == stopped_at
        worker.thaw()
        time.sleep(0.05)
        assert int(counter[0]) != stopped_at


def test_waiting_processes_do_not_spin(stream, arenas, cache):
    with started(stream, arenas, cache) as worker:
        worker.call(arguments(1 << 20), flush_bytes=1 << 20)
        path = f"/proc/{worker.pid}/stat"

        def ticks() -> int:
            with open(path) as file:
                return sum(map(int, file.read().rpartition(") ")[2].split()[11:13]))

        before, own = ticks(), time.process_time()
        time.sleep(0.3)
        assert ticks() - before <= 1
        assert time.process_time() - own < 0.05


def test_integers_and_doubles_arrive_whatever_their_order(arenas, cache):
    text = """#include "kernelwright.h"
    extern "C" int kernel(double a, const float* x, double b, int64_t n0, int64_t n1, int64_t n2,
                          int32_t f, int64_t n3, double c, int64_t n4, double d, double* y,
                          double e, double g, double h, int64_t n5, double i) {
        double v[] = {a, b, c, d, e, g, h, i, (double)n0, (double)n1, (double)n2, (double)f,
                      (double)n3, (double)n4, (double)n5, x[1]};
        for (int k = 0; k < 16; ++k) y[k] = v[k];
        return 0;
    }
    extern "C" int64_t kernel_workspace(int64_t n, double s, int64_t m) { return n * m + 10 * s; }
    """
    with started(built(cache, text), arenas, cache) as worker:
        values = (1.5, Pointer("x"), 2.5, 1 << 40, -2, 3, True, 4, 3.5, 5, 4.5, Pointer("y", 64),
                  5.5, 6.5, 7.5, 6, 8.5)  # fmt: skip
        assert worker.call(Call(values)).code == 0
        assert worker.workspace_bytes((6, 7), (0.5,)) == 47
    got = arenas[1].view(64, 128).view(np.float64)
    assert list(got) == [1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5, 2.0**40, -2, 3, 1, 4, 5, 6, 3]


def test_without_a_workspace_function_nothing_is_needed(stream, arenas, cache):
    with started(stream, arenas, cache) as worker:
        assert worker.workspace_bytes((5,)) == 0


def test_a_worker_starts_quickly(stream, arenas, cache):
    started(stream, arenas, cache).close()
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        started(stream, arenas, cache).close()
        times.append(time.perf_counter() - begin)
    assert min(times) < 0.2


def test_the_team_has_the_size_that_was_asked_for(stream, arenas, cache):
    with started(stream, arenas, cache) as worker:
        assert worker.team == THREADS == worker.call(arguments()).team
        assert len(os.listdir(f"/proc/{worker.pid}/task")) == THREADS


def test_the_flush_is_not_in_the_bracket(stream, arenas, cache):
    with started(stream, arenas, cache) as worker:
        begin = time.perf_counter()
        found = reports(worker, arguments(1), 5, flush_bytes=128 << 20)
        each_us = (time.perf_counter() - begin) / 5 * 1e6
    assert min(report.bracket_us for report in found) < each_us / 2


def _processors(pid):
    """Processors that each task of a process may run on."""
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status") as lines:
            allowed = next(line for line in lines if line.startswith("Cpus_allowed_list"))
        found.append(allowed.split()[1])
    return found


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < THREADS, reason="needs two processors")
def test_each_thread_of_a_team_has_a_processor_of_its_own(stream, arenas, cache):
    with started(stream, arenas, cache) as worker:
        reports(worker, arguments(1000), 1)
        bound = _processors(worker.pid)
    assert len(bound) == THREADS
    assert len(set(bound)) == THREADS
    assert all(place.isdigit() for place in bound), bound


def test_places_are_distinct_processors_that_this_process_may_use():
    spelt = places(THREADS)
    chosen = [int(place.strip("{}")) for place in spelt.split(",")]
    assert len(set(chosen)) == len(chosen) > 0
    assert set(chosen) <= os.sched_getaffinity(0)
