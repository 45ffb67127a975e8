"""Existing kernels with a signature of their own: arguments, wrapper, constants as tunables."""

import ctypes

import numpy as np
import pytest
import simulated
from execution_support import toolchains

from kernelwright.build import Artifact, CudaBuilder, find_toolkit
from kernelwright.cli.options import read_foreign
from kernelwright.errors import CandidateError, UserError
from kernelwright.model import (
    Candidate,
    Dtype,
    Family,
    FrozenMap,
    ScalarArgument,
    Signature,
    TensorArgument,
)
from kernelwright.propose import ForeignCall, own_kernel_family, settled
from kernelwright.space import parse_declarations

SOURCE = """\
#include <cuda_runtime.h>

#define BLOCK 128  // threads
#define LARGE 4096
#define T 3

// one more: void launch(int)
static __global__ void scale(const float* in, float* result, int n, float by) {
    const int i = blockIdx.x * BLOCK + threadIdx.x;
    if (i < n) result[i] = by * in[i];
}

extern "C" void launch(const float* __restrict__ in, float* result, int n, float factor,
                       cudaStream_t s = nullptr, int unused = 0) {
    scale<<<(n + BLOCK - 1) / BLOCK, BLOCK, 0, s>>>(in, result, n, factor);
}
"""
SIGNATURE = Signature(
    (TensorArgument("x", ("T", "H")),),
    (TensorArgument("out", ("T", "H")),),
    (ScalarArgument("factor", "float", 2.0),),
)
SAID = {"in": "x", "result": "out", "n": "T * H"}
SIZES = {"T": 5, "H": 77}


def family(tmp_path, source=SOURCE, entry="launch", said=None, **more):
    path = tmp_path / "mine.cu"
    path.write_text(source)
    arguments = SAID if said is None else said
    return own_kernel_family(path, entry=entry, call=ForeignCall(arguments, **more))


def under_abi(tmp_path, dtype=Dtype.F32, **more):
    return settled(family(tmp_path, **more), SIGNATURE, dtype, SIZES)


@pytest.mark.parametrize("block", [128, 64])
def test_the_wrapper_calls_the_kernel_with_any_value_of_its_constants(tmp_path, block):
    found = under_abi(tmp_path)
    assert found.entry == "launch_under_abi"
    x = np.arange(385, dtype=np.float32)
    np.testing.assert_array_equal(call(found, {"BLOCK": block}, x), 3 * x)


def call(found, values, x):
    library = simulated.binary(found, values)
    out = np.zeros_like(x)
    addresses = [ctypes.c_void_p(array.ctypes.data) for array in (x, out)]
    numbers = [ctypes.c_int64(5), ctypes.c_int64(77), ctypes.c_double(3.0)]
    entry = getattr(ctypes.CDLL(str(library)), found.entry)
    assert entry(*addresses, *numbers, None, None, ctypes.c_int64(0), None) == 0
    return out


KERNEL = """\
#include <cuda_runtime.h>
constexpr int PER_THREAD = 2;
const int WARP_SIZE = 32;

/* sums, a thread each: __global__ void rows(int) */
extern "C" __global__ void __launch_bounds__(1024) rows(float* result, const float* in, int n) {
    extern __shared__ __align__(128) char memory[];
    float* mine = reinterpret_cast<float*>(memory) + threadIdx.x;
    for (int k = 0; k < PER_THREAD; ++k) {
        const int i = (blockIdx.x * PER_THREAD + k) * blockDim.x + threadIdx.x;
        *mine = i < n ? in[i] : 0;
        if (i < n) result[i] = 2 * *mine;
    }
}
"""
LAUNCH = {"grid": "(T * H + PER_THREAD * block - 1) / (PER_THREAD * block)", "block": "128",
          "shared": "4 * block"}  # fmt: skip


@pytest.mark.parametrize("values", [{}, {"LAUNCH_BLOCK": 64, "PER_THREAD": 1}])
def test_a_global_function_is_launched(tmp_path, values):
    found = under_abi(tmp_path, source=KERNEL, entry="rows", **LAUNCH)
    declared = {t.name: t.values for t in parse_declarations(found.source).tunables}
    assert declared == {"LAUNCH_BLOCK": (128, 64, 256), "PER_THREAD": (2, 1, 4)}
    x = np.arange(385, dtype=np.float32)
    np.testing.assert_array_equal(call(found, values, x), 2 * x)


@pytest.mark.skipif(find_toolkit() is None, reason="no CUDA toolkit here")
@pytest.mark.parametrize("source", [SOURCE, KERNEL])
def test_the_wrapper_is_cuda(tmp_path, source):
    entry, more = ("launch", {}) if source is SOURCE else ("rows", LAUNCH)
    found = under_abi(tmp_path, source=source, entry=entry, **more)
    values = {t.name: t.default for t in parse_declarations(found.source).tunables}
    built = CudaBuilder(toolchains(), tmp_path / "cache", "sm_90a").build(
        Candidate("cuda", found.entry, found.source, FrozenMap(values))
    )
    assert isinstance(built, Artifact), built


def test_what_a_launch_needs_is_asked_for(tmp_path):
    with pytest.raises(CandidateError, match="launched: say how, such as --grid"):
        under_abi(tmp_path, source=KERNEL, entry="rows")
    with pytest.raises(CandidateError, match=r"'--grid W' names 'W'; known are H, LAUNCH_BLOCK"):
        under_abi(tmp_path, source=KERNEL, entry="rows", **(LAUNCH | {"grid": "W"}))
    with pytest.raises(CandidateError, match="launches by itself"):
        under_abi(tmp_path, **LAUNCH)
    template = KERNEL.replace('extern "C"', "template <int N>\n")
    with pytest.raises(CandidateError, match="is a template: name a function that calls"):
        family(tmp_path, source=template, entry="rows")


def test_powers_of_two_are_choices_and_the_rest_of_the_text_stays(tmp_path):
    found = under_abi(tmp_path)
    (tunable,) = parse_declarations(found.source).tunables  # T is a dimension, LARGE is large
    assert (tunable.name, tunable.values) == ("BLOCK", (128, 64, 256))
    assert all(line in found.source for line in SOURCE.splitlines())


def test_choices_can_be_said(tmp_path):
    declared = parse_declarations(under_abi(tmp_path, tune={"LARGE": "4096, 8192"}).source)
    assert [t.values for t in declared.tunables] == [(4096, 8192)]
    assert not parse_declarations(under_abi(tmp_path, tune={}).source).tunables
    with pytest.raises(CandidateError, match=r"no '#define NO NUMBER' to tune; there is: BLOCK"):
        under_abi(tmp_path, tune={"NO": "1"})


def test_arguments_can_be_said_in_the_source(tmp_path):
    lines = "".join(f"// @argument {theirs} = {ours}\n" for theirs, ours in SAID.items())
    whole = "// @entry launch\n" + lines + SOURCE
    found = under_abi(tmp_path, source=whole, entry=None, said={})
    assert "kw_T * kw_H" in found.source
    with pytest.raises(CandidateError, match="'@argument in' is said twice"):
        under_abi(tmp_path, source=whole)


def test_scratch_memory_is_asked_for_by_an_expression(tmp_path):
    source = SOURCE.replace("int unused = 0", "float* scratch = nullptr")
    found = under_abi(tmp_path, source=source, said=SAID | {"scratch": "workspace"},
                      workspace="4 * T * H")  # fmt: skip
    assert "long long launch_under_abi_workspace(long long kw_T" in found.source
    assert "(float*)kw_workspace" in found.source
    with pytest.raises(CandidateError, match="names 'bytes'; known are BLOCK, H, LARGE, T, factor"):
        under_abi(tmp_path, workspace="bytes")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"in": "x", "result": "out"}, "say what 'int n' is: --argument n=NAME, one of x, out, T"),
        (
            SAID | {"n": "T * N"},
            "'--argument n=T \\* N' names 'N'; known are BLOCK, H, LARGE, T, factor",
        ),
        (SAID | {"n": "T; f()"}, "names 'f'|is no expression"),
        (SAID | {"n": "x"}, "'n' takes no pointer, and 'x' is a tensor"),
        (SAID | {"result": "T"}, "'result' is a pointer, and 'T' is none: name one of x, out"),
        (SAID | {"result": "x"}, "nothing writes the output 'out'"),
        (SAID | {"input": "x"}, "launch has no parameter 'input': it has factor, in, n, result"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path, said, message):
    with pytest.raises(CandidateError, match=message):
        under_abi(tmp_path, said=said)


def test_an_element_type_that_differs_names_the_mend(tmp_path):
    with pytest.raises(CandidateError, match="points to float, and 'x' is bf16: add --dtype f32"):
        under_abi(tmp_path, dtype=Dtype.BF16)


def test_a_function_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CandidateError, match="no definition of a function 'lunch'"):
        family(tmp_path, entry="lunch")


def test_what_is_under_the_abi_needs_nothing(tmp_path):
    plain = 'extern "C" int kernel(const float* x, float* out, int64_t T, const void* prepared,\n'
    plain += "    void* workspace, int64_t workspace_bytes, void* stream) { return 0; }\n"
    path = tmp_path / "mine.cu"
    path.write_text(plain)
    found = own_kernel_family(path, entry="kernel")
    assert isinstance(found, Family)
    assert found.source == plain
    assert settled(found, SIGNATURE, Dtype.F32, SIZES) == found
    with pytest.raises(CandidateError, match="is under the ABI"):
        own_kernel_family(path, entry="kernel", call=ForeignCall({"x": "x"}))


def test_flags_are_read():
    found = read_foreign(["in=x", "n = T * H"], ["BLOCK=64,128"], "T * 4")
    assert found == ForeignCall({"in": "x", "n": "T * H"}, {"BLOCK": "64,128"}, "T * 4")
    assert read_foreign(None, ["none"], None).tune == {}
    for wrong in (["in"], ["in="], ["a=x", "a=y"]):
        with pytest.raises(UserError, match=r"--argument"):
            read_foreign(wrong, None, None)
