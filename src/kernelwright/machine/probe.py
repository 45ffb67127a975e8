"""The machine record: facts, toolchains and measured rates."""

from kernelwright.build import discover_toolchains
from kernelwright.build.cache import read_json, user_cache_folder, write_json
from kernelwright.errors import MachineError
from kernelwright.machine import facts
from kernelwright.machine.gpu import probe_gpu
from kernelwright.machine.roof import SOURCE, RoofProbe
from kernelwright.model import FrozenMap, Machine, Toolchain, content_hash
from kernelwright.sandbox import isolation

_ROUNDS = 12
_STREAMS: tuple[str, ...] = ("read", "copy", "triad", "write")
_UNITS: tuple[str, ...] = ("fma", "bf16 products")
_RATES = (*_STREAMS, *_UNITS)


def _measure(toolchains: tuple[Toolchain, ...], threads: int, l3_bytes: int) -> dict[str, float]:
    """The best of a dozen rounds of every probe: GB/s, and GFLOP/s of arithmetic."""
    with RoofProbe(toolchains, threads, l3_bytes) as probe:
        best: dict[str, float] = dict.fromkeys(_RATES, 0.0)
        for _ in range(_ROUNDS):
            now = {**probe.rates(_STREAMS), **{unit: probe.gflops(unit) for unit in _UNITS}}
            best = {name: max(best[name], now[name]) for name in _RATES}
    return best


def _rates(
    toolchains: tuple[Toolchain, ...], threads: int, l3_bytes: int, refresh: bool
) -> dict[str, float]:
    """Measured rates, remembered per CPU, team and compiler."""
    compiler = (toolchains[0].path, toolchains[0].version)
    key = content_hash(facts.cpu_name(), str(threads), str(l3_bytes), *compiler, SOURCE.read_text())
    path = user_cache_folder() / f"rates-{key[:16]}.json"
    rates = None if refresh else read_json(path)
    if not isinstance(rates, dict) or set(rates) != set(_RATES):
        rates = _measure(toolchains, threads, l3_bytes)
        write_json(path, rates)
    return rates


def probe(threads: int | None = None, refresh: bool = False, gpu: bool = True) -> Machine:
    """Find out what this machine is and what it reaches.

    Args:
        threads: Cores that kernels and baselines shall use; default: all that this process may.
        refresh: Measure the rates again instead of taking those of an earlier run.
        gpu: Look for an NVIDIA GPU as well.

    Raises:
        MachineError: no usable C++ compiler, or more threads than cores.
    """
    toolchains, missing = discover_toolchains()
    if not toolchains:
        found = "; ".join(f"{name} {why}" for name, why in missing.items())
        raise MachineError(
            "no usable C++ compiler with OpenMP was found: install g++ 11 or newer, or clang++ 15 "
            f"or newer with libomp{f' ({found})' if found else ''}"
        )
    cores = facts.usable_cores()
    if threads is not None and not 1 <= threads <= cores:
        raise MachineError(f"{threads} threads were asked for; this process may use {cores} cores")
    cores = threads or cores
    isa = facts.isa_flags()
    l1_bytes, l2_bytes, l3_bytes = facts.cache_bytes()
    rates = _rates(toolchains, cores, l3_bytes, refresh)
    device, absent = probe_gpu(refresh) if gpu else (None, dict[str, str]())
    return Machine(
        name=facts.machine_name(cores),
        cpu=facts.cpu_name(),
        cores=cores,
        vector_bits=facts.vector_bits(isa),
        isa=isa,
        l1_bytes=l1_bytes,
        l2_bytes=l2_bytes,
        l3_bytes=l3_bytes,
        memory_bytes=facts.memory_bytes(),
        os=facts.os_name(),
        toolchains=toolchains,
        missing=FrozenMap({**missing, **absent}),
        read_gbs=rates["read"],
        copy_gbs=rates["copy"],
        triad_gbs=rates["triad"],
        write_gbs=rates["write"],
        fma_gflops=rates["fma"],
        bf16_gflops=rates["bf16 products"],
        isolation=isolation(),
        versions=FrozenMap(facts.versions()),
        gpu=device,
    )
