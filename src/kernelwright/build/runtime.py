"""The worker's host program, built once per toolchain."""

import os
import tempfile
from pathlib import Path

from kernelwright.build.cache import user_cache_folder
from kernelwright.build.compilers import BASE_FLAGS, compile_in, diagnostics
from kernelwright.errors import HarnessError
from kernelwright.model import Toolchain, content_hash

_SOURCES = Path(__file__).parent.parent / "worker"


def build_runtime(toolchain: Toolchain, cache: Path | None = None) -> Path:
    """Path of the worker's host program built with this toolchain.

    Host and artifact come from one compiler, so that one OpenMP runtime exists in the process.

    Raises:
        HarnessError: it does not compile.
    """
    texts = {path.name: path.read_text() for path in sorted(_SOURCES.glob("*.[ch]pp"))}
    parts = [part for item in texts.items() for part in item]
    stamp = str(os.stat(toolchain.path).st_mtime_ns)
    key = content_hash(*parts, toolchain.path, toolchain.version, stamp)
    folder = (cache or user_cache_folder()) / "runtimes"
    path = folder / f"{key}-{toolchain.openmp}"
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        scratch = Path(name)
        for source, text in texts.items():
            (scratch / source).write_text(text)
        arguments = [*BASE_FLAGS, "-O2", "-Wall", "runtime.cpp", "-o", "runtime", "-ldl"]
        outcome = compile_in(scratch, toolchain.path, arguments, 60)
        if outcome.code != 0:
            text = diagnostics(outcome, scratch)
            raise HarnessError(f"the worker's host does not compile with {toolchain.name}: {text}")
        os.replace(scratch / "runtime", path)
    return path
