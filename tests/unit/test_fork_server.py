"""Workers of Python kernels are forked: each as alone as one that was started by itself."""

import json
import os
import secrets
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from execution_support import descendants

from kernelwright.build import Artifact, Builders
from kernelwright.execution import Arena, Call, CallReport, Failure, Limits, Pointer, Worker
from kernelwright.execution.fork_server import ForkServer, _servers, close_fork_servers  # pyright: ignore
from kernelwright.machine import probe
from kernelwright.model import Candidate, Dtype, Host, Reason, Signature, TensorArgument

pytestmark = pytest.mark.skipif(
    probe().isolation != "sandbox", reason="workers are forked in a sandbox only"
)
SIGNATURE = Signature((TensorArgument("x", ("N",)),), (TensorArgument("out", ("N",)),))
CALL = Call((Pointer("x"), Pointer("out"), 1024, 0, 0, 0, 0))
SHORT = Limits(call_s=10.0)
OUTPUT = "/memfd:kernelwright-output (deleted)"
PLAIN = "def kernel(x, out, *, N): out.copy_(x)\n"
LOOKS = """
import ctypes, json, os, random
import numpy, torch

CODED, KEPT, OWN = "@CODED@", "@KEPT@", "@OWN@"
CODE = bytes((byte + 1) % 256 for byte in range(256))

def refused(action, *arguments):
    try:
        return repr(action(*arguments))
    except OSError as error:
        return type(error).__name__

def status(name, path="/proc/self/status"):
    with open(path) as file:
        return [line.split()[1] for line in file if line.startswith(name)][0]

def writable_shared_kib():
    # of what is still the server's too; what the loader has sealed is read alone
    total, writable = 0, False
    for line in open("/proc/self/smaps"):
        first, *rest = line.split()
        if not first.endswith(":"):
            writable = rest[0] == "rw-p"
        elif first == "Shared_Dirty:" and writable:
            total += int(rest[0])
    return total

def count(*coded):
    # what is searched for is nowhere in this process unless it was there before
    found = [0] * len(coded)
    with open("/proc/self/maps") as file:
        maps = [line.split()[:2] for line in file]
    with open("/proc/self/mem", "rb", 0) as memory:
        for area, rights in maps:
            start, end = (int(part, 16) for part in area.split("-"))
            if rights.startswith("rw") and end - start < 1 << 30:
                memory.seek(start)
                data = memory.read(end - start).translate(CODE)
                found = [n + data.count(word.encode()) for n, word in zip(found, coded)]
    return found

def kernel(x, out, *, N):
    with open("/proc/self/maps") as file:
        maps = [line.split("kernelwright-")[1].split()[0] for line in file if "memfd:" in line]
    with open("/proc/net/dev") as file:
        interfaces = [line.split(":")[0].strip() for line in file if ":" in line]
    with open("/proc/self/cmdline") as file:
        command = file.read()
    links = []
    for name in os.listdir("/proc/self/fd"):
        if os.path.lexists(f"/proc/self/fd/{name}"):
            links.append(os.readlink(f"/proc/self/fd/{name}"))
    native = ctypes.CDLL(None, use_errno=True)
    seen = {
        "processes": sorted(name for name in os.listdir("/proc") if name.isdigit()),
        "descriptors": sorted(links),
        "arenas": sorted(set(maps)),
        "capabilities": [status(name) for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")],
        "confined": [status(name) for name in ("NoNewPrivs:", "Seccomp:")],
        "refused": [refused(os.kill, 1, 9), refused(os.kill, -1, 9), refused(os.kill, 0, 9),
                    refused(open, "/proc/1/mem", "rb"), refused(os.readlink, "/proc/1/cwd"),
                    refused(os.listdir, "@FOLDER@")],
        "native": [native.unshare(0x10000000), native.ptrace(16, 1, 0, 0),
                   native.umount2(b"/proc", 2), native.setns(0, 0)],
        "interfaces": interfaces,
        "shared": os.listdir("/dev/shm"),
        "read-only": [bool(os.statvfs(path).f_flag & os.ST_RDONLY) for path in ("/", "/proc")],
        "threads": len(os.listdir("/proc/self/task")),
        "named": "@KEY@" in command,
        "remembered": [n > 0 for n in count(CODED, OWN)],
        "sum": torch.ones(1 << 18).sum().item(),
        "shared_kib": writable_shared_kib(),
        "drawn": [random.random(), numpy.random.random()],
    }
    text = json.dumps(seen).encode()
    ctypes.memmove(out.data_ptr(), text + bytes(4 * N - len(text)), 4 * N)
"""


@pytest.fixture(scope="module")
def builders(tmp_path_factory):
    return Builders(probe().toolchains, tmp_path_factory.mktemp("forked"))


@pytest.fixture(autouse=True)
def _one_server():
    """Those of earlier tests are for other teams."""
    close_fork_servers()


def made(builders: Builders, source: str) -> tuple[Artifact, Host]:
    artifact = builders.build(Candidate("python", "kernel", source))
    assert isinstance(artifact, Artifact), artifact
    return artifact, builders.host(artifact, SIGNATURE, Dtype.F32)


def started(pair: tuple[Artifact, Host], arenas: list[Arena]) -> Worker:
    worker = Worker.start(pair[0].path, "kernel", pair[1], arenas, 2, SHORT)
    assert isinstance(worker, Worker), worker
    if pair[1].server and not _servers.running:
        worker.close()
        pytest.skip("no namespaces can be made inside of a sandbox here")
    return worker


def running_server() -> ForkServer:
    (server,) = [server for server in _servers.running.values() if server.alive]
    return server


def server_tasks() -> list[int]:
    """Threads of each interpreter that forks workers here."""
    return [
        len(os.listdir(f"/proc/{pid}/task"))
        for pid in descendants()
        if b"host.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
        and f"NSpid:\t{pid}\t2\n" in Path(f"/proc/{pid}/status").read_text()
    ]


def coded(text: str) -> str:
    return bytes(byte + 1 for byte in text.encode()).decode()


def look(pair: tuple[Artifact, Host], x: Arena, y: Arena) -> dict:
    with started(pair, [x, y]) as worker:
        assert worker.team == 2
        report = worker.call(CALL, park=True)
        assert isinstance(report, CallReport), report
        assert report.stray_threads == 0
        return json.loads(bytes(y.view()).rstrip(b"\0"))


def test_a_forked_worker_finds_neither_siblings_nor_server(builders):
    """Files, memory, descriptors, processes, rights and draws of what was forked beside it."""
    others, own = secrets.token_hex(16), secrets.token_hex(16)
    sibling = made(builders, f"TOKEN = '{others}'\n{PLAIN}")
    source = LOOKS.replace("@CODED@", coded(others)).replace("@OWN@", coded(own))
    source = source.replace("@KEPT@", own).replace("@KEY@", sibling[0].key)
    looks = made(builders, source.replace("@FOLDER@", str(sibling[0].path.parent)))
    seen = []
    with (
        Arena("x", 1 << 12) as x,
        Arena("out", 1 << 12) as y,
        Arena("others", 1 << 12) as z,
        started(sibling, [z]) as beside,
    ):
        x.seal()
        assert server_tasks() == [1], "a thread before the fork would be lost with its locks"
        for _ in range(2):
            seen.append(look(looks, x, y))
        assert beside.alive
        assert server_tasks() == [1]
        alone = look((looks[0], replace(looks[1], server=())), x, y)
    first, second = seen
    drawn = zip(first.pop("drawn"), second.pop("drawn"), strict=True)
    assert all(a != b for a, b in drawn)
    for one in seen:
        assert one.pop("shared_kib") < 1, "or it would be copied inside of timed calls"
    assert first == second
    for name in ("threads", "arenas", "interfaces", "shared", "native", "sum", "confined"):
        assert first[name] == alone[name], name
    first.pop("threads")
    assert first == {
        "processes": ["1", "2"],
        "descriptors": ["/dev/null", *[OUTPUT] * 2, *["anon_inode:[eventfd]"] * 2],
        "arenas": ["out", "page", "x"],
        "capabilities": ["0" * 16] * 4,
        "confined": ["1", "2"],
        "refused": ["PermissionError"] * 5 + ["FileNotFoundError"],
        "native": [-1] * 4,
        "interfaces": ["lo"],
        "shared": [],
        "read-only": [True, True],
        "named": False,
        "remembered": [False, True],
        "sum": 1 << 18,
    }  # fmt: skip


def test_the_death_of_a_server_costs_its_workers_and_no_more(builders):
    pair = made(builders, PLAIN)
    with Arena("x", 1 << 12) as x, Arena("out", 1 << 12) as y:
        with started(pair, [x, y]) as worker:
            server = running_server()
            os.killpg(server.pid, signal.SIGKILL)
            end = time.monotonic() + 20
            while worker.alive and time.monotonic() < end:
                time.sleep(0.001)
            failure = worker.call(CALL)
            assert isinstance(failure, Failure)
            assert failure.reason is Reason.KILLED
            assert not worker.alive
        with started(pair, [x, y]) as worker:
            assert running_server() is not server
            assert isinstance(worker.call(CALL), CallReport)


def test_where_namespaces_cannot_be_made_each_worker_starts_alone(builders):
    artifact, host = made(builders, PLAIN)
    says = (host.command[0], "-c", "import sys; sys.exit('none here')")
    with Arena("x", 1 << 12) as x, Arena("out", 1 << 12) as y:
        with pytest.warns(UserWarning, match=r"loads its own interpreter: .*none here"):
            worker = Worker.start(
                artifact.path, "kernel", replace(host, server=says), [x, y], 2, SHORT
            )
        with worker:
            assert isinstance(worker.call(CALL), CallReport)
