"""A diagnosis as a model reads it: the limits, the numbers, what usually helps, the code's mix."""

from kernelwright.agents.prompts import one_line
from kernelwright.model import Finding, KernelFacts, Profile

_FINDINGS = 3
_MOVES = 3
_KERNELS = 3
_KINDS = 12


def told(profile: Profile) -> str:
    """A profile as plain text of at most about 3000 characters.

    Names of functions in it were chosen by whoever wrote the kernel: it goes into a fence.
    """
    lines = [
        f"Alone and verified: {profile.time_us:.4g} us a call. Of the memory's rate "
        f"{profile.memory_share:.0%}, of the arithmetic's {profile.compute_share:.0%}."
    ]
    for finding in profile.findings[:_FINDINGS]:
        lines += _finding(finding)
    for kernel in profile.kernels[:_KERNELS]:
        lines += _kernel(kernel)
    for what, why in profile.absent.items():
        lines.append(f"Not known: {what} ({one_line(why, 120)})")
    return "\n".join(lines)


def _finding(finding: Finding) -> list[str]:
    name = str(finding.limit).replace("_", " ")
    numbers = ", ".join(f"{k} {_number(v)}" for k, v in finding.evidence.items())
    return [
        f"{name} (weight {finding.weight:.2f}): {one_line(finding.sentence, 240)}",
        *([f"  numbers: {one_line(numbers, 240)}"] if numbers else []),
        *(f"  - {move}" for move in finding.moves[:_MOVES]),
    ]


def _kernel(kernel: KernelFacts) -> list[str]:
    parts: list[str] = []
    if kernel.launches:
        parts += [f"{kernel.us:.4g} us in {kernel.launches} launches", f"grid {kernel.grid}",
                  f"block {kernel.block}"]  # fmt: skip
    if kernel.registers:
        parts += [f"{kernel.registers} registers a thread", f"{kernel.shared_bytes} bytes shared a "
                  f"block", f"{kernel.spill_bytes} bytes spilled"]  # fmt: skip
    if kernel.blocks_per_multiprocessor:
        limiter = f" (limited by {kernel.occupancy_limiter})" if kernel.occupancy_limiter else ""
        parts.append(f"{kernel.blocks_per_multiprocessor} blocks a multiprocessor{limiter}")
    lines = [f"{one_line(kernel.name, 100)}: {', '.join(parts)}"] if parts else []
    mix = sorted(kernel.mix.items(), key=lambda item: -item[1])[:_KINDS]
    if mix:
        counts = ", ".join(f"{kind} {count}" for kind, count in mix if count)
        lines.append(f"instructions as they stand in {one_line(kernel.name, 60)}: {counts}")
    return lines


def _number(value: float) -> str:
    return f"{value:.4g}"
