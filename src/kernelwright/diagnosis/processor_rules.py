"""What slows down kernels on processors: by what stands in their innermost loops."""

from collections.abc import Iterator

from kernelwright.diagnosis.situation import Hint, Situation
from kernelwright.model import FrozenMap, KernelFacts, Limit

_LIGHT = 0.4
"""Weight of what only the look of the code says."""


def processor_findings(s: Situation) -> Iterator[Hint]:
    """Of the library's functions together."""
    for kernel in s.kernels:
        yield from _vectors(s, kernel)
        yield from _memory(s, kernel)


def _looped(mix: FrozenMap[str, int], kind: str) -> int:
    """Within the innermost loops, or everywhere where there are none."""
    return mix.get(f"loop {kind}" if mix.get("loop instructions") else kind, 0)


def _vectors(s: Situation, kernel: KernelFacts) -> Iterator[Hint]:
    mix = kernel.mix
    widths = {bits: _looped(mix, f"packed {bits}") for bits in (512, 256, 128)}
    single, calls = _looped(mix, "single"), _looped(mix, "calls")
    work = {bits: count * bits // 32 for bits, count in widths.items()}  # values, not instructions
    total = single + sum(work.values())
    evidence = {f"packed, {bits} bits": float(count) for bits, count in widths.items()}
    evidence |= {"on single values": float(single), "calls": float(calls)}
    if total and single > 0.5 * total and not mix.get("matrix"):
        text = f"{single / total:.0%} of the arithmetic in its innermost loops is on single values"
        if calls:
            text += f", beside {calls} calls"
        yield Hint(Limit.SCALAR, 0.8 * s.slack * single / total, text, evidence)
        return
    full = sum(count for bits, count in work.items() if bits >= s.vector_bits)
    if total and full < 0.5 * total and s.compute_us > 0.2 * s.memory_us:
        text = f"most of its arithmetic is on vectors narrower than {s.vector_bits} bits"
        yield Hint(Limit.SCALAR, _LIGHT * s.slack * (1 - full / total), text, evidence)


def _memory(s: Situation, kernel: KernelFacts) -> Iterator[Hint]:
    mix = kernel.mix
    gathers, stack = _looped(mix, "gathers"), _looped(mix, "stack")
    work = sum(_looped(mix, f"packed {bits}") for bits in (512, 256, 128)) + _looped(mix, "single")
    if gathers:
        text = f"its innermost loops hold {gathers} gathers: a cache access for each element"
        share = gathers / (gathers + work / 8)
        yield Hint(Limit.UNCOALESCED, 0.6 * s.slack * share, text, {"gathers": float(gathers)})
    if stack and work:
        text = f"its innermost loops move vectors to or from the stack {stack} times"
        share = stack / (stack + work)
        evidence = {"stack accesses": float(stack), "arithmetic": float(work)}
        yield Hint(Limit.SPILLS, 0.6 * s.slack * share, text, evidence)
