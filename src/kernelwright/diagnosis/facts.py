"""What is known of a built kernel, from every source that can be asked here."""

import ctypes
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from kernelwright.build import Artifact, KernelResources
from kernelwright.diagnosis import counters
from kernelwright.diagnosis.alone import AloneCall, run_alone, told
from kernelwright.diagnosis.disassembly import gpu_mixes, processor_mix
from kernelwright.diagnosis.occupancy import limits_of, occupancy
from kernelwright.diagnosis.rules import Asked
from kernelwright.diagnosis.tools import disassemble, find_tool
from kernelwright.model import FrozenMap, KernelFacts

_ENERGY_S = 1.0
"""The counter moves every 20 ms or so; over a second it is exact to a few percent."""
_LEAST_ENERGY_MJ = 2000
Known = tuple[tuple[KernelFacts, ...], Asked]


def gpu_facts(
    artifact: Artifact, call: AloneCall | None, architecture: str, thorough: bool = True
) -> Known:
    """Of a CUDA artifact.

    Args:
        artifact: the built kernel.
        call: with which its launches, counters and energy can be had; None: there is no GPU.
        architecture: what it was compiled for, such as `sm_90a`.
        thorough: whether energy and counters are asked for, which takes many seconds.
    """
    sources, absent = ["rates", "ptxas"], dict[str, str]()
    mixes: dict[str, FrozenMap[str, int]] = {}
    tool = find_tool("cuobjdump")
    text = disassemble(tool, ["-sass"], artifact.path) if tool else None
    if text is None:
        absent["disassembly"] = "cuobjdump failed" if tool else "cuobjdump is not installed"
    else:
        mixes = gpu_mixes(text)
        sources.append("disassembly")
    document: Mapping[str, Any] | None = None
    found: dict[str, FrozenMap[str, float]] = {}
    if call is None:
        absent["launches"] = "there is no GPU here"
    else:
        outcome = run_alone(call, seconds=_ENERGY_S if thorough else 0.0)
        document = told(outcome)
        if document is None:
            said = outcome.output.strip().splitlines()[-1:] or ["no reason given"]
            absent["launches"] = f"the kernel alone did not answer: {said[0][:200]}"
        else:
            sources += ["launches", "occupancy"]
        counted = counters.counters_of(call) if thorough else "not asked during a search"
        if isinstance(counted, str):
            absent["counters"] = counted
        else:
            found = counted
            sources.append("counters")
    kernels = joined(artifact.resources, mixes, document, found, architecture)
    return kernels, Asked(tuple(sources), FrozenMap(absent), energy_mj(document))


def processor_facts(artifact: Artifact) -> Known:
    """Of a library for the processor."""
    if artifact.language != "cpp":
        absent = {"disassembly": f"a kernel in {artifact.language} has no library of its own"}
        return (), Asked(("rates",), FrozenMap(absent))
    tool = find_tool("objdump")
    options = ["-d", "--no-show-raw-insn"]
    text = disassemble(tool, options, artifact.path) if tool else None
    if text is None:
        why = "objdump failed" if tool else "objdump (binutils) is not installed"
        return (), Asked(("rates",), FrozenMap({"disassembly": why}))
    kernel = KernelFacts("the library", mix=processor_mix(text))
    return (kernel,), Asked(("rates", "disassembly"), FrozenMap())


def joined(
    resources: Sequence[KernelResources],
    mixes: Mapping[str, FrozenMap[str, int]],
    document: Mapping[str, Any] | None,
    counted: Mapping[str, FrozenMap[str, float]],
    architecture: str,
) -> tuple[KernelFacts, ...]:
    """Everything about each kernel, by its mangled name; longest first.

    Args:
        resources: of the assembler.
        mixes: of the disassembly.
        document: what `worker/solo.cu` printed; None: launches are not known, and all kernels of
            the library are listed.
        counted: of Nsight Compute.
        architecture: decides what fits on a multiprocessor.
    """
    launches: dict[str, list[Mapping[str, Any]]] = {}
    for launch in document["launches"] if document else ():
        launches.setdefault(launch["name"], []).append(launch)
    by_name = {resource.name: resource for resource in resources}
    names = list(launches) or list(by_name)
    kernels = [
        _kernel(
            name, by_name.get(name), mixes.get(name), launches.get(name, ()), counted.get(name),
            architecture,
        )
        for name in names
    ]  # fmt: skip
    return tuple(sorted(kernels, key=lambda kernel: -kernel.us))


def _kernel(
    name: str,
    resources: KernelResources | None,
    mix: FrozenMap[str, int] | None,
    launches: Sequence[Mapping[str, Any]],
    counted: FrozenMap[str, float] | None,
    architecture: str,
) -> KernelFacts:
    longest = max(launches, key=lambda launch: launch["us"], default=None)
    registers = resources.registers if resources else 0
    shared = resources.shared_bytes if resources else 0
    blocks, limiter, grid, block = 0, "", 0, 0
    if longest is not None:
        grid, block = (_product(longest[part]) for part in ("grid", "block"))
        registers = longest["registers"] if longest["registers"] > 0 else registers
        shared = max(shared, longest["static_shared"]) + longest["dynamic_shared"]
        limits = limits_of(architecture)
        if limits is not None:
            fits = occupancy(limits, block, registers, shared)
            blocks, limiter = fits.blocks, fits.limiter
        if longest["blocks_per_multiprocessor"] > 0:  # the runtime's own word
            blocks = longest["blocks_per_multiprocessor"]
    return KernelFacts(
        name=plain_name(name),
        launches=len(launches),
        us=sum(launch["us"] for launch in launches),
        grid=grid,
        block=block,
        registers=registers,
        shared_bytes=shared,
        spill_bytes=resources.spill_store_bytes + resources.spill_load_bytes if resources else 0,
        blocks_per_multiprocessor=blocks,
        occupancy_limiter=limiter,
        mix=mix or FrozenMap(),
        counters=counted or FrozenMap(),
    )


def energy_mj(document: Mapping[str, Any] | None) -> float | None:
    """Millijoules a call; None where the counter moved too little to be exact."""
    energy = document.get("energy") if document else None
    if not energy or energy["millijoules"] < _LEAST_ENERGY_MJ or not energy["calls"]:
        return None
    return energy["millijoules"] / energy["calls"]


def plain_name(mangled: str) -> str:
    """`sums<float>` for what the assembler calls `_Z4sumsIfEvPKfPf`."""
    demangle = _demangler()
    status = ctypes.c_int()
    text = demangle(mangled.encode(), None, None, ctypes.byref(status)) if demangle else None
    if not text:
        return mangled
    name = text.decode().replace("(anonymous namespace)::", "")
    name = re.sub(r"\(.*\)$", "", name)
    return name.removeprefix("void ")


@lru_cache(maxsize=1)
def _demangler() -> Any:
    """The C++ runtime's; what it allocates (a name each) is not given back."""
    try:
        function = ctypes.CDLL("libstdc++.so.6").__cxa_demangle
    except (OSError, AttributeError):
        return None
    function.restype = ctypes.c_char_p
    function.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p]
    return function


def _product(parts: Sequence[int]) -> int:
    x, y, z = parts
    return x * y * z
