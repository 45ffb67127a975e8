"""Compilers: what is available, building, caching."""

from kernelwright.build.artifact import Artifact
from kernelwright.build.builder import CppBuilder
from kernelwright.build.cache import user_cache_folder
from kernelwright.build.header import include_folder
from kernelwright.build.runtime import build_runtime
from kernelwright.build.toolchains import discover_toolchains

__all__ = [
    "Artifact",
    "CppBuilder",
    "build_runtime",
    "discover_toolchains",
    "include_folder",
    "user_cache_folder",
]
