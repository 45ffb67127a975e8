"""The winner's operator packs weights once, and again when they have changed."""

import gc
import importlib.util
import shutil
import sys

import pytest
import torch

from kernelwright.deploy import write_winner
from kernelwright.model import (
    Candidate,
    Dtype,
    FrozenMap,
    Machine,
    PublicProblem,
    Signature,
    TensorArgument,
    Toolchain,
)
from kernelwright.problems import ProblemReference

REFERENCE = '''
def shifted(x, w, s):
    """x plus w times s."""
    return x + w * s
'''
KERNEL = r"""
#include "kernelwright.h"
extern "C" int64_t kernel_prepared(int64_t N) { return N == 3 ? 0 : N * 4; }
extern "C" int kernel_prepare(const float* w, const float* s, int64_t N, void* prepared, void*) {
    if ((size_t)prepared % 64 || (size_t)w % 64) return 8;
    if (N == 5) return 6;
    for (int64_t n = 0; n < N; ++n) ((float*)prepared)[n] = w[n] * s[0];
    return 0;
}
extern "C" int kernel(const float* x, const float* w, const float* s, float* out, int64_t N,
                      const void* prepared, void*, int64_t, void*) {
    if (N == 3 && prepared) return 9;
    for (int64_t n = 0; n < N; ++n)
        out[n] = x[n] + (prepared ? ((const float*)prepared)[n] : w[n] * s[0]);
    return 0;
}
"""
PUBLIC = PublicProblem(
    name="shifted",
    scenario="user",
    summary="x plus w times s.",
    signature=Signature(
        (
            TensorArgument("x", ("N",)),
            TensorArgument("w", ("N",), static=True),
            TensorArgument("s", ("1",), static=True),
        ),
        (TensorArgument("out", ("N",)),),
    ),
    dtypes=(Dtype.F32,),
    sizes=FrozenMap({"cpu": (FrozenMap({"N": 8}),)}),
    ranges=FrozenMap({"N": (1, 100)}),
    reference_text=REFERENCE,
)


@pytest.fixture(scope="module")
def best(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packing")
    (folder / "reference_file.py").write_text(REFERENCE)
    compiler = shutil.which("g++")
    assert compiler, "the tests need g++"
    machine = Machine(
        "here", "a processor", 2, 256, (), 2**15, 2**20, 2**23, 2**33, "Linux",
        toolchains=(Toolchain("g++", compiler, "g++ of the tests", "libgomp", 2),),
    )  # fmt: skip
    place = ProblemReference(str(folder / "reference_file.py"), "shifted")
    candidate = Candidate("cpp", "kernel", KERNEL, FrozenMap({"CXX": "g++", "FLAGS": "-O2"}))
    files = write_winner(folder / "run", candidate, PUBLIC, Dtype.F32, place, machine)
    spec = importlib.util.spec_from_file_location("packing_best", files.operator)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["packing_best"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def packings(best, monkeypatch):
    """Sizes of all packings so far."""
    made = []
    real = best._pack

    def counted(weights, scalars, sizes):
        made.append(sizes[0])
        return real(weights, scalars, sizes)

    monkeypatch.setattr(best, "_pack", counted)
    best.forget_weights()
    return made


def example(n=8):
    generator = torch.Generator().manual_seed(n)
    return [torch.randn(k, generator=generator) for k in (n, n, 1)]


def right(best, x, w, s):
    torch.testing.assert_close(best.shifted(x, w, s), x + w * s)


def test_weights_are_packed_once(best, packings):
    x, w, s = example()
    for _ in range(3):
        right(best, x + torch.rand(1), w, s)
    assert packings == [8]


@pytest.mark.parametrize("which", [1, 2])
def test_a_changed_weight_is_packed_again(best, packings, which):
    tensors = example()
    right(best, *tensors)
    with torch.no_grad():
        tensors[which].mul_(2)
    right(best, *tensors)
    tensors[which][0] = 7
    right(best, *tensors)
    right(best, *tensors)
    assert packings == [8] * 3


def test_other_memory_under_the_same_tensor_is_packed_again(best, packings):
    x, w, s = example()
    right(best, x, w, s)
    w.data = torch.randn(8)
    right(best, x, w, s)
    assert packings == [8, 8]


def test_a_parameter_after_an_optimizer_step_is_packed_again(best, packings):
    x, w, s = example()
    w = torch.nn.Parameter(w)
    with torch.no_grad():
        right(best, x, w, s)
    (w * x).sum().backward()
    torch.optim.SGD([w], lr=0.5).step()
    with torch.no_grad():
        right(best, x, w, s)
    assert packings == [8, 8]


def test_new_weights_in_the_place_of_dead_ones_are_packed(best, packings):
    """The allocator gives the same address, Python the same identity, again and again."""
    x, w, s = example()
    for seed in range(20):
        w = torch.full((8,), float(seed))
        right(best, x, w, s)
        del w
        gc.collect()
    assert packings == [8] * 20
    assert best._PACKED == {}


def test_several_weights_and_sizes_are_kept_side_by_side(best, packings):
    first, second = example(8), example(16)
    for _ in range(3):
        right(best, *first)
        right(best, *second)
    assert packings == [8, 16]


def test_what_cannot_be_watched_is_packed_at_every_call(best, packings):
    x, w, s = example()
    with torch.inference_mode():
        w = w.clone()
        for factor in (1, 2, 3):
            w.fill_(float(factor))
            right(best, x, w, s)
    assert packings == [8] * 3


def test_changes_that_torch_does_not_count_need_a_word(best, packings):
    x, w, s = example()
    right(best, x, w, s)
    w.numpy()[:] = 3
    best.forget_weights()
    right(best, x, w, s)
    assert packings == [8, 8]


def test_a_kernel_may_want_nothing_at_some_sizes_or_fail(best, packings):
    right(best, *example(3))
    with pytest.raises(RuntimeError, match="packing the weights of shifted returned"):
        best.shifted(*example(5))


def test_an_unaligned_weight_is_packed_from_a_copy(best, packings):
    x, w, s = example()
    shifted = torch.empty(9)[1:].copy_(w)
    assert shifted.data_ptr() % 64
    right(best, x, shifted, s)


def test_compiled_callers_pack_once_too(best, packings):
    x, w, s = example()
    function = torch.compile(lambda a: best.shifted(a, w, s) + 1, backend="aot_eager")
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(function(x), x + w * s + 1)
        w.mul_(3)
        torch.testing.assert_close(function(x), x + w * s + 1)
    assert packings == [8, 8]
