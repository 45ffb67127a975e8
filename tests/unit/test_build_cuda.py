"""Building CUDA C++: flags, cache, architecture, what ptxas says; no GPU is needed."""

import dataclasses

import pytest
from execution_support import toolchains

from kernelwright.build import Artifact, CudaBuilder, cuda, find_toolkit, nvcc
from kernelwright.build.compilers import diagnostics
from kernelwright.build.ptxas import KernelResources, parse_resources, without_resources
from kernelwright.cuda_driver import architecture
from kernelwright.model import Candidate, FrozenMap, Reason, Rejected, Stage
from kernelwright.sandbox import Outcome

LOG = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z6secondPf' for 'sm_90a'
ptxas info    : Function properties for _Z6secondPf
    40 bytes stack frame, 32 bytes spill stores, 36 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 40 bytes cumulative stack size, 4352 bytes smem
kernel.cu(7): warning #177-D: variable "unused" was declared but never referenced
    int unused;
        ^
ptxas info    : Compile time = 11.578 ms
ptxas info    : Compiling entry function '_Z5firstPf' for 'sm_90a'
ptxas info    : Function properties for _Z5firstPf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 11 registers, used 0 barriers, 360 bytes cmem[0]
ptxas info    : Compile time = 2.1 ms
"""
TEXT = """#include "kernelwright.h"
__global__ void scale(const bf16* x, bf16* y, int64_t n) {
  const int64_t i = blockIdx.x * (int64_t)BLOCK + threadIdx.x;
  if (i < n) y[i] = from_float<bf16>(2 * to_float(x[i]));
}
extern "C" int kernel(const bf16* x, bf16* y, int64_t n, const void*, void*, int64_t, void* s) {
  scale<<<(unsigned)((n + BLOCK - 1) / BLOCK), BLOCK, 0, (cudaStream_t)s>>>(x, y, n);
  return cudaGetLastError();
}
"""
needs_nvcc = pytest.mark.skipif(find_toolkit() is None, reason="no CUDA toolkit here")


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    return CudaBuilder(toolchains(), tmp_path_factory.mktemp("cuda"), "sm_90a")


def candidate(text=TEXT, **tunables):
    return Candidate("cuda", "kernel", text, FrozenMap({"BLOCK": 128, **tunables}))


def rejected(result) -> Rejected:
    assert isinstance(result, Rejected), result
    return result


def test_what_the_assembler_says_is_read():
    second = KernelResources("_Z6secondPf", "sm_90a", 255, 32, 36, 40, 4352, 0)
    first = KernelResources("_Z5firstPf", "sm_90a", 11, 0, 0, 0, 0, 360)
    assert parse_resources(LOG) == (second, first)
    assert str(first) == "11 registers, no spills, 0 bytes of shared memory"
    assert "68 bytes spilled" in str(second)
    assert parse_resources("nvcc fatal: nothing\n") == ()


def test_warnings_stay_and_the_account_goes():
    said = without_resources(LOG)
    assert said.startswith("kernel.cu(7): warning #177-D")
    assert "ptxas" not in said
    assert "spill" not in said


def test_what_nvcc_says_about_other_peoples_files_is_not_shown(tmp_path):
    text = (
        '/home/somebody/secret.h(3): error: identifier "password_is_1234" is undefined\n'
        "    password_is_1234;\n    ^\n"
        'kernel.cu(9): error: identifier "mine" is undefined\n    mine;\n'
    )
    shown = diagnostics(Outcome(1, text, 0.1), tmp_path)
    assert "1234" not in shown
    assert "mine" in shown


def test_architectures_are_named_with_the_chips_own_instructions():
    assert [architecture(9, 0), architecture(8, 6), architecture(12, 0), architecture(10, 3)] == [
        "sm_90a", "sm_86", "sm_120a", "sm_103a",
    ]  # fmt: skip


def test_without_a_toolkit_there_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(cuda, "find_toolkit", lambda: None)
    lost = CudaBuilder(toolchains(), tmp_path, "sm_90a")
    assert "CUDA toolkit" in lost.available()
    verdict = rejected(lost.build(candidate()))
    assert (verdict.stage, verdict.reason) == (Stage.BUILD, Reason.TOOLCHAIN_MISSING)
    assert verdict.diagnostic == lost.available()


@needs_nvcc
def test_without_a_gpu_an_architecture_must_be_named(monkeypatch, tmp_path):
    monkeypatch.setattr(nvcc, "first_gpu", lambda: None)
    monkeypatch.delenv(nvcc.ARCHITECTURE_VARIABLE, raising=False)
    unnamed = CudaBuilder(toolchains(), tmp_path)
    assert nvcc.ARCHITECTURE_VARIABLE in unnamed.available()
    monkeypatch.setenv(nvcc.ARCHITECTURE_VARIABLE, "sm_80")
    assert unnamed.available() is None
    monkeypatch.setenv(nvcc.ARCHITECTURE_VARIABLE, "sm_12")
    assert "sm_90" in unnamed.available()


@needs_nvcc
def test_a_build_has_its_resources_and_is_cached(builder):
    first, again = builder.build(candidate()), builder.build(candidate())
    assert isinstance(first, Artifact), first
    assert (first.cached, again.cached) == (False, True)
    assert dataclasses.replace(first, cached=True) == again
    assert (first.language, first.toolchain.name, first.log) == ("cuda", "nvcc", "")
    (kernel,) = first.resources
    assert kernel.architecture == "sm_90a"
    assert kernel.registers > 0
    assert kernel.spill_store_bytes == 0


@needs_nvcc
def test_everything_that_decides_the_binary_is_in_the_key(builder, tmp_path):
    keys = {
        builder.key(candidate()), builder.key(candidate(BLOCK=256)),
        builder.key(candidate(FLAGS="-O2")), builder.key(candidate(TEXT + "\n")),
        CudaBuilder(toolchains(), tmp_path, "sm_80").key(candidate()),
    }  # fmt: skip
    assert len(keys) == 5


@needs_nvcc
@pytest.mark.parametrize(
    ("text", "reason", "words"),
    [
        (TEXT.replace("2 *", "lost *"), Reason.COMPILE_ERROR, "kernel.cu(4): error: identifier"),
        ('#include "/etc/passwd"\n' + TEXT, Reason.COMPILE_ERROR, "No such file"),
        (
            TEXT.replace("return", "void* p; cudaMalloc(&p, 8); return"),
            Reason.UNSAFE_LIBRARY, "'cudaMalloc'",
        ),
        (
            TEXT + "struct S { S() { n = time(0); } long n; } s;\n",
            Reason.UNSAFE_LIBRARY, "runs code when it is loaded",
        ),
    ],
    ids=["error", "foreign file", "allocates", "constructor"],
)  # fmt: skip
def test_what_cannot_be_built_or_must_not_be_loaded(builder, text, reason, words):
    verdict = rejected(builder.build(candidate(text)))
    assert verdict.reason is reason
    assert words in verdict.diagnostic


@needs_nvcc
@pytest.mark.parametrize("flags", ["-arch=sm_80", "-Xptxas=-v", "--run", "-odir /tmp", "-O3 @f"])
def test_flags_are_an_allow_list(builder, flags):
    assert rejected(builder.build(candidate(FLAGS=flags))).reason is Reason.BAD_DECLARATION
