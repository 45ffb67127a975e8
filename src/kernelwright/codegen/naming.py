"""Renames what a signature calls like something else in the generated source.

Parameter names are no part of the ABI, so a tensor called `lanes` or a dimension called `LANES`
simply gets an underscore inside the kernel.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from kernelwright.expr.nodes import (
    Extent,
    Load,
    Node,
    Order,
    Parameter,
    Program,
    Reduce,
    Scan,
    transform,
)
from kernelwright.model import Signature, TensorArgument

_WORDS = (
    # what the generated code itself uses
    "LANES UNROLL STREAM CACHE_ROW ROWS PREFETCH AHEAD RATIONAL_ERF INLINED MAX_TEAM CXX FLAGS "
    "INFINITY NAN "
    "simd lanes acc nth lane mine split leader turn team scratch part row base block begin end "
    "floats kept_row prepared workspace workspace_bytes stream kernel "
    # C++ and its library in the global namespace
    "auto bool break case catch char class const continue default delete do double else enum "
    "extern float for friend goto if inline int long namespace new operator private protected "
    "public register return short signed sizeof static struct switch template this throw try "
    "typedef union typename unsigned using virtual void volatile while and or not xor asm true "
    "false std bf16 f16 "
    "exp exp2 expm1 log log2 log1p sin cos tan tanh sinh cosh asin acos atan atan2 sqrt floor ceil "
    "trunc erf erfc pow fmod fabs abs round gamma index time y0 y1 j0 j1 yn jn div free"
)
RESERVED = frozenset(_WORDS.split())


def without_reserved(program: Program, entry: str, also: frozenset[str] = frozenset()) -> Program:
    """The same program with names that generated code can use.

    Args:
        program: the program.
        entry: name of the exported function.
        also: names that one generator uses beside those that all use.
    """
    signature = program.signature
    names = [t.name for t in signature.tensors] + [s.name for s in signature.scalars]
    names += signature.dimensions
    clashing = {n: f"{n}_" for n in names if n in RESERVED or n in also or n == entry}
    if not clashing:
        return program
    pattern = re.compile(r"\b(" + "|".join(map(re.escape, clashing)) + r")\b")

    def name(text: str) -> str:
        return pattern.sub(lambda found: clashing[found[1]], text)

    outputs = tuple(
        replace(o, name=name(o.name), dims=tuple(map(name, o.dims)), body=_renamed(o.body, name))
        for o in program.outputs
    )
    return Program(_signature(signature, name), outputs)


def renamed_sizes(sizes: Mapping[str, int]) -> dict[str, int]:
    """Sizes under the names before and after `without_reserved`."""
    return {**{f"{name}_": size for name, size in sizes.items()}, **sizes}


def _signature(signature: Signature, name: Callable[[str], str]) -> Signature:
    def tensor(t: TensorArgument) -> TensorArgument:
        return replace(t, name=name(t.name), dims=tuple(map(name, t.dims)))

    return Signature(
        tuple(map(tensor, signature.inputs)),
        tuple(map(tensor, signature.outputs)),
        tuple(replace(s, name=name(s.name)) for s in signature.scalars),
    )


def _renamed(body: Node, name: Callable[[str], str]) -> Node:
    def change(node: Node) -> Node:
        match node:
            case Load():
                return Load(name(node.tensor), node.indices)
            case Parameter():
                return Parameter(name(node.name), node.kind)
            case Extent():
                return Extent(name(node.dim))
            case Reduce():
                return Reduce(node.op, node.axis, name(node.extent), node.body)
            case Order():
                return Order(node.axis, name(node.extent), node.at, node.body, node.largest)
            case Scan():
                return Scan(node.axis, name(node.extent), node.at, node.body)
            case _:
                return node

    return transform(body, change)
