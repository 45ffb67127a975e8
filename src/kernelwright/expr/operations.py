"""How much arithmetic a program asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

from kernelwright.expr import attention, contraction, pairwise
from kernelwright.expr.kinds import Kinds
from kernelwright.expr.nodes import Apply, Axis, Load, Node, Program, Reduce, Scan, substitute, walk
from kernelwright.expr.scatter import condition_of, picked_by
from kernelwright.expr.simplify import axis_extents, free_names
from kernelwright.model import Dtype, evaluate_dimension

_FREE = frozenset({"to_float", "to_int", "to_bool", "where", "and", "or", "not"})


def operations(program: Program, sizes: Mapping[str, int]) -> float:
    """Floating point operations at these sizes (a fused multiply-add counts 2).

    Each distinct term is computed once for each value of the index variables that it depends on:
    what is invariant in a loop counts once, whatever the loop; a scattered sum counts its sources,
    whatever the number of targets. Index arithmetic, selections, conversions and counting by
    conditions on integers count nothing; every other operation, a transcendental one too, counts 1.
    """
    program = _common_axes(program)
    extents = {a: evaluate_dimension(d, sizes) for a, d in axis_extents(program).items()}
    bodies = [output.body for output in program.outputs]
    kinds, free = Kinds(program.signature), free_names(*bodies)
    total = 0.0
    for node in walk(*bodies):
        if isinstance(node, Reduce | Scan):
            if _counts_indices(node, kinds):
                continue
            points = (free[node.body] | {node.axis}) - _picked(node, free[node])
        elif isinstance(node, Apply) and node.op not in _FREE and not _of_indices(node, kinds):
            points = free[node]
        else:
            continue
        factor = 2.0 if isinstance(node, Apply) and node.op == "fma" else 1.0
        total += factor * prod(extents[axis] for axis in points)
    return total


def _counts_indices(node: Reduce | Scan, kinds: Kinds) -> bool:
    """Whether a sum counts how often a condition on integers holds."""
    condition = condition_of(node)
    counting = kinds.of(node) == "int" and isinstance(condition, Apply)
    return counting and isinstance(condition, Apply) and _of_indices(condition, kinds)


def _picked(node: Reduce | Scan, free: frozenset[str]) -> frozenset[str]:
    """The axis that a scattered sum is picked by: each source is added to one target."""
    condition = condition_of(node)
    if condition is None:
        return frozenset()
    return frozenset(a for a in free if picked_by(condition, a, node.axis) is not None)


def unit_of(program: Program, dtype: Dtype) -> str:
    """What can do most of the operations: `bf16 products` of bf16 operands, else `fma`.

    Of a contraction, of squared distances, which expand to one, and of an attention, whose weights
    may be rounded as well.
    """
    product, distance = contraction.match(program), pairwise.match(program)
    softmax = attention.match(program)
    operands: list[Node] = []
    if product is not None:
        operands = [side for p in product.products for side in (p.left, p.right)]
    elif distance is not None:
        operands = [distance.point, distance.centre]
    elif softmax is not None:
        operands = [softmax.queries, softmax.keys, softmax.values]
    if not operands:
        return "fma"
    tensors = {t.name: t.resolve(dtype) for t in program.signature.inputs}
    narrow = all(isinstance(t, Load) and tensors[t.tensor] is Dtype.BF16 for t in operands)
    return "bf16 products" if narrow else "fma"


def _of_indices(node: Apply, kinds: Kinds) -> bool:
    return all(kinds.of(arg) != "float" for arg in node.args)


def _common_axes(program: Program) -> Program:
    """Name output axes by dimension, so that what two outputs share counts once."""
    outputs: list[Node] = []
    changed: list[tuple[str, ...]] = []
    for output in program.outputs:
        seen: dict[str, int] = {}
        axes: list[str] = []
        for dim in output.dims:
            seen[dim] = seen.get(dim, 0) + 1
            axes.append(f"@{dim}#{seen[dim]}")
        changed.append(tuple(axes))
        names = {old: Axis(new) for old, new in zip(output.axes, axes, strict=True)}
        outputs.append(substitute(output.body, dict(names)))
    renamed = zip(program.outputs, changed, outputs, strict=True)
    return Program(
        program.signature, tuple(replace(o, axes=axes, body=body) for o, axes, body in renamed)
    )
