"""Generated sources, word for word, and what their tunables change."""

import shutil
import subprocess
from pathlib import Path

import pytest
import rowwise_programs as programs
from test_recipes_cuda import forces, histogram, scan, spmv, top

import kernelwright.build
from kernelwright import codegen, recipes
from kernelwright.model import Dtype
from kernelwright.space.declarations import parse_declarations
from kernelwright.space.space import Space

GOLDEN = Path(__file__).parents[1] / "golden" / "generated"
INCLUDE = Path(kernelwright.build.__file__).parent / "include"
SIMULATED = Path(__file__).parent / "simulated_gpu"
SIZES = dict(B=2, C=3, D=64, H=4096, M=128, N=4096, T=512, W=8, K=5, Z=5000)
PROGRAMS = [programs.softmax, programs.gate, programs.matrix_vector, programs.transposed, scan,
            histogram, top, spmv, forces]  # fmt: skip
ARGUMENTS = {scan: (("N",),), histogram: (Dtype.I32,), top: (True,)}


def cuda_families(make, dtype=Dtype.BF16):
    arguments = (make(*ARGUMENTS.get(make, ())), dtype, programs.MACHINE, SIZES, "kernel", "cuda")
    return (*recipes.families(*arguments), *codegen.families(*arguments))


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_source_is_word_for_word_as_it_was(target):
    """After a wanted change: write `family.source` to the file, and look at the difference."""
    (family,) = codegen.families(
        programs.softmax(), Dtype.BF16, programs.MACHINE, SIZES, "kernel", target
    )
    suffix = {"cpu": "cpp", "cuda": "cu"}[target]
    golden = (GOLDEN / f"softmax-bf16.{suffix}").read_text()
    assert without_tunables(family.source) == without_tunables(golden)


def without_tunables(source):
    """What is compiled; which values are tried first may change."""
    return [line for line in source.splitlines() if not line.startswith("// @tune")]


@pytest.mark.parametrize("make", PROGRAMS, ids=lambda make: make.__name__)
def test_cuda_families_declare_tunables_that_change_the_source(make):
    families = cuda_families(make)
    assert families
    for family in families:
        assert family.language == "cuda"
        space = Space(parse_declarations(family.source))
        first = dict(family.defaults[0])
        assert not [e for v in family.defaults if (e := space.problem_with(v))], family.name
        reference = preprocessed(family.source, first)
        for tunable in space.tunables:
            others = [value for value in tunable.values if value != first[tunable.name]]
            changed = [preprocessed(family.source, {**first, tunable.name: v}) for v in others]
            assert others, tunable.name
            assert reference not in changed, f"{family.name}: {tunable.name}"


def preprocessed(source, values):
    macros = [f"-D{name}={value}" for name, value in values.items()]
    macros += ["-D__launch_bounds__(...)=launch_bounds(__VA_ARGS__)", "-D__CUDA_ARCH__=900"]
    command = ["g++", "-E", "-P", "-x", "c++", *macros, f"-I{SIMULATED}", f"-I{INCLUDE}", "-"]
    return subprocess.run(command, input=source, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
@pytest.mark.parametrize("make", [programs.softmax, histogram, top, spmv], ids=lambda m: m.__name__)
def test_cuda_sources_compile(make, tmp_path):
    family = cuda_families(make)[0]
    (tmp_path / "kernel.cu").write_text(family.source)
    macros = [f"-D{name}={value}" for name, value in family.defaults[0].items()]
    command = ["nvcc", "-gencode=arch=compute_90a,code=sm_90a", "-std=c++17", "-O3", "-shared",
               "-Xcompiler", "-fPIC", "-Xptxas", "-v", *macros, f"-I{INCLUDE}", "kernel.cu",
               "-o", "kernel.so"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[:4000]
    spills = [line for line in done.stderr.splitlines() if "spill stores" in line]
    assert spills
    assert all(" 0 bytes spill stores" in line for line in spills), spills
