"""A CUDA winner as an operator on torch tensors: on torch's stream, with a workspace."""

import importlib.util
import sys
import warnings

import pytest
import torch
from gpu_support import builder

from kernelwright.build import Artifact
from kernelwright.deploy import write_winner
from kernelwright.machine import probe
from kernelwright.model import (
    Candidate,
    Dtype,
    FrozenMap,
    PublicProblem,
    ScalarArgument,
    Signature,
    TensorArgument,
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
// @tune THREADS = 128, 256
__global__ void rows(const float* x, const float* w, float* out, double* sums, int64_t W,
                     float scale, float shift) {
  __shared__ double part[THREADS];
  double sum = 0;
  for (int64_t j = threadIdx.x; j < W; j += THREADS) {
    sum += x[blockIdx.x * W + j];
    out[blockIdx.x * W + j] = x[blockIdx.x * W + j] * scale * w[j] + shift;
  }
  part[threadIdx.x] = sum;
  __syncthreads();
  for (int step = THREADS / 2; step > 0; step /= 2) {
    if (threadIdx.x < step) part[threadIdx.x] += part[threadIdx.x + step];
    __syncthreads();
  }
  if (threadIdx.x == 0) sums[blockIdx.x] = part[0];
}
__global__ void narrow(const double* sums, float* out, int64_t M) {
  const int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
  if (i < M) out[i] = (float)sums[i];
}
extern "C" int64_t kernel_workspace(int64_t M, int64_t W, double, double) { return M * 8; }
extern "C" int kernel(const float* x, const float* w, float* out0, float* out1, int64_t M,
                      int64_t W, double scale, double shift, const void*, void* workspace,
                      int64_t workspace_bytes, void* stream) {
  if (workspace_bytes != M * 8 || workspace == nullptr) return 7;
  cudaStream_t s = (cudaStream_t)stream;
  rows<<<(unsigned)M, THREADS, 0, s>>>(x, w, out0, (double*)workspace, W, (float)scale,
                                       (float)shift);
  narrow<<<(unsigned)((M + 255) / 256), 256, 0, s>>>((const double*)workspace, out1, M);
  return cudaGetLastError();
}
"""
PUBLIC = PublicProblem(
    name="scaled_pair",
    scenario="user",
    summary="Row sums beside x scaled by w.",
    signature=Signature(
        inputs=(TensorArgument("x", ("M", "W")), TensorArgument("w", ("W",))),
        outputs=(TensorArgument("out0", ("M", "W")), TensorArgument("out1", ("M",))),
        scalars=(ScalarArgument("scale", "float"), ScalarArgument("shift", "float", 0.5)),
    ),
    dtypes=(Dtype.F32,),
    sizes=FrozenMap({"gpu": (FrozenMap({"M": 8, "W": 4}),)}),
    ranges=FrozenMap({"M": (1, 5000), "W": (1, 5000)}),
    reference_text=REFERENCE,
)


@pytest.fixture(scope="module", params=["shipped", "compiled"])
def operator(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "problem.py").write_text(REFERENCE)
    candidate = Candidate("cuda", "kernel", KERNEL, FrozenMap({"THREADS": 256}))
    built = builder().build(candidate)
    assert isinstance(built, Artifact), built
    place = ProblemReference(str(folder / "problem.py"), "scaled_pair")
    library = built.path if request.param == "shipped" else None
    files = write_winner(folder / "run", candidate, PUBLIC, Dtype.F32, place, probe(), library)
    name = f"best_{request.param}"
    spec = importlib.util.spec_from_file_location(name, files.operator)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module._UNAVAILABLE is None
    assert (files.operator.parent / "_build").exists() == (library is None)
    return module.scaled_pair


def values(rows=700, width=333):
    generator = torch.Generator("cuda").manual_seed(1)
    x = torch.randn(rows, width, device="cuda", generator=generator)
    return x, 2.5, torch.randn(width, device="cuda", generator=generator)


def is_right(found, x, scale, w, shift=0.5):
    torch.testing.assert_close(found[0], x * scale * w + shift)
    torch.testing.assert_close(found[1], x.double().sum(-1).float())


def test_it_computes_what_the_reference_does(operator):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        is_right(operator(*values()), *values())
        is_right(operator(*values(), shift=2.0), *values(), shift=2.0)


def test_it_runs_on_the_current_stream(operator):
    x, _, w = values(2000, 2000)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(20):
            x = operator(x, 1.0, torch.ones_like(w), shift=1.0)[0]  # each needs the one before
    torch.cuda.current_stream().wait_stream(side)
    torch.testing.assert_close(x, values(2000, 2000)[0] + 20)


def test_it_can_be_captured(operator):
    x, scale, w = values()
    operator(x, scale, w)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = operator(x, scale, w)
    x.mul_(3)
    graph.replay()
    torch.cuda.synchronize()
    is_right(found, x, scale, w)


def test_it_is_one_operator_to_the_compiler(operator):
    def around(x, scale, w):
        first, second = operator(x, scale, w)
        return first.relu(), second + 1

    found = torch.compile(around, fullgraph=True)(*values())
    wanted = around(*values())
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.cpu(), "not contiguous in the memory of a GPU"),
        (lambda t: t.double(), "of torch.float32"),
        (lambda t: t.repeat_interleave(2, -1)[..., ::2], "not contiguous in the memory"),
    ],
    ids=["processor", "dtype", "strides"],
)
def test_what_it_cannot_take_goes_to_the_reference(operator, change, reason):
    x, scale, w = values(5, 7)
    x, w = change(x), change(w)
    operator.__globals__["_SAID"].clear()
    with pytest.warns(UserWarning, match=reason):
        found = operator(x, scale, w)
    torch.testing.assert_close(found, (x * scale * w + 0.5, x.sum(-1)))
