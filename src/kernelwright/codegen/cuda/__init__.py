"""CUDA C++ for Hopper from the expression form: the same plans, threads in place of lanes."""

from collections.abc import Mapping

from kernelwright.codegen.cuda import pairs, rowwise, stencil
from kernelwright.codegen.rowwise import reuses_nothing
from kernelwright.expr import contraction, scatter, selection, windows
from kernelwright.expr.nodes import Program
from kernelwright.model import Dtype, Family


def families(
    program: Program, dtype: Dtype, sizes: Mapping[str, int], entry: str
) -> tuple[Family, ...]:
    """Every family that computes the program on a GPU, most specific first.

    Args:
        program: What is to be computed.
        dtype: Element type of the workload.
        sizes: The dimensions that matter for speed; the kernels are right for all sizes.
        entry: Name of the exported function.

    Returns:
        Families with declared tunables and good first assignments; empty when nothing matches.
    """
    if scatter.scatters(program) or selection.sorts(program):
        return ()  # as loops over all targets and all sources nobody would want it
    reused = contraction.match(program) is not None and not reuses_nothing(program, sizes)
    if reused or windows.match(program) is not None:
        return ()  # row by row what is read would be read again for every output
    of_grid = stencil.families(program, dtype, sizes, entry)
    if of_grid:
        return of_grid
    found = pairs.families(program, dtype, sizes, entry)
    return (*found, *rowwise.families(program, dtype, sizes, entry))


__all__ = ["families"]
