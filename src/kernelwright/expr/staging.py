"""Sums over rows of what each row is reduced to, in two steps.

total = Σ_t f(Σ_c x[t, c])   becomes   kept[t] = f(Σ_c x[t, c]),  total = Σ_t kept[t]

The first step is one more output of the program, kept in float32 in the kernel's workspace.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from kernelwright.expr.kinds import Kinds
from kernelwright.expr.nodes import (
    Axis,
    Load,
    Node,
    Output,
    Program,
    Reduce,
    Scan,
    free_axes,
    transform,
    walk,
)
from kernelwright.expr.simplify import axis_extents
from kernelwright.model import Dtype, TensorArgument


@dataclass(frozen=True)
class Staged:
    """A program whose first outputs are read by later ones."""

    program: Program
    kept: tuple[TensorArgument, ...]
    """Outputs that the caller does not see, the last ones of the signature."""


def stage(program: Program, taken: frozenset[str]) -> Staged | None:
    """The program with row values of their own, or None where there is nothing to separate.

    What reads the kept values is reduced as a whole, without rows, so that no kernel can mix the
    two steps.

    Args:
        program: what is computed.
        taken: names that a kept output must not have.
    """
    bodies = [output.body for output in program.outputs]
    if any(isinstance(node, Scan) for node in walk(*bodies)):
        return None
    kinds, extents = Kinds(program.signature), axis_extents(program)
    names = {t.name for t in program.signature.tensors} | taken
    names |= {s.name for s in program.signature.scalars} | set(program.signature.dimensions)
    first: list[Output] = []
    loads: dict[Node, Load] = {}
    for rows in dict.fromkeys(_row_values(bodies)):
        if kinds.of(rows) != "float" or any(node in loads for node in walk(rows)):
            return None
        axes = tuple(sorted(free_axes(rows)))
        name = next(n for i in range(len(names) + 1) if (n := f"kept{i or ''}") not in names)
        names.add(name)
        dims = tuple(extents[axis] for axis in axes)
        first.append(Output(name, axes, dims, rows))
        loads[rows] = Load(name, tuple(Axis(axis) for axis in axes))
    if not first:
        return None
    later: list[Output] = []
    for output in program.outputs:
        body = transform(output.body, lambda n: loads.get(n, n))
        if body is not output.body and any(
            isinstance(node, Reduce) and free_axes(node) for node in walk(body)
        ):
            return None
        later.append(replace(output, body=body))
    tensors = tuple(TensorArgument(o.name, o.dims, Dtype.F32) for o in first)
    signature = replace(program.signature, outputs=(*program.signature.outputs, *tensors))
    return Staged(Program(signature, (*first, *later)), tensors)


def _row_values(bodies: list[Node]) -> list[Node]:
    """What is reduced to a single number although it takes a reduction itself."""
    found: list[Node] = []
    for node in walk(*bodies):
        if not isinstance(node, Reduce) or free_axes(node):
            continue
        axes, inner = {node.axis}, node.body
        while isinstance(inner, Reduce) and inner.op == node.op and node.axis in free_axes(inner):
            axes, inner = axes | {inner.axis}, inner.body
        if any(isinstance(n, Reduce) and free_axes(n) & axes for n in walk(inner)):
            found.append(inner)
    return found
