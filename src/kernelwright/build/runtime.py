"""The worker's hosts, built on this machine by its own compilers."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from kernelwright.build.cache import disk_trouble, user_cache_folder
from kernelwright.build.compilers import compile_in, diagnostics
from kernelwright.build.nvcc import Toolkit, for_architecture
from kernelwright.errors import HarnessError
from kernelwright.model import Toolchain, content_hash
from kernelwright.sandbox import Outcome

_SOURCES = Path(__file__).parent.parent / "worker"
_FLAGS = ("-std=c++17", "-fPIC", "-O2", "-Wall", "-o", "runtime")


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


def build_cuda_runtime(
    toolkit: Toolkit,
    toolchain: Toolchain,
    architecture: str,
    cache: Path | None = None,
    source: str = "cuda_host.cu",
) -> Path:
    """Path of a program that runs CUDA artifacts.

    It loads the toolkit's own runtime library, which the artifact then shares.

    Args:
        toolkit: has nvcc.
        toolchain: compiles the host's part.
        architecture: what its own kernels are compiled for, such as `sm_90a`.
        cache: folder; default: the user's.
        source: `cuda_host.cu`, the worker's host, or `solo.cu`, which runs one alone.

    Raises:
        HarnessError: it does not compile.
    """
    rpath = f"-Xlinker=-rpath={toolkit.runtime_folder}"
    link = ("-cudart=shared", rpath, "-Xlinker=-E", source)
    suffix = f"-{Path(source).stem}"
    return _built_by_nvcc(toolkit, toolchain, architecture, link, suffix, cache)


def build_cuda_python_runtime(
    toolkit: Toolkit, toolchain: Toolchain, architecture: str, cache: Path | None = None
) -> Path:
    """Path of the library that makes an interpreter a host of kernels on a GPU.

    The runtime in it is its own: torch brings another one, and both use the device's one context.
    Arguments as of `build_cuda_runtime`.

    Raises:
        HarnessError: it does not compile.
    """
    link = ("-shared", "-Xcompiler=-fPIC", "-cudart=static", "python_host.cu")
    return _built_by_nvcc(toolkit, toolchain, architecture, link, "-cuda-python.so", cache)


def _built_by_nvcc(
    toolkit: Toolkit,
    toolchain: Toolchain,
    architecture: str,
    link: tuple[str, ...],
    suffix: str,
    cache: Path | None,
) -> Path:
    arguments = (
        for_architecture(architecture), "-std=c++17", "-O2", f"-ccbin={toolchain.path}",
        "-o", "runtime", *link, "-ldl",
    )  # fmt: skip
    stamp = str(os.stat(toolkit.nvcc).st_mtime_ns)
    key = (*arguments, toolkit.nvcc, toolkit.version, toolchain.version, stamp)

    def run(scratch: Path) -> Outcome:
        return toolkit.run(scratch, arguments, 120)

    return _published(_texts("*.[ch]pp", "*.cu*"), key, suffix, cache, run, toolkit.version)


def _built(
    toolchain: Toolchain, arguments: tuple[str, ...], suffix: str, cache: Path | None
) -> Path:
    stamp = str(os.stat(toolchain.path).st_mtime_ns)
    key = (*arguments, toolchain.path, toolchain.version, stamp)

    def run(scratch: Path) -> Outcome:
        return compile_in(scratch, toolchain.path, [*_FLAGS, *arguments], 60)

    return _published(_texts("*.[ch]pp"), key, suffix, cache, run, toolchain.name)


def _texts(*patterns: str) -> dict[str, str]:
    """Sources of the worker by name."""
    paths = sorted(path for pattern in patterns for path in _SOURCES.glob(pattern))
    return {path.name: path.read_text() for path in paths}


def _published(
    texts: Mapping[str, str],
    key: Sequence[str],
    suffix: str,
    cache: Path | None,
    run: Callable[[Path], Outcome],
    compiler: str,
) -> Path:
    parts = [part for item in texts.items() for part in item]
    folder = (cache or user_cache_folder()) / "runtimes"
    path = folder / f"{content_hash(*parts, *key)}{suffix}"
    if path.is_file():
        return path
    with disk_trouble(folder), _scratch(folder) as name:
        scratch = Path(name)
        for source, text in texts.items():
            (scratch / source).write_text(text)
        outcome = run(scratch)
        if outcome.code != 0:
            text = diagnostics(outcome, scratch)
            raise HarnessError(f"the worker's host does not compile with {compiler}: {text}")
        os.replace(scratch / "runtime", path)
    return path


@contextmanager
def _scratch(folder: Path) -> Iterator[str]:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        yield name
