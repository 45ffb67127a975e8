"""The winner's files: a real kernel is compiled, imported and held against torch."""

import importlib.util
import re
import shlex
import shutil
import signal
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kernelwright.build import Toolkit
from kernelwright.deploy import WinnerFiles, isa_fingerprint, write_winner
from kernelwright.errors import MachineError, ProblemError
from kernelwright.machine.facts import isa_flags
from kernelwright.model import (
    Candidate,
    Dtype,
    FrozenMap,
    Machine,
    PublicProblem,
    ScalarArgument,
    Signature,
    TensorArgument,
    Toolchain,
)
from kernelwright.problems import ProblemReference

REFERENCE = '''
import torch

def scaled_pair(x, scale: float, w, *, shift: float = 0.5):
    """Row sums beside x scaled by w."""
    return x * scale * w + shift, x.sum(-1)
'''

KERNEL = r"""
#include "kernelwright.h"
#include <stdlib.h>
// @tune UNROLL = 1, 2, 4
// @tune CXX = g++, clang++
// @tune FLAGS = "-O2", "-O3 -march=native"
extern "C" int64_t kernel_workspace(int64_t M, int64_t D, double scale, double shift) {
    return M * 8;
}
extern "C" int kernel(const float* x, const float* w, float* out0, float* out1,
                      int64_t M, int64_t D, double scale, double shift,
                      const void*, void* workspace, int64_t workspace_bytes, void*) {
    if (workspace_bytes != M * 8 || workspace == nullptr) return 7;
    if ((size_t)x % 64 || (size_t)w % 64) return 8;
    double* sums = static_cast<double*>(workspace);
    const int64_t W = 2 * D;
#pragma omp parallel for
    for (int64_t i = 0; i < M; ++i) {
        double sum = 0;
        for (int64_t j = 0; j < W; j += UNROLL)
            for (int64_t k = j; k < j + UNROLL && k < W; ++k) {
                sum += x[i * W + k];
                out0[i * W + k] = x[i * W + k] * float(scale) * w[k] + float(shift);
            }
        sums[i] = sum;
        out1[i] = float(sums[i]);
    }
    return 0;
}
"""

SIGNATURE = Signature(
    inputs=(TensorArgument("x", ("M", "2*D")), TensorArgument("w", ("2*D",))),
    outputs=(TensorArgument("out0", ("M", "2*D")), TensorArgument("out1", ("M",))),
    scalars=(ScalarArgument("scale", "float"), ScalarArgument("shift", "float", 0.5)),
)
PUBLIC = PublicProblem(
    name="scaled_pair",
    scenario="user",
    summary="Row sums beside x scaled by w.",
    signature=SIGNATURE,
    dtypes=(Dtype.F32,),
    sizes=FrozenMap({"cpu": (FrozenMap({"M": 8, "D": 4}),)}),
    ranges=FrozenMap({"M": (1, 100), "D": (1, 64)}),
    reference_text=REFERENCE,
)
CANDIDATE = Candidate(
    "cpp", "kernel", KERNEL, FrozenMap({"UNROLL": 4, "CXX": "g++", "FLAGS": "-O3 -march=native"})
)


def write(
    folder: Path,
    library: Path | None = None,
    compiler: str | None = None,
    candidate: Candidate = CANDIDATE,
) -> WinnerFiles:
    reference = folder.parent / "problem_file.py"
    reference.write_text(REFERENCE)
    compiler = compiler or shutil.which("g++")
    assert compiler, "the tests need g++"
    machine = Machine(
        "here", "a processor", 2, 256, (), 2**15, 2**20, 2**23, 2**33, "Linux",
        toolchains=(Toolchain("g++", compiler, "g++ of the tests", "libgomp", 2),),
    )  # fmt: skip
    place = ProblemReference(str(reference), "scaled_pair")
    evidence = ("1.5 times eager.",)
    return write_winner(folder, candidate, PUBLIC, Dtype.F32, place, machine, library, evidence)


def load(files: WinnerFiles, name: str):
    spec = importlib.util.spec_from_file_location(name, files.operator)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def winner(tmp_path_factory):
    """Written without a library, so that importing it compiles best.cpp."""
    files = write(tmp_path_factory.mktemp("winner") / "run")
    return files, load(files, "winner_best")


@pytest.fixture
def said(winner):
    winner[1]._SAID.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield lambda: [str(w.message) for w in caught if "runs the reference" in str(w.message)]


def example(m=7, d=5):
    generator = torch.Generator().manual_seed(m * 100 + d)
    return torch.randn(m, 2 * d, generator=generator), torch.randn(2 * d, generator=generator)


def expected(x, scale, w, shift=0.5):
    return x * scale * w + shift, x.sum(-1)


def test_it_compiles_and_agrees_with_torch(winner, said):
    x, w = example()
    torch.testing.assert_close(winner[1].scaled_pair(x, 2.0, w), expected(x, 2.0, w))
    torch.testing.assert_close(
        winner[1].scaled_pair(x, scale=3, w=w, shift=1.0), expected(x, 3.0, w, 1.0)
    )
    assert said() == []
    assert list(winner[0].operator.parent.glob("_build/best-*.so"))


def test_the_kernel_itself_ran(winner, said, monkeypatch):
    def refuse(*arguments, **more):
        raise AssertionError("the reference was called")

    monkeypatch.setitem(winner[1]._LOADED, "reference", refuse)
    x, w = example(100, 64)
    torch.testing.assert_close(winner[1].scaled_pair(x, 2.0, w), expected(x, 2.0, w))
    with pytest.raises(AssertionError, match="the reference was called"):
        winner[1].scaled_pair(x.double(), 2.0, w.double())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda x, w: (x.t().contiguous().t(), w), "x is not contiguous"),
        (lambda x, w: (x.double(), w.double()), "not a 2-dimensional tensor of torch.float32"),
        (lambda x, w: (x, w.expand(7, 10)), "w is not a 1-dimensional"),
        (lambda x, w: (x[:, :1], w[:1]), "x is not contiguous"),
        (lambda x, w: (x[:, :9].contiguous(), w[:9].contiguous()), "outside of the verified"),
        (lambda x, w: (torch.randn(101, 10), w), "outside of the verified"),
        (lambda x, w: (x, w[:1]), "shapes disagree"),
        (lambda x, w: (x.requires_grad_(), w), "a gradient is needed"),
    ],
)
def test_everything_else_goes_to_the_reference_and_says_so_once(winner, said, change, reason):
    x, w = change(*example())
    for _ in range(2):
        torch.testing.assert_close(winner[1].scaled_pair(x, 2.0, w), expected(x, 2.0, w))
    assert len(said()) == 1
    assert reason in said()[0]


def test_gradients_flow_through_the_reference(winner, said):
    x, w = example()
    x.requires_grad_()
    winner[1].scaled_pair(x, 2.0, w)[0].sum().backward()
    torch.testing.assert_close(x.grad, (2.0 * w).expand_as(x))
    with torch.no_grad():
        winner[1].scaled_pair(x, 2.0, w)
    assert len(said()) == 1


def test_a_transformed_tensor_goes_to_the_reference(winner, said):
    x, w = example()
    batch = torch.stack([x, x + 1])
    result = torch.func.vmap(lambda a: winner[1].scaled_pair(a, 2.0, w)[1])(batch)
    torch.testing.assert_close(result, batch.sum(-1))
    assert "transform" in said()[0]


def test_an_unaligned_tensor_is_copied(winner, said):
    x, w = example()
    storage = torch.empty(x.numel() + 1)
    shifted = storage[1:].view_as(x).copy_(x)
    assert shifted.data_ptr() % 64
    torch.testing.assert_close(winner[1].scaled_pair(shifted, 2.0, w), expected(x, 2.0, w))
    assert said() == []


def test_the_operator_declares_itself_rightly_to_the_compiler(winner):
    x, w = example()
    torch.library.opcheck(
        winner[1]._operator, (x, w, 2.0, 0.5), test_utils=("test_schema", "test_faketensor")
    )


def test_a_traced_call_keeps_the_kernel(winner, said):
    x, w = example()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph.code)
        return graph.forward

    function = torch.compile(
        lambda a: winner[1].scaled_pair(a, 2.0, w)[0] + 1, backend=backend, fullgraph=True
    )
    torch.testing.assert_close(function(x), expected(x, 2.0, w)[0] + 1)
    assert said() == []
    assert len(graphs) == 1
    assert "kernelwright_winners.scaled_pair" in graphs[0]
    torch.testing.assert_close(function(x.double()), expected(x.double(), 2.0, w)[0] + 1)
    assert "kernelwright_winners" not in graphs[1]
    assert "torch.float32" in said()[0]


def test_the_source_compiles_by_the_command_in_its_head(winner, tmp_path):
    for file in (winner[0].source, winner[0].header):
        shutil.copy(file, tmp_path)
    command = re.search(r"^// Build: (.*)$", winner[0].source.read_text(), re.MULTILINE)
    assert command
    subprocess.run(shlex.split(command[1]), cwd=tmp_path, check=True, timeout=120)
    assert (tmp_path / "libbest.so").exists()


def test_the_chosen_values_become_the_defaults(winner):
    text = winner[0].source.read_text()
    assert "// @tune UNROLL = 4, 1, 2" in text
    assert '// @tune FLAGS = "-O3 -march=native", "-O2"' in text
    assert "#define UNROLL 4" in text
    assert "1.5 times eager." in text


def test_a_missing_compiler_falls_back_and_says_why(tmp_path):
    module = load(write(tmp_path / "run", compiler="/nowhere/no-such-compiler"), "winner_none")
    x, w = example()
    with pytest.warns(UserWarning, match="no-such-compiler is not installed"):
        torch.testing.assert_close(module.scaled_pair(x, 2.0, w), expected(x, 2.0, w))


def test_the_shipped_library_is_used_where_it_fits(winner, tmp_path):
    built = next(winner[0].operator.parent.glob("_build/best-*.so"))
    files = write(tmp_path / "run", library=built, compiler="/nowhere/no-such-compiler")
    x, w = example()
    module = load(files, "winner_shipped")
    assert module._isa() == isa_fingerprint()
    assert module._UNAVAILABLE is None
    torch.testing.assert_close(module.scaled_pair(x, 2.0, w), expected(x, 2.0, w))
    elsewhere = files.operator.read_text().replace(isa_fingerprint(), "0" * 16)
    files.operator.write_text(elsewhere)
    assert "not installed" in load(files, "winner_elsewhere")._UNAVAILABLE


def test_the_files_need_nothing_of_ours(winner, tmp_path):
    """Imported by name, with the library beside, which Python must not take for the module."""
    built = next(winner[0].operator.parent.glob("_build/best-*.so"))
    write(tmp_path / "shipped", library=built)
    code = (
        "import sys, torch; sys.modules['kernelwright'] = None; import best; "
        "x, w = torch.ones(3, 4), torch.ones(4); "
        "assert best.scaled_pair(x, 2.0, w)[1].tolist() == [4.0] * 3; "
        "assert best.scaled_pair(x.double(), 2.0, w.double())[1].tolist() == [4.0] * 3"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "shipped", check=True, timeout=120)


def test_a_size_that_no_shape_tells_is_refused():
    from kernelwright.deploy.operator import size_steps

    with pytest.raises(ProblemError, match="'K' does not follow"):
        size_steps(Signature((TensorArgument("x", ("N",)),), (TensorArgument("out", ("N", "K")),)))


def test_a_winner_whose_compiler_is_not_here_is_refused(tmp_path):
    machine = Machine("here", "cpu", 2, 256, (), 1, 1, 1, 1, "Linux")
    (tmp_path / "p.py").write_text(REFERENCE)
    place = ProblemReference(str(tmp_path / "p.py"), None)
    with pytest.raises(MachineError, match="'g\\+\\+' of the winner"):
        write_winner(tmp_path / "run", CANDIDATE, PUBLIC, Dtype.F32, place, machine)


def test_an_operator_of_a_cuda_kernel_says_that_there_is_no_gpu(tmp_path, monkeypatch):
    """Where there is one, `tests/gpu` runs it."""
    toolkit = Toolkit("/usr/bin/nvcc", Path("/usr"), "nvcc 13.0", ("sm_90",))
    monkeypatch.setattr("kernelwright.deploy.winner.find_toolkit", lambda: toolkit)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cuda = Candidate("cuda", "kernel", KERNEL, FrozenMap({"UNROLL": 4, "FLAGS": "-O2"}))
    files = write(tmp_path / "run", candidate=cuda)
    head = files.source.read_text().splitlines()
    assert files.source.name == "best.cu"
    assert any("nvcc -shared -Xcompiler=-fPIC -std=c++17 -O2 best.cu" in line for line in head)
    module = load(files, "cuda_best")
    x, w = torch.randn(3, 4), torch.randn(4)
    with pytest.warns(UserWarning, match="torch has no GPU here"):
        found = module.scaled_pair(x, 2.0, w)
    torch.testing.assert_close(found, (x * 2.0 * w + 0.5, x.sum(-1)))
    monkeypatch.setattr("kernelwright.deploy.winner.find_toolkit", lambda: None)
    with pytest.raises(MachineError, match="nvcc, which built the winner"):
        write(tmp_path / "run", candidate=cuda)


ON_TILES = KERNEL.replace(
    "    const int64_t W",
    """    const struct alignas(64) {
        uint8_t palette = 1, start_row = 0, zero[14] = {};
        uint16_t row_bytes[16] = {64};
        uint8_t rows[16] = {16};
    } configuration;
    _tile_loadconfig(&configuration);
    _tile_zero(0);
    _tile_release();
    const int64_t W""",
).replace("#include <stdlib.h>", "#include <immintrin.h>\n#include <stdlib.h>")


@pytest.mark.skipif("amx_tile" not in isa_flags(), reason="this machine lends no matrix unit")
def test_an_operator_asks_for_the_matrix_unit_that_its_kernel_uses(tmp_path):
    """In a process of its own: what one asked for stays lent until it ends."""
    files = write(tmp_path / "run", candidate=replace(CANDIDATE, source=ON_TILES))
    program = """
import sys, warnings
import torch
sys.path.insert(0, sys.argv[1])
warnings.simplefilter("error")
import best
x, w = torch.randn(3, 8), torch.randn(8)
torch.testing.assert_close(best.scaled_pair(x, 2.0, w), (x * 2.0 * w + 0.5, x.sum(-1)))
"""
    command = [sys.executable, "-c", program, str(files.operator.parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    silent = files.operator.read_text().replace("not _ask_for_matrix_unit()", "False")
    files.operator.write_text(silent)
    assert subprocess.run(command, capture_output=True, timeout=120).returncode == -signal.SIGILL


def test_an_operator_without_tiles_asks_for_nothing(winner):
    assert "matrix_unit" not in winner[0].operator.read_text()
