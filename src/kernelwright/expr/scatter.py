"""Scattered sums: targets that each pick their own sources by a computed index.

    counts[b] = Σ_n [key(n) = b]

As written every target looks at every source; a kernel visits each source once.
"""

from __future__ import annotations

from dataclasses import dataclass

from kernelwright.expr.integers import Integers
from kernelwright.expr.kinds import Kinds
from kernelwright.expr.nodes import (
    Apply,
    Axis,
    Constant,
    Load,
    Node,
    Program,
    Reduce,
    Scan,
    free_axes,
    walk,
)
from kernelwright.expr.polynomial import Polynomial
from kernelwright.expr.rowwise import Bound


@dataclass(frozen=True)
class Counting:
    """Occurrences of each of the numbers from 0 below the extent of `bins` among integer keys."""

    tensor: str
    bins: Bound
    keys: Bound
    key: Node
    """Over the axis of `keys`."""
    count: Reduce
    """The node of the body that stands for how often a bin's number occurs."""
    body: Node
    """What is stored for a bin: of its axis, and of `count`."""


def match(program: Program) -> Counting | None:
    """How a program counts keys, or None when it is no histogram."""
    if len(program.outputs) != 1 or len(program.outputs[0].axes) != 1:
        return None
    output = program.outputs[0]
    found = [node for node in walk(output.body) if isinstance(node, Reduce | Scan)]
    if len(found) != 1 or not isinstance(found[0], Reduce):
        return None
    count, target = found[0], output.axes[0]
    condition = _counted(count)
    key = None if condition is None else picked_by(condition, target, count.axis)
    if key is None or Kinds(program.signature).of(key) != "int":
        return None
    bins, keys = Bound(target, output.dims[0]), Bound(count.axis, count.extent)
    return Counting(output.name, bins, keys, key, count, output.body)


def scatters(program: Program) -> bool:
    """Whether some sum picks its terms by an index that is compared with an outer axis."""
    for node in walk(*(output.body for output in program.outputs)):
        condition = condition_of(node)
        if isinstance(node, Reduce) and condition is not None:
            outer = free_axes(node)
            if any(picked_by(condition, axis, node.axis) is not None for axis in outer):
                return True
    return False


def condition_of(node: Node) -> Node | None:
    """What decides whether an index adds anything to a sum."""
    if not isinstance(node, Reduce) or node.op != "sum" or not isinstance(node.body, Apply):
        return None
    body = node.body
    if body.op == "to_int":
        return body.args[0]
    if body.op == "where" and isinstance(body.args[2], Constant) and not body.args[2].value:
        return body.args[0]
    return None


def picked_by(condition: Node, target: str, source: str) -> Node | None:
    """The key of `key(source) = target` when a condition says that, and nothing else.

    A key must read a tensor: comparisons of axes alone select diagonals, which are no scatter.
    """
    if not isinstance(condition, Apply) or condition.op != "eq":
        return None
    integers, own = Integers({}), (Axis(target),)
    left, right = (integers.polynomial(side) for side in condition.args)
    difference = left - right
    sign = difference.terms.get(own, 0)
    if abs(sign) != 1:
        return None
    rest = difference - Polynomial({own: sign})
    key = integers.node(-rest if sign == 1 else rest)
    free = free_axes(key)
    reads = any(isinstance(node, Load) for node in walk(key))
    return key if reads and source in free and target not in free else None


def _counted(count: Reduce) -> Node | None:
    """The condition whose truths a sum counts."""
    condition, body = condition_of(count), count.body
    if isinstance(body, Apply) and body.op == "where":
        one = body.args[1]
        return condition if isinstance(one, Constant) and one.value == 1 else None
    return condition
