from functools import lru_cache

import pytest

from kernelwright.build import (
    Builders,
    CppBuilder,
    CudaBuilder,
    PythonBuilder,
    discover_toolchains,
    find_toolkit,
)
from kernelwright.model import Candidate, FrozenMap
from kernelwright.testing import samples
from kernelwright.testing.builders import BuilderConformance, FakeBuilder


@lru_cache(maxsize=1)
def toolchains():
    return discover_toolchains()[0]


class TestCpp(BuilderConformance):
    @pytest.fixture(autouse=True)
    def _needs_a_compiler(self):
        if not toolchains():
            pytest.skip("no C++ compiler with OpenMP here")

    def make(self, cache):
        return CppBuilder(toolchains(), cache)

    def compiler(self):
        return toolchains()[-1].name


class TestPython(TestCpp):
    def make(self, cache):
        return PythonBuilder(toolchains(), cache)

    def compiler(self):
        return "python"

    def good(self, **values):
        chosen = FrozenMap({"LANES": 8, "UNROLL": 2, **values})
        return Candidate("python", "kernel", samples.PYTHON_SOURCE, chosen)

    def bad(self):
        return Candidate("python", "kernel", "# first line\ndef unlucky_name(:\n")


class TestCuda(TestCpp):
    @pytest.fixture(autouse=True)
    def _needs_nvcc(self):
        if find_toolkit() is None:
            pytest.skip("no CUDA toolkit here")

    def make(self, cache):
        return CudaBuilder(toolchains(), cache, "sm_90a")

    def compiler(self):
        return "nvcc"

    def good(self, **values):
        chosen = FrozenMap({"LANES": 8, "UNROLL": 2, "CXX": "nvcc", **values})
        return Candidate("cuda", "kernel", samples.CUDA_SOURCE, chosen)

    def bad(self):
        return Candidate("cuda", "kernel", "// first line\n#error unlucky_name\n")


class TestBuildersOnCpp(TestCpp):
    def make(self, cache):
        return Builders(toolchains(), cache)


class TestBuildersOnPython(TestPython):
    def make(self, cache):
        return Builders(toolchains(), cache)


class TestFake(BuilderConformance):
    def make(self, cache):
        return FakeBuilder(cache)

    def compiler(self):
        return "g++"


def test_builders_without_a_compiler_say_so(tmp_path):
    without = (CppBuilder((), tmp_path), PythonBuilder((), tmp_path), FakeBuilder(tmp_path, ()))
    for builder in without:
        assert builder.available()
