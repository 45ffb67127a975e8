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
from kernelwright.model import Dtype, bf16_products, evaluate_dimension

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
    """What can do most of the operations: `fma`, or so many `bf16 products` for each.

    Of a contraction, of squared distances, which expand to one, and of an attention, whose weights
    may be rounded as well: one bf16 product where operands are bf16; where they have more bits, as
    many as the parts ask for that these are sums of (`6 bf16 products` for float32: Henry, Tang and
    Heinecke, 2019). Computed operands count as the narrowest tensor in them.
    """
    product, distance = contraction.match(program), pairwise.match(program)
    softmax = attention.match(program)
    pairs: list[tuple[Node, Node]] = []
    if product is not None:
        pairs = [(p.left, p.right) for p in product.products]
    elif distance is not None:
        pairs = [(distance.point, distance.centre)]
    elif softmax is not None:
        pairs = [(softmax.queries, softmax.keys), (softmax.values, softmax.values)]
    tensors = {t.name: t.resolve(dtype) for t in program.signature.inputs}
    if not pairs or Dtype.F64 in tensors.values():
        return "fma"
    parts = [sorted(_parts(side, tensors) for side in pair) for pair in pairs]
    fewest = min(_PRODUCTS[less, more] for less, more in parts)
    return bf16_products(fewest)


_PRODUCTS = {(1, 1): 1, (1, 2): 2, (1, 3): 3, (2, 2): 3, (2, 3): 5, (3, 3): 6}
"""Products of parts that float32 needs, by how many parts the operands have."""


def _parts(operand: Node, tensors: Mapping[str, Dtype]) -> int:
    """Of how many bf16 an operand is the sum at least."""
    return min((_PARTS.get(tensors[name], 1) for name in _values(operand)), default=1)


_PARTS = {Dtype.F32: 3, Dtype.F16: 2}


def _values(term: Node) -> set[str]:
    """The tensors that a value is made from: not those in indices or conditions."""
    if isinstance(term, Load):
        return {term.tensor}
    inner = term.children
    if isinstance(term, Apply) and term.op == "where":
        inner = term.args[1:]
    return set[str]().union(*map(_values, inner))


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
