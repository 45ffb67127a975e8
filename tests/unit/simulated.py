"""Builds a CUDA family for the simulated GPU."""

import hashlib
import re
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import kernelwright.build

_HERE = Path(__file__).parent / "simulated_gpu"
_INCLUDE = Path(kernelwright.build.__file__).parent / "include"
_LAUNCH = re.compile(r"(\w+)\s*<<<(.*?)>>>\s*\(", re.DOTALL)
"""`kernel<<<grid, block, bytes, stream>>>(` of functions that are no templates."""
_FOLDER = Path(tempfile.mkdtemp(prefix="simulated-"))


@cache
def _binary(source, values):
    macros = [f"-D{name}={value}" for name, value in values]
    key = hashlib.sha256(repr((source, macros)).encode()).hexdigest()[:24]
    text, library = _FOLDER / f"{key}.cpp", _FOLDER / f"{key}.so"
    # shared memory whose size the launch decides is the simulator's
    memory = "extern __shared__ __align__(128) char memory[];"
    plain = source.replace(memory, "char* memory = simulated::shared;")
    text.write_text(_LAUNCH.sub(r"simulated::launcher(\1, \2)(", plain))
    command = ["g++", "-std=c++17", "-O1", "-fPIC", "-shared", "-w", "-fno-strict-aliasing",
               # what another kernel calls the same is another thing
               "-fno-gnu-unique",
               *macros, f"-I{_HERE}", f"-I{_INCLUDE}", str(text), "-o", str(library)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:4000]
    return library


def binary(family, changes=None):
    """Path of the library at the first defaults with some changed values."""
    values = {**(family.defaults[0] if family.defaults else {}), **(changes or {})}
    return _binary(family.source, tuple(sorted(values.items())))
