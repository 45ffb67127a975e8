"""Cold memory: lines thrown out of every cache, without reading twice the last level.

Reading enough other bytes takes 2 to 3 ms where the last level has 32 MB, but 43 ms where a host
lends its guests a share in 480 MB. Flushing the lines of the tensors themselves leaves them as cold
(16 MB read in 528 µs, against 508 µs after reading 1 GB) and takes under 1 ms.
"""

import ctypes
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from kernelwright.build import user_cache_folder
from kernelwright.build.compilers import compile_in, diagnostics
from kernelwright.errors import HarnessError
from kernelwright.model import Machine, Toolchain, content_hash

_SOURCE = Path(__file__).parent / "evict.cpp"
_PRIVATE_BYTES = 16 << 20

Evict = Callable[[NDArray[Any]], None]


@cache
def evictor(toolchain: Toolchain) -> Evict | None:
    """A function that throws the lines of an array out of all caches of this machine.

    It works on memory that other processes map too. None where the processor has no such
    instruction.

    Raises:
        HarnessError: it does not compile.
    """
    return load_evictor(build_evictor(toolchain))


def load_evictor(path: Path) -> Evict | None:
    """The function of a library that `build_evictor` made, perhaps in another process."""
    function = ctypes.CDLL(str(path)).evict
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    if not function(None, 0):
        return None

    def evict(array: NDArray[Any]) -> None:
        function(array.ctypes.data, array.nbytes)

    return evict


def flush_bytes(machine: Machine, evicts: bool, factor: float = 2.0) -> int:
    """Bytes that a process reads to make its caches cold right before a timed call.

    Args:
        machine: whose caches.
        evicts: what the call will touch has been evicted line by line: then it suffices to fill
            the private caches, which hold the process's own data.
        factor: last-level caches to read otherwise.
    """
    whole = int(factor * machine.l3_bytes)
    own = max(_PRIVATE_BYTES, 4 * machine.l2_bytes * machine.cores)
    return min(whole, own) if evicts else whole


def build_evictor(toolchain: Toolchain) -> Path:
    """The library behind `evictor`, in the user's cache, in a folder that holds nothing private.

    Raises:
        HarnessError: it does not compile.
    """
    text = _SOURCE.read_text()
    folder = user_cache_folder() / "runtimes"
    path = folder / f"{content_hash(text, toolchain.path, toolchain.version)}-evict.so"
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        scratch = Path(name)
        (scratch / _SOURCE.name).write_text(text)
        arguments = ["-O2", "-shared", "-fPIC", _SOURCE.name, "-o", "library"]
        outcome = compile_in(scratch, toolchain.path, arguments, 60)
        if outcome.code != 0:
            raise HarnessError(f"{_SOURCE.name} does not compile: {diagnostics(outcome, scratch)}")
        os.replace(scratch / "library", path)
    return path
