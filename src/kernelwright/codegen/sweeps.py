"""The sweeps of a nest, and the terms worth keeping from one sweep for a later one."""

from __future__ import annotations

from dataclasses import dataclass

from kernelwright.codegen.functions import HEAVY
from kernelwright.expr.nodes import Apply, Axis, Load, Node, walk
from kernelwright.expr.rowwise import Bound, Nest, Reduction, Store


@dataclass(frozen=True)
class Sweep:
    """Work of one level over the same columns."""

    level: int
    columns: tuple[Bound, ...]
    reductions: tuple[Reduction, ...]
    stores: tuple[Store, ...]

    @property
    def axis(self) -> str:
        """The vectorised axis."""
        return self.columns[-1].axis

    @property
    def roots(self) -> list[Node]:
        """All terms computed."""
        return [work.body for work in (*self.reductions, *self.stores)]


def sweeps(nest: Nest) -> tuple[Sweep, ...]:
    """The sweeps of a nest in order."""
    found: list[Sweep] = []
    for level in range(nest.levels):
        work = [w for w in (*nest.reductions, *nest.stores) if w.level == level and w.columns]
        for columns in dict.fromkeys(w.columns for w in work):
            mine = [w for w in work if w.columns == columns]
            reductions = tuple(w for w in mine if isinstance(w, Reduction))
            stores = tuple(w for w in mine if isinstance(w, Store))
            found.append(Sweep(level, columns, reductions, stores))
    return tuple(found)


def cached_terms(nest: Nest) -> dict[Node, tuple[Bound, ...]]:
    """Terms worth keeping for a later sweep: shared along the same columns and not just a load."""
    found: dict[Node, tuple[Bound, ...]] = {}
    before: dict[tuple[Bound, ...], set[Node]] = {}
    for sweep in sweeps(nest):
        known = before.setdefault(sweep.columns, set())
        stack, seen = list(sweep.roots), set[Node]()
        while stack:
            node = stack.pop()
            if node in seen or isinstance(node, Load):
                continue
            seen.add(node)
            if node in known and _worth_keeping(node, sweep.axis):
                found[node] = sweep.columns
            else:
                stack.extend(node.children)
        known.update(walk(*sweep.roots))
    return found


def _worth_keeping(node: Node, axis: str) -> bool:
    if not isinstance(node, Apply):
        return False
    inside = [n for n in walk(node) if isinstance(n, Load | Apply)]
    varying = [n for n in inside if _varies(n, axis)]
    loads = sum(isinstance(n, Load) for n in varying)
    heavy = sum(HEAVY.get(n.op, 0) for n in varying if isinstance(n, Apply))
    return loads > 1 or heavy > 6


def _varies(node: Node, axis: str) -> bool:
    return any(n is Axis(axis) for n in walk(node))
