"""What a kernel does, in a few short words: read from its machine code, never from its source.

Each word is `AXIS:WORD` on one of four axes: the memory path, the shape of arithmetic, the level of
parallelism, and synchronisation.
"""

import re
from collections.abc import Collection, Mapping

from kernelwright.build import Artifact, imports_of
from kernelwright.diagnosis.facts import gpu_facts, processor_facts

_PROCESSOR = {
    "streaming stores": "memory:streaming", "gathers": "memory:gather", "stack": "memory:spills",
    "matrix": "compute:matrix", "multiply-adds": "compute:multiply-adds",
    "divisions": "compute:divisions",
}  # fmt: skip
_GPU = {
    "asynchronous copies": "memory:asynchronous", "shared loads": "memory:shared",
    "global loads 128 bit": "memory:wide", "local loads": "memory:spills",
    "matrix": "compute:matrix", "float": "compute:float", "special": "compute:special",
    "shuffles": "parallel:warp", "barriers": "synchronisation:barrier",
    "atomics": "synchronisation:atomic",
}  # fmt: skip
_IMPORTS = {
    r"GOMP_parallel\w*|__kmpc_fork_call": "parallel:threads",
    r"GOMP_task\w*|__kmpc_omp_task\w*": "parallel:tasks",
    r"GOMP_barrier|__kmpc_barrier": "synchronisation:barrier",
    r"GOMP_atomic\w*|__kmpc_atomic\w*": "synchronisation:atomic",
    r"GOMP_critical\w*|__kmpc_critical\w*": "synchronisation:critical",
}


def words_of(artifact: Artifact) -> tuple[str, ...]:
    """Words of an artifact, sorted; empty where there is no disassembler or no machine code."""
    if artifact.language == "cuda":
        kernels, _ = gpu_facts(artifact, None, "")
        mixes = [kernel.mix for kernel in kernels]
        return tuple(sorted({word for mix in mixes for word in gpu_words(mix)}))
    if artifact.language != "cpp":
        return ()
    kernels, _ = processor_facts(artifact)
    if not kernels:
        return ()
    return processor_words(kernels[0].mix, imports_of(artifact.path))


def processor_words(mix: Mapping[str, int], imports: Collection[str]) -> tuple[str, ...]:
    """Words of a library by its instructions and the names that it takes from others."""
    found = {word for kind, word in _PROCESSOR.items() if mix.get(kind)}
    widths = [width for width in (512, 256, 128) if mix.get(f"packed {width}")]
    found.add(f"compute:vectors of {widths[0]}" if widths else "compute:single")
    for pattern, word in _IMPORTS.items():
        if any(re.fullmatch(pattern, name) for name in imports):
            found.add(word)
    return tuple(sorted(found))


def gpu_words(mix: Mapping[str, int]) -> tuple[str, ...]:
    """Words of one `__global__` function by its instructions."""
    return tuple(sorted(word for kind, word in _GPU.items() if mix.get(kind)))
