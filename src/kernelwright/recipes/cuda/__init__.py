"""Expert kernels in CUDA C++ for Hopper GPUs."""

from __future__ import annotations

from collections.abc import Mapping

from kernelwright.expr.nodes import Program
from kernelwright.model import Dtype, Family
from kernelwright.recipes.cuda import (
    attention,
    histogram,
    nearest,
    nibbles,
    scan,
    segments,
    selection,
    turned,
    windows,
)


def families(
    program: Program, dtype: Dtype, sizes: Mapping[str, int], entry: str
) -> tuple[Family, ...]:
    """Families of the recipes that match a program; never told which problem it belongs to.

    Args:
        program: What is to be computed.
        dtype: Element type of the workload.
        sizes: The dimensions that matter for speed; the kernels are right for all sizes.
        entry: Name of the exported function.

    Returns:
        Families with declared tunables and good first assignments; empty when nothing matches.
    """
    found: list[Family] = []
    for recipe in (
        turned, scan, nearest, histogram, selection, segments, attention, nibbles, windows,
    ):  # fmt: skip
        found += recipe.families(program, dtype, sizes, entry)
    return tuple(found)


__all__ = ["families"]
