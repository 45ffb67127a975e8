"""Expert kernels for skeletons that the general generators do not cover."""

from __future__ import annotations

from collections.abc import Mapping

from kernelwright.expr.nodes import Program
from kernelwright.model import Dtype, Family, Machine, Target
from kernelwright.recipes import (
    attention,
    cuda,
    histogram,
    nibbles,
    pairwise,
    scan,
    segments,
    selection,
    turned,
)


def families(
    program: Program,
    dtype: Dtype,
    machine: Machine,
    sizes: Mapping[str, int],
    entry: str,
    target: Target = "cpu",
) -> tuple[Family, ...]:
    """Families of the recipes that match a program; never told which problem it belongs to.

    Args:
        program: What is to be computed.
        dtype: Element type of the workload.
        machine: Where the kernels will run: vector width, caches, compilers.
        sizes: The dimensions that matter for speed; the kernels are right for all sizes.
        entry: Name of the exported function.
        target: What of the machine they run on.

    Returns:
        Families with declared tunables and good first assignments; empty when nothing matches.
    """
    if target == "cuda":
        return cuda.families(program, dtype, sizes, entry)
    found: list[Family] = []
    for recipe in (turned, scan, pairwise, histogram, selection, segments, attention, nibbles):
        found += recipe.families(program, dtype, machine, sizes, entry)
    return tuple(found)


__all__ = ["families"]
