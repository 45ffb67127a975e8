"""Sums over segments, such as rows of a sparse matrix: shares of equal work, gathers in vectors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kernelwright.codegen.assemble import (
    INCLUDES,
    Tunables,
    block_file,
    indent,
    lane_choices,
    name_locals,
    toolchain_choices,
)
from kernelwright.codegen.blocks import SHUFFLE
from kernelwright.codegen.contraction_lower import flat_loads
from kernelwright.codegen.emit import Context, Scope, Value
from kernelwright.codegen.library import paste
from kernelwright.codegen.naming import without_reserved
from kernelwright.expr.integers import Integers
from kernelwright.expr.nodes import Apply, Axis, Load, Node, Program, transform, walk
from kernelwright.expr.polynomial import ONE
from kernelwright.expr.rowwise import stride_of
from kernelwright.expr.segments import SEGMENT, Segments, match
from kernelwright.model import Dtype, Family, Lineage, Machine
from kernelwright.model.dimensions import dimension_to_c

_NAMES = frozenset({
    "Problem", "segment_count", "element_count", "start", "value", "store", "fits", "lanes",
    "Lanes", "segments", "shuffle", "simd", "LANES", "UNROLL", "CHUNK", "GATHER",
})  # fmt: skip
_INDEX_OPERATIONS = frozenset({
    "where", "lt", "le", "gt", "ge", "eq", "ne", "add", "sub", "max", "min", "and", "or", "not",
})  # fmt: skip
_GATHERED = (Dtype.F32, Dtype.BF16, Dtype.F16)
_TOTAL = Axis("sum of a segment")


def families(
    program: Program, dtype: Dtype, machine: Machine, sizes: Mapping[str, int], entry: str
) -> tuple[Family, ...]:
    """The family of segment sums; empty when the program is none."""
    program = without_reserved(program, entry, _NAMES)
    plan = match(program)
    if plan is None or dtype is Dtype.F64:
        return ()
    signature = program.signature
    context = Context(signature, dtype)
    struct = _Writer(context, plan).write()
    tunables = _tunables(machine)
    tensors = [t.name for t in signature.tensors]
    numbers = [*signature.dimensions, *(s.name for s in signature.scalars)]
    source = "\n".join([
        f"// sums over segments: {plan.tensor}, {dtype} workloads.", tunables.declarations(), "",
        INCLUDES, "", paste(context.blocks), "", block_file(SHUFFLE), "",
        block_file(Path(__file__).parent / "segments.hpp"), "", *struct, "",
        f'extern "C" {signature.prototype(entry, dtype)} {{',
        "    (void)prepared, (void)workspace, (void)workspace_bytes, (void)stream;",
        f"    return segments::run(Problem{{{', '.join([*tensors, *numbers])}}});", "}", "",
    ])  # fmt: skip
    lineage = Lineage("recipe", note="sums over segments")
    return (Family("segments", "cpp", entry, source, lineage, tunables.defaults()),)


class _Gathering(Scope):
    """A scope whose loads by a vector of 32-bit indices are gathers."""

    gathered: set[str]

    def _load(self, node: Load) -> Value:
        dtype = self.context.dtypes[node.tensor]
        step = stride_of(self.offset(node.indices[0]), self.vector or "")
        if step == ONE or dtype not in _GATHERED or not self._narrow(node.indices[0]):
            return super()._load(node)
        index = self.spread(self.as_int(self.value(node.indices[0]), 32))
        self.gathered.add(node.tensor)
        return Value(f"segments::gather({node.tensor}, {index.text}, lanes)", "float", True)

    def _narrow(self, index: Node) -> bool:
        """Whether an index that reads a tensor can be computed in 32 bits."""
        for node in walk(index):
            if isinstance(node, Load) and self.context.dtypes[node.tensor].itemsize > 4:
                return False
            if isinstance(node, Apply) and node.op not in _INDEX_OPERATIONS:
                return False
        return any(isinstance(node, Load) for node in walk(index))


class _Writer:
    """Emits `struct Problem` of the block `segments`."""

    def __init__(self, context: Context, plan: Segments) -> None:
        self.context, self.plan = context, plan
        integers = Integers({
            plan.segments.axis: plan.segments.extent, plan.elements.axis: plan.elements.extent,
            SEGMENT: f"({plan.segments.extent})+1",
        })  # fmt: skip
        signature = context.signature
        body = transform(plan.body, lambda n: _TOTAL if n is plan.total else n)
        self.start = flat_loads(plan.start, signature, integers)
        self.value = flat_loads(plan.value, signature, integers)
        self.body = flat_loads(body, signature, integers)
        context.taken |= _NAMES
        context.axis_names |= {
            plan.segments.axis: "$segment", SEGMENT: "$segment", plan.elements.axis: "$at",
        }  # fmt: skip
        context.blocks |= {"vector", "load_floats", "store_floats", "scalars"}
        context.count_uses([self.start, self.value, self.body])

    def write(self) -> list[str]:
        """The lines of the struct."""
        signature, dtype, plan = self.context.signature, self.context.dtype, self.plan
        vector = _Gathering(self.context, None, [plan.elements.axis], plan.elements.axis)
        vector.gathered = set()
        value = vector.spread(vector.as_float(vector.value(self.value))).text
        start = Scope(self.context, None, [SEGMENT])
        place = start.as_int(start.value(self.start), 64).text
        fields = [f"const {t.resolve(dtype).c_type}* {t.name};" for t in signature.inputs]
        fields += [f"{t.resolve(dtype).c_type}* {t.name};" for t in signature.outputs]
        fields += [f"int64_t {name};" for name in signature.dimensions]
        fields += [f"{s.c_type} {s.name};" for s in signature.scalars]
        fields += [f"int64_t segment_count = {dimension_to_c(plan.segments.extent)};",
                   f"int64_t element_count = {dimension_to_c(plan.elements.extent)};"]  # fmt: skip
        methods = [
            "// Whether every index that is gathered by has 32 bits.",
            f"bool fits() const {{ return {self._fits(vector.gathered)}; }}",
            "// Where a segment begins; behind the last one all end.",
            "INLINED int64_t start(int64_t $segment) const {",
            *indent([*start.lines, f"const int64_t $place = {place};",
                     "return std::min(std::max($place, INT64_C(0)), element_count);"]), "}",
            "// What is summed at `$at` and the lanes after it.",
            "template <class Lanes>",
            "INLINED simd::floats value(int64_t $at, Lanes lanes) const {",
            *indent([*vector.lines, f"return {value};"]), "}",
            "INLINED void store(int64_t $segment, float $total) const {",
            *indent(self._store()), "}",
        ]  # fmt: skip
        lines = ["struct Problem {", *indent([*fields, "", *methods]), "};"]
        return name_locals(lines, self.context.fresh)

    def _fits(self, gathered: set[str]) -> str:
        tensors = [t for t in self.context.signature.inputs if t.name in gathered]
        sizes = [" * ".join(f"({dimension_to_c(d)})" for d in t.dims) or "1" for t in tensors]
        return " && ".join(f"{size} <= INT32_MAX" for size in sizes) or "true"

    def _store(self) -> list[str]:
        scope = Scope(self.context, None, [self.plan.segments.axis])
        scope.known[_TOTAL] = Value("$total", "float")
        dtype, value = self.context.dtypes[self.plan.tensor], scope.value(self.body)
        if not dtype.is_float:
            text = scope.as_int(value, 64).text
            return [*scope.lines, f"{self.plan.tensor}[$segment] = ({dtype.c_type})({text});"]
        scope.need("scalars_f16" if dtype is Dtype.F16 else "scalars")
        text = scope.as_float(value).text
        return [*scope.lines, f"simd::put({self.plan.tensor} + $segment, {text});"]


def _tunables(machine: Machine) -> Tunables:
    choices: dict[str, tuple[int | str, ...]] = {
        "LANES": lane_choices(machine), "UNROLL": (2, 4, 1, 8), "CHUNK": (512, 256, 1024, 2048),
        "GATHER": (1, 0),
    }  # fmt: skip
    departures: tuple[dict[str, int | str], ...] = (
        {"CHUNK": 256}, {"UNROLL": 4}, {"CHUNK": 1024}, {"UNROLL": 8, "CHUNK": 256},
        {"GATHER": 0}, {"LANES": lane_choices(machine)[-1]},
    )  # fmt: skip
    return Tunables(choices | toolchain_choices(machine), (), departures)
