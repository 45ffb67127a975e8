"""Triton from the expression form: pointwise and rowwise programs."""

from collections.abc import Mapping

from kernelwright.codegen.rowwise import reuses_nothing
from kernelwright.codegen.triton import rowwise
from kernelwright.expr import contraction, scatter, selection, windows
from kernelwright.expr.nodes import Program
from kernelwright.model import Dtype, Family


def families(
    program: Program, dtype: Dtype, sizes: Mapping[str, int], entry: str
) -> tuple[Family, ...]:
    """The family that computes the program, where there is one; as `codegen.cuda.families`."""
    if scatter.scatters(program) or selection.sorts(program):
        return ()
    reused = contraction.match(program) is not None and not reuses_nothing(program, sizes)
    if reused or windows.match(program) is not None:
        return ()
    return rowwise.families(program, dtype, sizes, entry)


__all__ = ["families"]
