"""Hand-built programs, and what is needed to compile and call a generated kernel."""

import ctypes
import hashlib
import subprocess
from pathlib import Path

import numpy as np

from kernelwright.build import include_folder
from kernelwright.expr.nodes import (
    Apply,
    Axis,
    Constant,
    Extent,
    Load,
    Node,
    Output,
    Parameter,
    Program,
    Reduce,
)
from kernelwright.model import Dtype, Machine, ScalarArgument, Signature, TensorArgument

MACHINE = Machine("test", "cpu", 2, 256, ("avx2",), 32768, 1 << 20, 32 << 20, 1 << 34, "linux")


def tensor(name, *dims, dtype=None):
    return TensorArgument(name, dims, dtype)


def op(name, *args):
    return Apply(name, tuple(a if isinstance(a, Node) else Constant(a) for a in args))


def load(name, *indices):
    def index(i):
        return Axis(i) if isinstance(i, str) else Constant(i) if isinstance(i, int) else i

    return Load(name, tuple(map(index, indices)))


def out(name, axes, dims, body):
    return Output(name, tuple(axes), tuple(dims), body)


def softmax():
    def greatest(axis):
        return Reduce("max", axis, "H", load("x", "t", axis))

    total = Reduce("sum", "k", "H", op("exp", op("sub", load("x", "t", "k"), greatest("j"))))
    body = op("div", op("exp", op("sub", load("x", "t", "h"), greatest("i"))), total)
    signature = Signature((tensor("x", "T", "H"),), (tensor("out", "T", "H"),))
    return Program(signature, (out("out", "th", "TH", body),))


def fused_add_rms_norm():
    def total(axis, row="t"):
        return op("round_to_workload", op("add", load("x", row, axis), load("r", row, axis)))

    mean = op("div", Reduce("sum", "k", "H", op("mul", total("k"), total("k"))),
              op("to_float", Extent("H")))  # fmt: skip
    scale = op("rsqrt", op("add", mean, Parameter("eps", "float")))
    y = op("mul", op("mul", total("h"), scale), load("w", "h"))
    signature = Signature(
        (tensor("x", "T", "H"), tensor("r", "T", "H"), tensor("w", "H")),
        (tensor("y", "T", "H"), tensor("residual", "T", "H")),
        (ScalarArgument("eps", "float", 1e-6),),
    )
    second = out("residual", "ij", "TH", total("j", "i"))
    return Program(signature, (out("y", "th", "TH", y), second))


def gate():
    """Slices, a bias of the columns, one per row and one for all; names that C++ would dislike."""
    value = load("lanes", "t", op("add", Axis("d"), Extent("D")))
    gate_ = op("sigmoid", op("add", load("lanes", "t", "d"), load("b", "d")))
    body = op("add", op("mul", gate_, value), op("mul", load("row", "t", 0), load("one")))
    signature = Signature(
        (tensor("lanes", "T", "2*D"), tensor("b", "D"), tensor("row", "T", "1"), tensor("one")),
        (tensor("out", "T", "D"),),
    )
    return Program(signature, (out("out", "td", "TD", body),))


def masked_log_sum_exp():
    """One output per row, one per element, and a boolean input."""

    def masked(row, axis):
        return op("where", load("mask", row, axis), load("x", row, axis), -np.inf)

    def result(row, i, j, k):
        greatest = Reduce("max", i, "H", masked(row, i))
        other = Reduce("max", k, "H", masked(row, k))
        total = Reduce("sum", j, "H", op("exp", op("sub", masked(row, j), greatest)))
        return op("add", op("log", total), other)

    signature = Signature(
        (tensor("x", "T", "H"), tensor("mask", "T", "H", dtype=Dtype.BOOL)),
        (tensor("lse", "T"), tensor("p", "T", "H")),
    )
    p = op("exp", op("sub", masked("u", "h"), result("u", "a", "b", "c")))
    return Program(
        signature, (out("lse", "t", "T", result("t", "i", "j", "k")), out("p", "uh", "TH", p))
    )


def layer_norm():
    """Dependent reductions in three dimensions."""
    count = op("to_float", Extent("H"))

    def mean(axis):
        return op("div", Reduce("sum", axis, "H", load("x", "b", "t", axis)), count)

    centred = op("sub", load("x", "b", "t", "q"), mean("i"))
    variance = op("div", Reduce("sum", "q", "H", op("mul", centred, centred)), count)
    scale = op("rsqrt", op("add", variance, 1e-5))
    body = op("add", op("mul", op("mul", op("sub", load("x", "b", "t", "h"), mean("j")), scale),
                        load("w", "h")), load("bias", "h"))  # fmt: skip
    signature = Signature(
        (tensor("x", "B", "T", "H"), tensor("w", "H"), tensor("bias", "H")),
        (tensor("out", "B", "T", "H"),),
    )
    return Program(signature, (out("out", "bth", "BTH", body),))


def matrix_vector():
    body = Reduce("sum", "k", "N", op("mul", load("A", "i", "k"), load("x", "k")))
    signature = Signature((tensor("A", "M", "N"), tensor("x", "N")), (tensor("y", "M"),))
    return Program(signature, (out("y", "i", "M", body),))


def dot():
    body = Reduce("sum", "k", "N", op("mul", load("a", "k"), load("b", "k")))
    return Program(
        Signature((tensor("a", "N"), tensor("b", "N")), (tensor("s"),)), (out("s", "", "", body),)
    )


def transposed():
    """A strided load, and a softmax over rows of the transpose."""
    body = op("mul", load("x", "t", "h"), op("to_float", Axis("t")))
    return Program(
        Signature((tensor("x", "T", "H"),), (tensor("out", "H", "T"),)),
        (out("out", "ht", "HT", body),),
    )


def joined():
    """Concatenation: each branch reads outside of its tensor where it is not chosen."""
    second = load("b", op("sub", Axis("i"), Extent("N")))
    body = op("where", op("lt", Axis("i"), Extent("N")), load("a", "i"), second)
    signature = Signature((tensor("a", "N"), tensor("b", "M")), (tensor("out", "N+M"),))
    return Program(signature, (out("out", "i", ("N+M",), body),))


def indices():
    """Arg-reduction, integer sums, booleans out and a gather, in one program."""
    positive = op("gt", load("x", "t", "h"), 0.0)
    signature = Signature(
        (tensor("x", "T", "H"), tensor("k", "T", "H", dtype=Dtype.I32),
         tensor("ids", "T", dtype=Dtype.I64)),
        (tensor("first", "T", dtype=Dtype.I64), tensor("count", "T", dtype=Dtype.I64),
         tensor("flag", "T", "H", dtype=Dtype.BOOL), tensor("rows", "T", "H")),
    )  # fmt: skip
    counted = op("where", op("gt", load("x", "i", "n"), 0.0), load("k", "i", "n"), 0)
    return Program(signature, (
        out("first", "a", "T", Reduce("argmax", "m", "H", load("x", "a", "m"))),
        out("count", "i", "T", Reduce("sum", "n", "H", counted)),
        out("flag", "th", "TH", op("and", positive, op("lt", load("k", "t", "h"), 5))),
        out("rows", "pq", "TH", load("x", load("ids", "p"), "q")),
    ))  # fmt: skip


def image_mean():
    """A reduction over two axes, in four dimensions."""
    total = Reduce("sum", "i", "H", Reduce("sum", "j", "W", load("x", "b", "c", "i", "j")))
    body = op("mul", op("div", total, op("to_float", Extent("H*W"))), load("s", "c"))
    signature = Signature(
        (tensor("x", "B", "C", "H", "W"), tensor("s", "C")), (tensor("out", "B", "C"),)
    )
    return Program(signature, (out("out", "bc", "BC", body),))


# -- compiling and calling ---------------------------------------------------------------------


def compile_source(source: str, folder: Path, tunables, optimise="-O1") -> Path:
    """Compile for this machine with g++; the path of the library."""
    macros = [f"-D{k}={v}" for k, v in tunables.items() if k not in ("CXX", "FLAGS")]
    name = hashlib.sha256(repr((source, sorted(macros), optimise)).encode()).hexdigest()[:16]
    path, library = folder / f"{name}.cpp", folder / f"{name}.so"
    path.write_text(source)
    command = ["g++", "-std=c++17", "-fPIC", "-shared", "-fopenmp", optimise, "-march=native",
               "-Wno-psabi", *macros, f"-I{include_folder()}", str(path),
               "-o", str(library)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:3000]
    return library


def narrow(values, dtype):
    """Bytes of an array in an element type, and the exact values that they hold."""
    if dtype is Dtype.BF16:
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
        bits = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
        return bits, widen(bits)
    kinds = {Dtype.F32: np.float32, Dtype.F16: np.float16, Dtype.I32: np.int32, Dtype.I64: np.int64,
             Dtype.BOOL: np.bool_}  # fmt: skip
    stored = np.ascontiguousarray(values, kinds[dtype])
    return stored, stored.astype(np.float64) if dtype.is_float else stored


def widen(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def aligned(nbytes):
    buffer = np.zeros(nbytes + 128, np.uint8)
    start = (64 - buffer.ctypes.data) % 128
    return buffer[start : start + nbytes]


def make_inputs(program, sizes, dtype, seed=0):
    """Name to (buffer, exact values)."""
    generator, made = np.random.default_rng(seed), {}
    for argument in program.signature.inputs:
        shape, kind = argument.shape(sizes), argument.resolve(dtype)
        values = generator.standard_normal(shape) * 3
        if kind is Dtype.BOOL:
            values = generator.random(shape) < 0.6
            values[..., 0] = True
        elif not kind.is_float:
            values = generator.integers(0, sizes["T"], shape)
        stored, exact = narrow(values, kind)
        buffer = aligned(max(stored.nbytes, 1))
        buffer[: stored.nbytes] = stored.reshape(-1).view(np.uint8)
        made[argument.name] = (buffer, exact.reshape(shape))
    return made


def call(library: Path, program, sizes, dtype, inputs):
    """Run a kernel; outputs as float64 (or integers), guarded against overruns."""
    handle, signature = ctypes.CDLL(str(library)), program.signature
    outputs = [aligned(max(t.nbytes(sizes, dtype), 1) + 64) for t in signature.outputs]
    for buffer in outputs:
        buffer[:] = 0xFF
    buffers = [inputs[t.name][0] for t in signature.inputs] + outputs
    numbers = [ctypes.c_int64(sizes[d]) for d in signature.dimensions]
    numbers += [ctypes.c_double(s.default) for s in signature.scalars]
    nbytes = 0
    if hasattr(handle, "kernel_workspace"):
        handle.kernel_workspace.restype = ctypes.c_int64
        nbytes = handle.kernel_workspace(*numbers)
    workspace = aligned(nbytes + 1)
    pointers = [ctypes.c_void_p(b.ctypes.data) for b in buffers]
    code = handle.kernel(*pointers, *numbers, None, ctypes.c_void_p(workspace.ctypes.data),
                         ctypes.c_int64(nbytes), None)  # fmt: skip
    assert code == 0
    results = {}
    for argument, buffer in zip(signature.outputs, outputs, strict=True):
        used, kind = argument.nbytes(sizes, dtype), argument.resolve(dtype)
        assert (buffer[used:] == 0xFF).all(), f"{argument.name} was overrun"
        kinds = {
            Dtype.F32: np.float32,
            Dtype.F16: np.float16,
            Dtype.I64: np.int64,
            Dtype.I32: np.int32,
            Dtype.BOOL: np.bool_,
        }
        raw = buffer[:used].view(np.uint16 if kind is Dtype.BF16 else kinds[kind])
        results[argument.name] = (widen(raw) if kind is Dtype.BF16 else raw).reshape(
            argument.shape(sizes)
        )
    return results
