"""Builds a generated family with one compiler and calls it on NumPy arrays."""

import ctypes
import hashlib
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np

import kernelwright.build
from kernelwright.machine.facts import isa_flags
from kernelwright.model import Dtype, Machine, Toolchain
from kernelwright.space import parse_declarations

_INCLUDE = Path(kernelwright.build.__file__).parent / "include"
_FOLDER = Path(tempfile.mkdtemp(prefix="kernels-"))
_ADDRESS = ctypes.c_void_p
_SCALARS = {"float": ctypes.c_double, "int": ctypes.c_int64, "bool": ctypes.c_int32}
COMPILERS = [c for c in ("g++", "clang++-19") if shutil.which(c)]
_NUMPY = {Dtype.F32: np.float32, Dtype.BF16: np.uint16, Dtype.I64: np.int64, Dtype.I32: np.int32,
          Dtype.BOOL: np.uint8, Dtype.U8: np.uint8}  # fmt: skip


def this_machine():
    flags = isa_flags()  # asks for the matrix unit as well
    bits = 512 if "avx512f" in flags else 256 if "avx2" in flags else 128
    chains = tuple(Toolchain(c, c, "", "", 2) for c in COMPILERS)
    caches = (32 << 10, 1 << 20, 32 << 20)
    return Machine("here", "cpu", 2, bits, flags, *caches, 1 << 34, "linux", chains)


@cache
def binary(source, values, compiler):
    """Path of the shared library."""
    values = dict(values)
    flags = str(values.pop("FLAGS", "-O3 -march=native")).split()
    values.pop("CXX", None)
    macros = [f"-D{name}={value}" for name, value in values.items()]
    key = hashlib.sha256(repr((source, macros, compiler, flags)).encode()).hexdigest()[:24]
    text, library = _FOLDER / f"{key}.cpp", _FOLDER / f"{key}.so"
    text.write_text(source)
    command = [compiler, "-std=c++17", "-fPIC", "-shared", "-fopenmp", *flags, *macros,
               f"-I{_INCLUDE}", str(text), "-o", str(library)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:4000]
    return library


def build(family, changes=None, compiler="g++"):
    """A loaded kernel at the first defaults with some changed values."""
    values = {**family.defaults[0], **(changes or {})}
    return ctypes.CDLL(str(binary(family.source, tuple(values.items()), compiler)))


def assert_every_tunable_changes_the_binary(family, changes=None):
    """Another value of any tunable gives another library (compilers and flags aside)."""
    base = dict(family.defaults[0]) | {"FLAGS": "-O1 -march=native"} | (changes or {})
    variants = {"as it is": base}
    for tunable in parse_declarations(family.source).tunables:
        if tunable.name not in ("CXX", "FLAGS"):
            other = next(v for v in tunable.values if v != base[tunable.name])
            variants[tunable.name] = base | {tunable.name: other}
    with ThreadPoolExecutor(2) as pool:
        built = pool.map(
            lambda v: binary(family.source, tuple(v.items()), "g++"), variants.values()
        )
        found = {name: path.read_bytes() for name, path in zip(variants, built, strict=True)}
    plain = found.pop("as it is")
    assert [name for name, library in found.items() if library == plain] == []


def narrow(values, dtype):
    """Float64 values in the storage form of a dtype."""
    values = np.asarray(values)
    if dtype is Dtype.BF16:
        bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return values.astype(_NUMPY[dtype])


def widen(stored, dtype):
    """Storage form to float64 (or the integers themselves)."""
    if dtype is Dtype.BF16:
        return (stored.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return stored.astype(np.float64) if dtype is Dtype.F32 else stored


def _aligned(array, filler=None):
    """A copy at a 64-byte boundary, between guards that `call` checks."""
    raw = np.full(array.nbytes + 192, 0xA5, np.uint8)
    start = 64 + -raw.ctypes.data % 64
    view = raw[start : start + array.nbytes]
    view[:] = 0xFF if filler else np.frombuffer(array.tobytes(), np.uint8)
    return raw, view.view(array.dtype).reshape(array.shape)


def _prepared(library, signature, held, numbers, entry):
    """What the kernel packs beforehand, from its static inputs alone; None where it does not."""
    if not hasattr(library, f"{entry}_prepare"):
        return None
    size = getattr(library, f"{entry}_prepared")
    size.restype = ctypes.c_int64
    packed = _aligned(np.zeros(size(*numbers), np.uint8), filler=True)
    pairs = zip(signature.inputs, held, strict=False)
    static = [view.ctypes.data_as(_ADDRESS) for t, (_, view) in pairs if t.static]
    function = getattr(library, f"{entry}_prepare")
    assert function(*static, *numbers, packed[1].ctypes.data_as(_ADDRESS), None) == 0
    return packed


def call(library, signature, dtype, inputs, sizes, scalars=None, entry="kernel"):
    """Outputs by name, as float64 or integers; inputs are given in storage form."""
    scalars = scalars or {}
    held, arguments = [], []
    outputs = {}
    for tensor in signature.inputs:
        held.append(_aligned(np.ascontiguousarray(inputs[tensor.name])))
        arguments.append(ctypes.c_void_p(held[-1][1].ctypes.data))
    for tensor in signature.outputs:
        kind = _NUMPY[tensor.resolve(dtype)]
        held.append(_aligned(np.zeros(tensor.shape(sizes), kind), filler=True))
        outputs[tensor.name] = held[-1][1]
        arguments.append(ctypes.c_void_p(held[-1][1].ctypes.data))
    numbers = [ctypes.c_int64(sizes[name]) for name in signature.dimensions]
    for scalar in signature.scalars:
        numbers.append(_SCALARS[scalar.kind](scalars[scalar.name]))
    size = 0
    if hasattr(library, f"{entry}_workspace"):
        function = getattr(library, f"{entry}_workspace")
        function.restype = ctypes.c_int64
        size = function(*numbers)
    workspace = _aligned(np.zeros(size, np.uint8), filler=True)
    prepared = _prepared(library, signature, held, numbers, entry)
    code = getattr(library, entry)(
        *arguments, *numbers, None if prepared is None else prepared[1].ctypes.data_as(_ADDRESS),
        ctypes.c_void_p(workspace[1].ctypes.data), ctypes.c_int64(size), None,
    )  # fmt: skip
    assert code == 0
    for raw, view in [*held, workspace, *([] if prepared is None else [prepared])]:
        start = view.ctypes.data - raw.ctypes.data if view.nbytes else 64
        assert (raw[:start] == 0xA5).all()
        assert (raw[start + view.nbytes :] == 0xA5).all()
    return {t.name: widen(outputs[t.name], t.resolve(dtype)) for t in signature.outputs}
