"""The worker's hosts, built on this machine by its own compilers."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kernelwright.build.cache import disk_trouble, user_cache_folder
from kernelwright.build.compilers import compile_in, diagnostics
from kernelwright.errors import HarnessError
from kernelwright.model import Toolchain, content_hash

_SOURCES = Path(__file__).parent.parent / "worker"


def build_runtime(toolchain: Toolchain, cache: Path | None = None) -> Path:
    """Path of the worker's host program for shared libraries, built with this toolchain.

    Host and artifact come from one compiler, so that one OpenMP runtime exists in the process.

    Raises:
        HarnessError: it does not compile.
    """
    arguments = ("-fopenmp", "runtime.cpp", "-ldl")
    return _built(toolchain, arguments, f"-{toolchain.openmp}", cache)


def build_python_runtime(toolchain: Toolchain, cache: Path | None = None) -> Path:
    """Path of the library that makes an interpreter a host; without any OpenMP runtime.

    Raises:
        HarnessError: it does not compile.
    """
    return _built(toolchain, ("-shared", "python_host.cpp", "-ldl"), "-python.so", cache)


def build_clock(toolchain: Toolchain) -> Path:
    """Path of the library with which the judge takes its clock around a call.

    Raises:
        HarnessError: it does not compile.
    """
    return _built(toolchain, ("-shared", "clock.cpp"), "-clock.so", None)


def _built(
    toolchain: Toolchain, arguments: tuple[str, ...], suffix: str, cache: Path | None
) -> Path:
    texts = {path.name: path.read_text() for path in sorted(_SOURCES.glob("*.[ch]pp"))}
    parts = [part for item in texts.items() for part in item]
    stamp = str(os.stat(toolchain.path).st_mtime_ns)
    key = content_hash(*parts, *arguments, toolchain.path, toolchain.version, stamp)
    folder = (cache or user_cache_folder()) / "runtimes"
    path = folder / f"{key}{suffix}"
    if path.is_file():
        return path
    with disk_trouble(folder), _scratch(folder) as name:
        scratch = Path(name)
        for source, text in texts.items():
            (scratch / source).write_text(text)
        flags = ("-std=c++17", "-fPIC", "-O2", "-Wall", "-o", "runtime")
        outcome = compile_in(scratch, toolchain.path, [*flags, *arguments], 60)
        if outcome.code != 0:
            text = diagnostics(outcome, scratch)
            raise HarnessError(f"the worker's host does not compile with {toolchain.name}: {text}")
        os.replace(scratch / "runtime", path)
    return path


@contextmanager
def _scratch(folder: Path) -> Iterator[str]:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        yield name
