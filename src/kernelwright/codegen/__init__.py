"""Kernels from the expression form, as C++17 with OpenMP, as CUDA C++ or as Triton."""

from collections.abc import Mapping

from kernelwright.codegen import (
    contraction,
    cuda,
    pairs,
    rowwise,
    stencil,
    triton,
    windows,
)
from kernelwright.expr import scatter, selection
from kernelwright.expr.nodes import Program
from kernelwright.model import Dtype, Family, Language, Machine, Target


def families(
    program: Program,
    dtype: Dtype,
    machine: Machine,
    sizes: Mapping[str, int],
    entry: str,
    target: Target = "cpu",
    language: Language | None = None,
) -> tuple[Family, ...]:
    """Every family that computes the program on this machine, most specific first.

    Args:
        program: What is to be computed.
        dtype: Element type of the workload.
        machine: Where the kernels will run: vector width, caches, compilers.
        sizes: The dimensions that matter for speed; the kernels are right for all sizes.
        entry: Name of the exported function.
        target: What of the machine they run on.
        language: What they are written in; None: the target's own language.

    Returns:
        Families with declared tunables and good first assignments; empty when nothing matches.
    """
    if language == "triton":
        return triton.families(program, dtype, sizes, entry)
    if target == "cuda":
        return cuda.families(program, dtype, sizes, entry)
    if scatter.scatters(program) or selection.sorts(program):
        return ()  # as loops over all targets and all sources nobody would want it
    found = contraction.families(program, dtype, machine, sizes, entry)
    if found and not rowwise.reuses_nothing(program, sizes):
        return found
    for grid in (stencil, windows):
        of_grid = grid.families(program, dtype, machine, sizes, entry)
        if of_grid:
            return of_grid
    others = rowwise.families(program, dtype, machine, sizes, entry)
    return (*pairs.families(program, dtype, machine, sizes, entry), *others, *found)


def predicts(family: Family) -> bool:
    """Whether `predicted_us` has a model of a family's schedule."""
    return family.language == "cpp" and family.name in ("pointwise", "rowwise", *contraction.NAMES)


def predicted_us(
    family: Family,
    values: Mapping[str, int | str],
    program: Program,
    sizes: Mapping[str, int],
    dtype: Dtype,
    machine: Machine,
) -> float:
    """Time of one assignment by a simple model of its schedule, in microseconds, for ranking."""
    if family.name in contraction.NAMES:
        return contraction.predicted_us(values, program, sizes, dtype, machine)
    return rowwise.predicted_us(values, program, sizes, dtype, machine)


__all__ = ["families", "predicted_us", "predicts"]
