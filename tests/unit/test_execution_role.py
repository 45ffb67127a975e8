"""A Python role: requests, arenas, timed calls, and what happens when it dies."""

import os
import time
from pathlib import Path

import pytest
from execution_support import descendants, open_descriptors

from kernelwright.errors import HarnessError, UndeclaredDtype
from kernelwright.execution import Arena, RoleProcess, every_processor


def start(**options) -> RoleProcess:
    return RoleProcess.start("role_under_test", **options)


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def nothing_is_left():
    before = descendants(), open_descriptors()
    yield
    assert descendants() <= before[0]
    assert open_descriptors() <= before[1]


def test_a_users_error_crosses_over_as_itself():
    with start() as role, pytest.raises(UndeclaredDtype, match="there is no f16"):
        role.request("refuse", {"what": "f16"})


def test_requests_and_their_errors():
    with start(arguments=["a", "b"]) as role:
        payload = {"list": [1, 2.5, None], "text": "ü" * 100_000}
        assert role.request("echo", payload) == payload
        assert role.request("arguments")["arguments"] == ["a", "b"]
        with pytest.raises(HarnessError, match="ValueError: cannot add"):
            role.request("fail", {"what": "add"})
        with pytest.raises(HarnessError, match="KeyError: 'unknown'"):
            role.request("unknown")
        assert role.request("echo", {"still": "there"}) == {"still": "there"}


def test_arenas_are_shared_and_seals_hold():
    with Arena("x", 4096) as x, Arena("y", 4096) as y:
        x.view()[:] = 1
        with start(arenas=[x]) as role:
            assert role.request("add", {"arena": "x"}) == {"sum": 4096, "writable": True}
            role.request("write", {"arena": "x", "value": 5})
            assert x.view()[0] == 5
            y.seal()
            y.view()[:] = 2
            role.attach([y])
            assert role.request("add", {"arena": "y"}) == {"sum": 8192, "writable": False}
            with pytest.raises(HarnessError, match="read-only"):
                role.request("write", {"arena": "y", "value": 5})
            role.detach(["y"])
            with pytest.raises(HarnessError, match="KeyError: 'y'"):
                role.request("add", {"arena": "y"})


def test_timed_calls_are_bracketed_and_flushed_before():
    with start() as role:
        reports = [role.timed("nap", {"seconds": 0.005}, flush_bytes=77) for _ in range(5)]
        assert role.request("flushed")["bytes"][-5:] == [77] * 5
        assert 0 < role.handshake_overhead_us < 2000
    for report in reports:
        assert 5000 <= report.elapsed_us < report.bracket_us
        assert report.stray_threads == 0
    assert min(report.bracket_us - report.elapsed_us for report in reports) < 1000


def test_the_allocator_keeps_what_it_has():
    """Fresh large buffers must not fault at each call, as they do by default."""
    with start() as role:
        role.timed("churn", {"nbytes": 8 << 20})
        assert role.timed("churn", {"nbytes": 8 << 20}).minor_faults < 50


def test_an_error_while_timed_is_an_error_and_the_role_goes_on():
    with start() as role:
        with pytest.raises(HarnessError, match="broken while timed"):
            role.timed("broken")
        with pytest.raises(HarnessError, match="KeyError"):
            role.timed("nap", {})
        assert role.timed("nap", {"seconds": 0}).code == 0


def test_a_dead_role_is_an_error_with_its_last_words():
    with start() as role:
        with pytest.raises(HarnessError, match=r"status 3.*\n.*last words"):
            role.request("die")
        with pytest.raises(HarnessError, match="closed"):
            role.request("echo")


def test_a_silent_role_is_given_up():
    with start() as role, pytest.raises(HarnessError, match="no answer within 0"):
        role.request("sleep", {"seconds": 30}, timeout_s=0.2)


def test_a_silent_timed_call_is_given_up():
    with start() as role, pytest.raises(HarnessError, match="timeout"):
        role.timed("nap", {"seconds": 30}, timeout_s=0.2)


def test_a_module_that_does_not_exist_is_named():
    with pytest.raises(HarnessError, match="no_such_module"):
        RoleProcess.start("no_such_module")


def test_freezing_stops_it_and_requests_thaw_it():
    with start() as role:
        role.timed("nap", {"seconds": 0}, park=True)
        state = Path(f"/proc/{role.pid}/stat").read_text().rpartition(") ")[2][0]
        assert state == "T"
        begin = time.monotonic()
        assert role.request("echo", {"a": 1}) == {"a": 1}
        assert time.monotonic() - begin < 5


def test_threads_wait_awake_but_not_for_long():
    names = ["OMP_NUM_THREADS", "GOMP_SPINCOUNT", "OMP_DYNAMIC", "KMP_BLOCKTIME", "MINE"]
    with start(threads=1, env={"MINE": "yes"}) as role:
        assert role.request("environment", {"names": names}) == {
            "OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "400000", "OMP_DYNAMIC": "false",
            "KMP_BLOCKTIME": "20", "MINE": "yes",
        }  # fmt: skip


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one processor only")
def test_runtimes_that_start_late_see_the_processors_of_the_whole_team(monkeypatch):
    every = os.sched_getaffinity(0)
    first, second = sorted(every)[:2]
    monkeypatch.setenv("OMP_PLACES", f"{{{first}}},{{{second}}}")
    os.sched_setaffinity(0, {first})  # as torch's runtime does
    try:
        with every_processor():
            assert os.sched_getaffinity(0) == {first, second}
        assert os.sched_getaffinity(0) == {first}
    finally:
        os.sched_setaffinity(0, every)
