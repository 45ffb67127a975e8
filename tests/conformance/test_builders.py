from functools import lru_cache

import pytest

from kernelwright.build import CppBuilder, discover_toolchains
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


class TestFake(BuilderConformance):
    def make(self, cache):
        return FakeBuilder(cache)

    def compiler(self):
        return "g++"


def test_builders_without_a_compiler_say_so(tmp_path):
    for builder in (CppBuilder((), tmp_path), FakeBuilder(tmp_path, ())):
        assert builder.available()
