"""Triton candidates: compiled ahead of time without a GPU, and what they may not use."""

import pytest

from kernelwright.build import TritonBuilder, call_line, parse_call
from kernelwright.build.triton_rules import broken_rule
from kernelwright.errors import CandidateError
from kernelwright.model import (
    Candidate,
    Dtype,
    FrozenMap,
    Reason,
    ScalarArgument,
    Signature,
    Stage,
    TensorArgument,
)
from kernelwright.propose import own_kernel_family, settled

SOURCE = """\
import triton
import triton.language as tl

# @tune WARPS = 4, 8
# @call x: bf16[T, H], out: bf16[T, H], T = 64, H = 1000, scale = 2.0


@triton.jit
def rows(x, out, H, scale, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    place = tl.program_id(0).to(tl.int64) * H + at
    value = tl.load(x + place, mask=at < H, other=0.0).to(tl.float32)
    tl.store(out + place, (value * scale).to(out.dtype.element_ty), mask=at < H)


def kernel(x, out, *, T, H, scale, WARPS):
    rows[(T,)](x, out, H, scale, BLOCK=triton.next_power_of_2(H), num_warps=WARPS)
"""
SIGNATURE = Signature(
    (TensorArgument("x", ("T", "H")),),
    (TensorArgument("out", ("T", "H")),),
    (ScalarArgument("scale", "float", 2.0),),
)


def candidate(source, **tunables):
    return Candidate("triton", "kernel", source, FrozenMap({"WARPS": 4, **tunables}))


WITHOUT_GPU = SOURCE.replace(
    "    rows[", "    import torch\n    torch.cuda.synchronize()\n    rows["
)
SOURCES = {
    "right": SOURCE, "wrong": SOURCE.replace("tl.arange(0, BLOCK)", "tl.arange(0, 3)"),
    "needs a GPU": WITHOUT_GPU,
}  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Builder, and what it makes of each source, side by side."""
    pytest.importorskip("triton")
    builder = TritonBuilder((), tmp_path_factory.mktemp("cache"), "sm_90a")
    found = builder.build_many(candidate(source) for source in SOURCES.values())
    return builder, {name: found[candidate(source).identity] for name, source in SOURCES.items()}


def test_kernels_of_the_trial_call_are_compiled(built):
    builder, found = built
    (resources,) = found["right"].resources
    assert (resources.name, resources.architecture) == ("rows", "sm_90a")
    assert resources.registers > 0
    assert builder.build(candidate(SOURCE)).cached


def test_errors_are_found_without_a_gpu(built):
    wrong = built[1]["wrong"]
    assert (wrong.stage, wrong.reason) == (Stage.BUILD, Reason.COMPILE_ERROR)
    assert "power of 2" in wrong.diagnostic


def test_what_only_a_gpu_can_tell_is_no_rejection(built):
    found = built[1]["needs a GPU"]
    assert "without a GPU" in found.log
    assert not found.resources


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("import os", "not 'os'"),
        ("from torch import multiprocessing", "'multiprocessing'"),
        ("import torch._C", "'_C'"),
        ("x = torch.os.environ", "'os'"),
        ("x = ().__class__", "'__class__'"),
        ("x = getattr(tl, 'load')", "'getattr'"),
        ("x = __builtins__", "'__builtins__'"),
        ("from . import x", "'.'"),
        ("from triton import knobs", "'knobs'"),
    ],
)
def test_reaching_for_the_process_is_refused(line, said):
    assert said in broken_rule(f"import torch\nimport triton.language as tl\n{line}\n")


def test_the_rules_allow_what_kernels_need():
    assert broken_rule(SOURCE) is None


def test_the_rules_come_before_the_compiler(tmp_path):
    pytest.importorskip("triton")
    built = TritonBuilder((), tmp_path, "sm_90a").build(candidate("import os\n" + SOURCE))
    assert built.reason is Reason.UNSAFE_LIBRARY
    assert built.diagnostic.startswith("line 1:")


def test_a_call_line_is_read_as_it_is_written():
    line = call_line(SIGNATURE, Dtype.BF16, {"T": 64, "H": 1000}, {"scale": 2.0})
    assert line in SOURCE
    call = parse_call(SOURCE)
    assert call.tensors[1] == ("out", (64, 1000), Dtype.BF16)
    assert call.values == {"T": 64, "H": 1000, "scale": 2.0}


@pytest.mark.parametrize(
    "text", ["x: bf15[T]", "x: bf16[T]", "x bf16", "T = many", "T = 1\n# @call T = 2"]
)
def test_malformed_call_lines_are_refused(text):
    with pytest.raises(CandidateError):
        parse_call(f"# @call {text}\n")


def test_a_file_that_imports_triton_is_triton_and_gets_its_call(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("\n".join(line for line in SOURCE.splitlines() if "@call" not in line))
    family = own_kernel_family(path)
    assert (family.language, family.entry) == ("triton", "kernel")
    declared = settled(family, SIGNATURE, Dtype.F32, {"T": 8, "H": 16})
    assert declared.source.startswith(family.source.rstrip())
    assert parse_call(declared.source).tensors[0] == ("x", (8, 16), Dtype.F32)
    assert settled(declared, SIGNATURE, Dtype.F32, {"T": 9, "H": 9}) == declared
