"""A Python role that runs a stranger's file: what it sees, what it can reach, what stops it."""

import os
import time
from pathlib import Path

import pytest
from execution_support import descendants

from kernelwright.errors import HarnessError
from kernelwright.execution import RoleProcess, python_view
from kernelwright.sandbox import View, isolation, run_confined

pytestmark = pytest.mark.skipif(isolation() == "process", reason="bubblewrap does not work here")
BOMB = """
import os, sys, time
for _ in range(2000):
    try:
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
    except OSError as error:
        print("refused", error.errno, flush=True)
        break
time.sleep(20)
"""


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setenv("SECRET_API_KEY", "hunter2")


@pytest.fixture
def role(tmp_path):
    folder = tmp_path / "problem"
    folder.mkdir()
    (folder / "problem.py").write_text("ours = 1\n")
    (tmp_path / "outside.txt").write_text("secret")
    view = python_view([folder / "problem.py"])
    with RoleProcess.start("role_under_test", view=view) as started:
        yield started


def evaluate(role: RoleProcess, expression: str, timeout_s: float = 30.0):
    return role.request("evaluate", {"expression": expression}, timeout_s)["value"]


def test_the_environment_holds_no_secrets(role):
    assert evaluate(role, "'SECRET_API_KEY' in os.environ") is False
    assert evaluate(role, "os.path.expanduser('~')") == "/tmp"


def test_only_the_folder_of_the_problem_is_seen(role, tmp_path):
    assert evaluate(role, f"os.listdir({str(tmp_path)!r})") == ["problem"]
    assert evaluate(role, f"os.listdir({str(tmp_path / 'problem')!r})") == ["problem.py"]
    assert evaluate(role, "os.path.exists('/etc/passwd') or os.path.exists('/var/log')") is False


def test_a_problem_in_the_home_does_not_open_the_home(tmp_path, monkeypatch):
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "key").write_text("secret")
    (home / "notes.txt").write_text("secret")
    (home / "problem.py").write_text("ours = 1\n")
    monkeypatch.setenv("HOME", str(home))
    view = python_view([home / "problem.py"])
    with RoleProcess.start("role_under_test", view=view) as started:
        assert evaluate(started, f"os.listdir({str(home)!r})") == ["problem.py"]


def test_nothing_but_tmp_can_be_written(role, tmp_path):
    for path in (tmp_path / "problem" / "new", Path("/usr/lib/new"), Path("/new")):
        with pytest.raises(HarnessError, match=r"OSError|PermissionError"):
            evaluate(role, f"open({str(path)!r}, 'w').close()")
    assert evaluate(role, "open('/tmp/new', 'w').write('text')") == 4


def test_there_is_no_network(role):
    with pytest.raises(HarnessError, match="unreachable"):
        evaluate(role, "__import__('socket').create_connection(('1.1.1.1', 80), 3)")
    assert evaluate(role, "[n for _, n in __import__('socket').if_nameindex()]") == ["lo"]


def test_other_processes_do_not_exist(role):
    seen = evaluate(role, "sorted(int(n) for n in os.listdir('/proc') if n.isdigit())")
    assert len(seen) == 2
    assert role.pid not in seen


def test_memory_is_limited(role):
    with pytest.raises(HarnessError, match="MemoryError"):
        evaluate(role, "len(bytearray(1 << 42))")


def test_a_fork_bomb_is_contained(role):
    before = descendants()
    started = time.monotonic()
    with pytest.raises(HarnessError, match=r"more than \d+ threads and processes|refused 11"):
        evaluate(role, f"exec({BOMB!r})", timeout_s=15)
    assert time.monotonic() - started < 10
    assert_gone(before)


@pytest.mark.parametrize("detached", [False, True], ids=["same session", "own session"])
def test_a_fork_bomb_beside_a_compiler_is_contained(tmp_path, detached):
    bomb = (
        "import os; os.setsid() if os.fork() == 0 else os._exit(0)\n" if detached else ""
    ) + BOMB
    view = View(system=True, writable=(tmp_path,), folder=tmp_path)
    before = descendants()
    started = time.monotonic()
    outcome = run_confined(["/usr/bin/env", "python3", "-c", bomb], view, 15, processes=100)
    assert time.monotonic() - started < 10
    assert "more than 100 processes" in outcome.output or "refused 11" in outcome.output or detached
    assert_gone(before)


def assert_gone(before):
    """Killing a process namespace takes the kernel a moment."""
    deadline = time.monotonic() + 5
    while descendants() - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert descendants() <= before


def test_an_ordinary_user_is_refused_processes_one_by_one(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs a superuser to become another one")
    script = "for i in $(seq 40); do sleep 5 & done; echo all"
    inner = ["/bin/sh", "-c", "{ ulimit -u 20 || ulimit -p 20; } 2>/dev/null; " + script]
    view = View(system=True, folder=Path("/tmp"))
    import subprocess

    from kernelwright.sandbox import confine

    other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    done = subprocess.run(
        [*other, *confine(inner, view)], capture_output=True, text=True, timeout=60
    )
    assert "all" not in done.stdout
    assert "fork" in done.stderr
