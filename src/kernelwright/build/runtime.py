"""The worker's host program, built once per toolchain."""

from pathlib import Path

from kernelwright.model import Toolchain


def build_runtime(toolchain: Toolchain, cache: Path | None = None) -> Path:
    """Path of the worker's host program built with this toolchain (so one OpenMP runtime exists).

    Raises:
        HarnessError: it does not compile.
    """
    raise NotImplementedError
