"""Which loads and stores of a sweep go in words of several elements, and when that is aligned."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from kernelwright.codegen.emit import Context
from kernelwright.expr.nodes import Axis, Extent, Load, Node, walk
from kernelwright.expr.polynomial import ONE, Polynomial
from kernelwright.expr.rowwise import Store, stride_of
from kernelwright.model.dimensions import dimension_to_c

_WIDEST = 16
"""Elements in the widest word; an offset that is a multiple of it is always aligned."""


@dataclass
class Alignment:
    """Collects what must be a multiple of WIDTH for all words of a nest to be aligned."""

    context: Context
    extents: dict[str, None] = field(default_factory=dict[str, None])
    """C expressions, in order of appearance."""

    def admits(self, offset: Node, axis: str) -> bool:
        """Whether words along an axis can be aligned; notes what that takes."""
        polynomial = self.context.integers.polynomial(offset)
        if stride_of(polynomial, axis) != ONE:
            return False
        needed = _steps(polynomial, axis)
        if needed is None:
            return False
        self.extents |= dict.fromkeys(needed)
        return True

    def loads(self, roots: Iterable[Node], axis: str) -> list[Load]:
        """Loads that can be wide, in the order in which they are needed."""
        return [
            node
            for node in walk(*roots)
            if isinstance(node, Load)
            and self.context.dtypes[node.tensor].itemsize <= 8
            and axis in self.context.depends(node)
            and self.admits(node.indices[0], axis)
        ]

    def stores(self, stores: Iterable[Store], axis: str) -> list[Store]:
        """Stores that can be wide."""
        return [store for store in stores if self.admits(store.offset, axis)]


def _steps(offset: Polynomial, axis: str) -> list[str] | None:
    """Factors of everything in an offset but the axis; None where one is never a multiple."""
    groups: dict[tuple[Node, ...], list[tuple[tuple[Node, ...], int]]] = {}
    for monomial, coefficient in offset.terms.items():
        extents = tuple(atom for atom in monomial if isinstance(atom, Extent))
        rest = tuple(atom for atom in monomial if not isinstance(atom, Extent))
        if rest != (Axis(axis),):
            groups.setdefault(rest, []).append((extents, coefficient))
    found: list[str] = []
    for factors in groups.values():
        if all(not extents for extents, _ in factors):
            if sum(coefficient for _, coefficient in factors) % _WIDEST:
                return None
            continue
        found.append(" + ".join(_product(extents, number) for extents, number in factors))
    return found


def _product(extents: tuple[Node, ...], coefficient: int) -> str:
    texts = [dimension_to_c(e.dim) for e in extents if isinstance(e, Extent)]
    names = [f"({text})" if len(texts) > 1 or coefficient != 1 else text for text in texts]
    return " * ".join([*([] if coefficient == 1 and names else [f"({coefficient})"]), *names])
