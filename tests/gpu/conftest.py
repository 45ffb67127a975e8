"""Tests that need an NVIDIA GPU: skipped, and counted as skipped, where there is none."""

from pathlib import Path

import pytest

from kernelwright.build import find_toolkit
from kernelwright.cuda_driver import missing_gpu

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    missing = missing_gpu() or (None if find_toolkit() else "no CUDA toolkit")
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker("gpu")
            if missing:
                item.add_marker(pytest.mark.skip(reason=missing))
