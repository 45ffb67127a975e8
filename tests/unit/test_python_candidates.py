"""Candidates in Python: built, called and judged like those in C++."""

import os
import signal
from dataclasses import replace

import pytest
from judging import rms_norm as cpp_rms_norm

from kernelwright.build import Artifact, Builders
from kernelwright.build.interpreter import interpreter
from kernelwright.cli import main
from kernelwright.errors import CandidateError
from kernelwright.evaluation import Judge, JudgeSettings
from kernelwright.execution import Arena, Call, CallReport, Failure, Limits, Pointer, Worker
from kernelwright.execution.fork_server import _servers  # pyright: ignore
from kernelwright.machine import probe
from kernelwright.model import (
    Candidate,
    Dtype,
    FrozenMap,
    Measured,
    Reason,
    Rejected,
    ScalarArgument,
    Signature,
    TensorArgument,
)
from kernelwright.problems import load_problem, parse_reference
from kernelwright.problems.plain_python import plain_python_kernel
from kernelwright.propose import own_kernel_family
from kernelwright.suite import find, names

# little is flushed: times are not the point here
SETTINGS = replace(
    JudgeSettings.quick(), baselines=(), limits=Limits(call_s=1.5), flush_factor=0.02
)
RMS_NORM = """
import torch

# @tune WIDE = 1, 0

def kernel(x, w, out, *, T, H, eps, WIDE):
    @FIRST@
    wide = x.double() if WIDE else x.float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    out.copy_(wide * scale * w)
    @LAST@
"""
SOFTMAX = """
import numpy as np

def softmax(x, out, *, T, H):
    x, out = x.numpy(), out.numpy()
    e = np.exp(x - x.max(-1, keepdims=True), dtype=np.float64)
    np.divide(e, e.sum(-1, keepdims=True), out=out, casting="same_kind")
"""


def rms_norm(first="pass", last="pass", before=""):
    return before + RMS_NORM.replace("@FIRST@", first).replace("@LAST@", last)


FAR = """
import torch

class Table:
    half = torch.tensor(0.5)

def halved(x):
    return x * Table.half

example_shapes = {"x": (4, 8)}
"""
# name: (source, stage, reason, words of the diagnostic)
WRONG = {
    "syntax error": ("def kernel(x):\n    return x x\n", "build", "compile_error",
                     ("line 2", "return x x", "SyntaxError")),
    "reserved tunable": ("CXX", "build", "toolchain_missing", ("CXX = g++", "Python kernel")),
    "no function": ("def other(): pass\n", "load", "missing_symbol", ("'kernel'", "top level")),
    "exception at import": ("import torch\ntorch.nothing\n", "load", "load_failed",
                            ('kernel.py", line 2', "AttributeError", "nothing")),
    "imports us": ("import kernelwright.suite\n", "load", "load_failed",
                   ("kernelwright", "a kernel may import torch, numpy and numba")),
    "arity": ("def kernel(x, out, *, T, H, eps): pass\n", "load", "load_failed",
              ("kernel(x, w, out, *, T, H, eps)", "too many positional arguments")),
    "changes the denormal mode": (
        rms_norm(last="torch.set_flush_denormal(True)"), "check", "floating_point_state", ()),
    "exception": (rms_norm(first="x + w[:-1]"), "check", "error_code",
                  ('kernel.py", line 7, in kernel', "x + w[:-1]", "RuntimeError", "T=")),
    "returns instead of writing": ("def kernel(x, w, out, *, T, H, eps): return x * w\n",
                                   "check", "error_code", ("returned a Tensor", "outputs")),
    "wrong result": (rms_norm(last="out[T // 2] *= 1.01"), "check", "wrong_result",
                     ("expected", "only in row")),
    "writes an input": (rms_norm(last="x[0, 0] = 1"), "check", "wrote_input", ("read-only",)),
    "writes past the end": (
        rms_norm(last="import ctypes; ctypes.memset(out.data_ptr() + out.nbytes, 1, 4)"),
        "check", "red_zone", ("past the end of 'out'",)),
    "hang": (rms_norm(last="while True: pass"), "check", "hang", ("no answer within 1.5 s",)),
    "exit": (rms_norm(last="import os; os._exit(0)"), "check", "exited", ("status 0",)),
    "asks to exit": (rms_norm(last="raise SystemExit(3)"), "check", "exited",
                     ("status 3", "SystemExit: 3")),
    "infinite output": (rms_norm(last="while True: print('and on')"), "check", "endless_output",
                        ("bytes of output",)),
    "too much memory": (rms_norm(last="torch.empty(1 << 40)"), "check", "out_of_memory",
                        ("DefaultCPUAllocator",)),
    "leaves a thread": (
        rms_norm(last="import threading, time; threading.Thread(target=time.sleep, args=(9,))"
                 ".start()"),
        "check", "stray_threads", ("1 threads",)),
    "starts a process": (rms_norm(last="import subprocess; subprocess.run(['true'])"),
                         "check", "error_code", ("PermissionError",)),
}  # fmt: skip


@pytest.fixture(scope="module")
def machine():
    return probe()


@pytest.fixture(scope="module")
def builders(machine, tmp_path_factory):
    return Builders(machine.toolchains, tmp_path_factory.mktemp("cache"))


def opened(machine, builders, name, dtype, sizes):
    sizes = FrozenMap(sizes)
    return Judge(find(name), dtype, sizes, machine, builders, seed=3, settings=SETTINGS).open()


@pytest.fixture(scope="module")
def judge(machine, builders):
    with opened(machine, builders, "rms_norm", "f32", {"T": 64, "H": 256}) as judge:
        yield judge


def screened(judge, source, entry="kernel", **tunables):
    candidate = Candidate("python", entry, source, FrozenMap(tunables))
    artifact = judge.builder.build(candidate)
    if isinstance(artifact, Rejected):
        return artifact
    return judge.screen(candidate, artifact).verdict


@pytest.mark.parametrize("wide", [1, 0])
def test_a_right_kernel_is_measured_at_every_value_of_its_tunables(judge, wide):
    verdict = screened(judge, rms_norm(), WIDE=wide)
    assert isinstance(verdict, Measured), verdict
    (result,) = verdict.workloads
    assert result.time_us.median > 0
    assert result.error <= 1


def test_a_right_kernel_is_measured_in_bf16(machine, builders):
    with opened(machine, builders, "rms_norm", "bf16", {"T": 64, "H": 256}) as judge:
        verdict = screened(judge, rms_norm(), WIDE=1)
    assert isinstance(verdict, Measured), verdict


def test_numpy_on_the_lent_memory(machine, builders):
    with opened(machine, builders, "softmax", "f32", {"T": 64, "H": 256}) as judge:
        verdict = screened(judge, SOFTMAX, entry="softmax")
    assert isinstance(verdict, Measured), verdict


def test_the_plain_kernel_of_a_problem_is_right(machine, builders):
    """Two outputs in bf16, one rounded before it is used, from the reference's own source."""
    name = "fused_add_rms_norm"
    source = plain_python_kernel(load_problem(find(name)), Dtype.BF16)
    assert "def kernel(x, r, w, y, residual, *, T, H, eps):" in source
    with opened(machine, builders, name, "bf16", {"T": 64, "H": 256}) as judge:
        verdict = screened(judge, source)
    assert isinstance(verdict, Measured), verdict


@pytest.mark.parametrize("name", names())
def test_every_shipped_problem_has_a_plain_kernel(name, tmp_path):
    problem = load_problem(find(name))
    source = plain_python_kernel(problem, problem.dtypes[0])
    assert "NotImplementedError" not in source
    compile(source, "kernel.py", "exec")
    (tmp_path / "mine.py").write_text(source)
    assert own_kernel_family(tmp_path / "mine.py").entry == "kernel"


def test_a_reference_out_of_reach_leaves_the_body_to_the_reader(tmp_path):
    path = tmp_path / "far.py"
    path.write_text(FAR)
    source = plain_python_kernel(load_problem(parse_reference(str(path))), Dtype.F32)
    assert "it uses 'Table'" in source
    assert source.endswith('raise NotImplementedError("write the outputs")\n')


def test_show_prints_the_python_prototype(capsys):
    with pytest.raises(SystemExit):
        main(["show", "rms_norm", "--language", "python"])
    assert "def kernel(x, w, out, *, T, H, eps) -> None: ..." in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["show", "rms_norm", "--language", "fortran"])
    assert ended.value.code == 2
    assert "choose from cpp, python" in capsys.readouterr().err


@pytest.mark.parametrize("name", list(WRONG))
def test_wrong_kernels_are_rejected_with_stage_reason_and_words(judge, name):
    source, stage, reason, words = WRONG[name]
    if name == "reserved tunable":
        verdict = screened(judge, rms_norm(), WIDE=1, CXX="g++")
    else:
        verdict = screened(judge, source, **({"WIDE": 1} if "WIDE" in source else {}))
    assert isinstance(verdict, Rejected), verdict
    assert (str(verdict.stage), str(verdict.reason)) == (stage, reason), verdict.diagnostic
    for word in words:
        assert word in verdict.diagnostic
    assert "host.py" not in verdict.diagnostic
    assert "site-packages/" not in verdict.diagnostic


@pytest.mark.skipif(probe().isolation != "sandbox", reason="workers are forked in a sandbox only")
def test_a_verdict_survives_the_death_of_the_fork_server(judge, monkeypatch):
    """The call that it interrupts is made once more, by a worker of a new server."""
    real, killed = Worker.call, list[int]()

    def struck(worker, *arguments, **options):
        if not killed:
            servers = [server for server in _servers.running.values() if server.alive]
            if not servers:
                pytest.skip("no namespaces can be made inside of a sandbox here")
            (server,) = servers
            killed.append(server.pid)
            os.killpg(server.pid, signal.SIGKILL)
        return real(worker, *arguments, **options)

    monkeypatch.setattr(Worker, "call", struck)
    assert isinstance(screened(judge, rms_norm(), WIDE=1), Measured)
    assert killed


def test_a_duel_with_a_kernel_in_cpp(judge):
    """Both in the same rounds: each language's host in its own process."""
    cpp = Candidate("cpp", "kernel", cpp_rms_norm())
    python = Candidate("python", "kernel", rms_norm(), FrozenMap({"WIDE": 0}))
    built = judge.builder.build_many([python, cpp])
    assert list(built) == [python.identity, cpp.identity]
    report = judge.duel(python, built[python.identity], (cpp, built[cpp.identity]))
    assert isinstance(report.verdict, Measured), report
    assert report.champion_fault is None
    assert report.ratio is not None, "the kernel in C++ ran in the same rounds"


SIGNATURE = Signature(
    (TensorArgument("x", ("N", "2*K")), TensorArgument("mask", ("N",), Dtype.BOOL)),
    (TensorArgument("out", ("N", "K+1")),),
    (ScalarArgument("k", "int"), ScalarArgument("scale", "float"), ScalarArgument("flag", "bool")),
)
ECHO = """
import kernel as itself, sys, torch

def kernel(x, mask, out, *, N, K, k, scale, flag, LANES):
    out.fill_(-1)
    assert (x.shape, mask.shape, out.shape) == ((N, 2 * K), (N,), (N, K + 1))
    assert (x.dtype, mask.dtype) == (torch.float32, torch.bool) and flag is True
    assert torch.get_num_threads() == 2 and itself.kernel is sys.modules["kernel"].kernel
    assert x.is_contiguous() and x.data_ptr() % 64 == 0
    out[0, :5] = torch.tensor([N, K, k, scale, LANES])
    out[1, :N] = torch.where(mask, x[:, 0], 0)
"""


def test_tensors_dimensions_scalars_and_tunables_arrive(builders):
    candidate = Candidate("python", "kernel", ECHO, FrozenMap({"LANES": 8}))
    artifact = builders.build(candidate)
    assert isinstance(artifact, Artifact), artifact
    host = builders.host(artifact, SIGNATURE, Dtype.F32)
    with Arena("in", 1 << 16) as source, Arena("out", 1 << 16) as target:
        values = source.view().view("float32")
        values[16 : 16 + 24] = range(24)
        source.view()[1024:1027] = (1, 0, 1)
        source.seal()
        worker = Worker.start(artifact.path, "kernel", host, [source, target], 2, Limits())
        assert isinstance(worker, Worker), worker
        with worker:
            assert worker.team == 2
            assert worker.syscall_filter
            assert worker.isolation == probe().isolation
            pointers = Pointer("in", 64), Pointer("in", 1024), Pointer("out", 4096)
            for k in (7, 9):
                call = Call((*pointers, 3, 4, k, 0.5, 1, 0, 0, 0, 0))
                report = worker.call(call, flush_bytes=1 << 20, park=True)
                assert isinstance(report, CallReport), report
                assert (report.code, report.stray_threads) == (0, 0)
                assert 0 < report.elapsed_us < report.bracket_us
                found = target.view().view("float32")[1024 : 1024 + 15].reshape(3, 5)
                assert found.tolist() == [[3, 4, k, 0.5, 8], [0, 0, 16, -1, -1], [-1] * 5]


NUMBA = """
import numba, os

@numba.njit(parallel=True)
def count(found):
    for place in numba.prange(found.size):
        found[place] = numba.get_thread_id() + 1

def kernel(x, mask, out, *, N, K, k, scale, flag):
    found = out.numpy().reshape(-1)
    count(found[:8])
    places = [os.sched_getaffinity(int(task)) for task in os.listdir("/proc/self/task")]
    found[8] = len(set.union(*places))
    found[9] = max(map(len, places))
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two processors")
def test_numba_has_a_team_with_a_processor_for_each_thread(builders):
    """torch's runtime binds the thread that loads it to one, and numba counted that one."""
    pytest.importorskip("numba")
    artifact = builders.build(Candidate("python", "kernel", NUMBA))
    host = builders.host(artifact, SIGNATURE, Dtype.F32)
    with Arena("in", 1 << 16) as source, Arena("out", 1 << 16) as target:
        limits = Limits(call_s=60.0)  # it compiles
        worker = Worker.start(artifact.path, "kernel", host, [source, target], 2, limits)
        assert isinstance(worker, Worker), worker
        with worker:
            pointers = Pointer("in", 64), Pointer("in", 1024), Pointer("out", 4096)
            report = worker.call(Call((*pointers, 3, 4, 7, 0.5, 1, 0, 0, 0, 0)))
            assert isinstance(report, CallReport), report
            found = target.view().view("float32")[1024 : 1024 + 10].astype(int).tolist()
    assert set(found[:8]) == {1, 2}
    assert found[8:] == [2, 1]


def test_intermediate_tensors_do_not_fault_pages_once_warm(builders):
    """As with the baselines: or the allocator would be what is measured."""
    body = "x, mask, out, *, N, K, k, scale, flag"
    source = f"import torch\ndef kernel({body}):\n    torch.ones(1 << 23)\n"
    artifact = builders.build(Candidate("python", "kernel", source))
    host = builders.host(artifact, SIGNATURE, Dtype.F32)
    with Arena("in", 1 << 16) as source, Arena("out", 1 << 16) as target:
        worker = Worker.start(artifact.path, "kernel", host, [source, target], 2, Limits())
        with worker:
            pointers = Pointer("in", 64), Pointer("in", 1024), Pointer("out", 4096)
            call = Call((*pointers, 3, 4, 7, 0.5, 1, 0, 0, 0, 0))
            reports = [worker.call(call) for _ in range(16)]  # the heap settles
    assert reports[0].minor_faults > 100
    assert reports[-1].minor_faults < 20


OTHERS = """
import importlib, numpy, sys, torch

sys.path += @FOLDERS@
for name in ("sqlalchemy", "pytest", "pip", "kernelwright"):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        continue
    raise ValueError(f"{name} is there")
raise ValueError("none is there")
"""


@pytest.mark.skipif(probe().isolation != "sandbox", reason="without a sandbox all files are there")
def test_other_packages_are_not_there(builders):
    """Of what is installed, beside torch or beside the interpreter, a kernel sees what it may."""
    folders = [str(folder) for folder in interpreter().hidden]
    source = OTHERS.replace("@FOLDERS@", repr(folders))
    artifact = builders.build(Candidate("python", "kernel", source))
    host = builders.host(artifact, SIGNATURE, Dtype.F32)
    failure = Worker.start(artifact.path, "kernel", host, [], 2, Limits())
    assert isinstance(failure, Failure)
    assert failure.reason is Reason.LOAD_FAILED
    assert "none is there" in failure.detail
    shown = replace(host, hidden=())
    failure = Worker.start(artifact.path, "kernel", shown, [], 2, Limits())
    if any((folder / "pip").exists() for folder in host.hidden):
        assert "none is there" not in failure.detail, "hiding is what keeps it out of sight"


def test_a_kernel_file_is_a_family(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("import torch\n\ndef _help(): pass\n\n" + rms_norm())
    family = own_kernel_family(path)
    assert (family.language, family.entry, family.name) == ("python", "kernel", "own:mine.py")
    path.write_text("def mine(x, out): pass\ndef other(): pass\n")
    assert own_kernel_family(path).entry == "mine"
    path.write_text("def one(x, out): pass\ndef other(): pass\n")
    with pytest.raises(
        CandidateError, match=r"one that is called mine or kernel; it defines one, other"
    ):
        own_kernel_family(path)
    with pytest.raises(
        CandidateError, match=r"is fortran, which nothing builds: only cpp, cuda, python"
    ):
        own_kernel_family(path, "fortran")


def test_a_language_that_nothing_builds_is_a_verdict(builders):
    candidate = Candidate("fortran", "kernel", "end")
    assert "choose from cpp, cuda, python" in builders.supports(candidate)
    (verdict,) = builders.build_many([candidate]).values()
    assert isinstance(verdict, Rejected)
    assert verdict.reason is Reason.TOOLCHAIN_MISSING
