"""Builders, one for each language: what is available, building, caching, and what runs the result.

Third parties register theirs under the entry-point group `kernelwright.builders`.
"""

from kernelwright.build.artifact import Artifact
from kernelwright.build.builder import CppBuilder
from kernelwright.build.cache import user_cache_folder
from kernelwright.build.cuda import CudaBuilder, solo_host
from kernelwright.build.header import include_folder
from kernelwright.build.inspection import imports_of
from kernelwright.build.nvcc import Toolkit, find_toolkit, for_architecture
from kernelwright.build.protocol import Builder
from kernelwright.build.ptxas import KernelResources
from kernelwright.build.python import PythonBuilder
from kernelwright.build.registry import Builders, builder_for, languages
from kernelwright.build.runtime import build_clock, build_runtime
from kernelwright.build.toolchains import discover_toolchains
from kernelwright.build.triton import TritonBuilder
from kernelwright.build.triton_call import TRIAL_CALL, call_line, parse_call

__all__ = [
    "TRIAL_CALL",
    "Artifact",
    "Builder",
    "Builders",
    "CppBuilder",
    "CudaBuilder",
    "KernelResources",
    "PythonBuilder",
    "Toolkit",
    "TritonBuilder",
    "build_clock",
    "build_runtime",
    "builder_for",
    "call_line",
    "discover_toolchains",
    "find_toolkit",
    "for_architecture",
    "imports_of",
    "include_folder",
    "languages",
    "parse_call",
    "solo_host",
    "user_cache_folder",
]
