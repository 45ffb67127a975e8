"""What a CUDA recipe knows of a problem: `struct Problem`, passed to its kernels by value."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from kernelwright.codegen.assemble import indent, name_locals
from kernelwright.codegen.dialects import CUDA
from kernelwright.codegen.emit import Context, Scope
from kernelwright.expr.nodes import Node
from kernelwright.expr.rowwise import Bound
from kernelwright.model import Dtype, Signature
from kernelwright.model.dimensions import dimension_to_c

COMMON = frozenset({
    "Problem", "problem", "simt", "THREADS", "WIDTH", "UNROLL", "KEEP", "GRID", "threadIdx",
    "blockIdx", "blockDim", "gridDim", "warpSize", "dim3", "next", "bytes", "memory", "failed",
})  # fmt: skip
"""Names that every recipe's source uses."""


@dataclass
class ProblemStruct:
    """Collects the fields and methods of `struct Problem`; `$name` in methods is a fresh name."""

    signature: Signature
    dtype: Dtype
    names: frozenset[str]
    """Names that the recipe's source uses beside `COMMON`."""
    extents: dict[str, str] = field(default_factory=dict[str, str])
    """Name of a count to its C expression."""
    methods: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        """Open a context for the terms of the methods."""
        self.context = Context(self.signature, self.dtype, CUDA)
        self.context.taken |= self.names | COMMON

    def count(self, name: str, bounds: Sequence[Bound]) -> None:
        """Add a count: the product of some extents."""
        texts = [f"({dimension_to_c(bound.extent)})" for bound in bounds]
        self.extents[name] = " * ".join(texts) or "1"

    def name_axes(self, bounds: Iterable[Bound], index: str) -> list[str]:
        """Statements that name axes from the flat index over all of them."""
        order, lines, rest = list(bounds), list[str](), index
        for bound in order:
            self.context.axis_names.setdefault(bound.axis, self.context.fresh("i"))
        for bound in reversed(order[1:]):
            name, extent = self.context.axis_names[bound.axis], dimension_to_c(bound.extent)
            self.context.blocks.add("division")
            lines += [f"const int64_t {name}_rest = simt::quotient({rest}, {extent});",
                      f"const int64_t {name} = {rest} - {name}_rest * ({extent});",
                      f"(void){name};"]  # fmt: skip
            rest = f"{name}_rest"
        for bound in order[:1]:
            name = self.context.axis_names[bound.axis]
            lines += [f"const int64_t {name} = {rest};", f"(void){name};"]
        return lines or [f"(void){index};"]

    def method(self, head: str, lines: Iterable[str]) -> None:
        """Add a device function."""
        body = indent(lines)
        self.methods += [f"__device__ __forceinline__ {head} const {{", *body, "}"]

    def put(self, scope: Scope, tensor: str, offset: Node, body: Node) -> str:
        """The statement that stores an element of an output."""
        dtype = self.context.dtypes[tensor]
        place = scope.offset_text(scope.offset(offset))
        value = scope.value(body)
        if dtype.is_float:
            scope.need("scalars_f16" if dtype is Dtype.F16 else "scalars")
            return f"simt::put({tensor} + {place}, {scope.as_float(value).text});"
        value = scope.as_bool(value) if dtype is Dtype.BOOL else scope.as_int(value, 64)
        return f"{tensor}[{place}] = ({dtype.c_type})({value.text});"

    def lines(self) -> list[str]:
        """The definition."""
        fields = [f"const {t.resolve(self.dtype).c_type}* {t.name};" for t in self.signature.inputs]
        fields += [f"{t.resolve(self.dtype).c_type}* {t.name};" for t in self.signature.outputs]
        fields += [f"int64_t {name};" for name in self.signature.dimensions]
        fields += [f"{s.c_type} {s.name};" for s in self.signature.scalars]
        fields += [f"int64_t {name} = {text};" for name, text in self.extents.items()]
        # nameless outside: several libraries in one process have a Problem each
        text = ["namespace {", "", "struct Problem {", *indent([*fields, "", *self.methods]), "};",
                "", "}  // namespace", ""]  # fmt: skip
        return name_locals(text, self.context.fresh)

    def instance(self) -> str:
        """The statement that makes one in the entry."""
        names = [t.name for t in self.signature.tensors]
        names += [*self.signature.dimensions, *(s.name for s in self.signature.scalars)]
        return f"const Problem problem{{{', '.join(names)}}};"
