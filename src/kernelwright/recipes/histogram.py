"""Histograms: counters of one's own for every thread, several copies of each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kernelwright.codegen.assemble import (
    INCLUDES,
    Tunables,
    block_file,
    indent,
    name_locals,
    toolchain_choices,
)
from kernelwright.codegen.contraction_lower import flat_loads
from kernelwright.codegen.emit import Context, Scope, Value
from kernelwright.codegen.library import paste
from kernelwright.codegen.naming import without_reserved
from kernelwright.expr.integers import Integers
from kernelwright.expr.nodes import Axis, Load, Node, Program, transform
from kernelwright.expr.scatter import Counting, match
from kernelwright.model import Dtype, Family, Lineage, Machine, evaluate_dimension
from kernelwright.model.dimensions import dimension_to_c

_NAMES = frozenset({
    "Problem", "Key", "key_count", "bin_count", "key", "bytes", "store", "histogram", "simd",
    "BYTES", "COPIES", "RUNS", "PREFETCH", "LANES",
})  # fmt: skip
_FEW_BINS = 1024
"""Up to here four copies of the counters fit the nearest cache."""


def families(
    program: Program, dtype: Dtype, machine: Machine, sizes: Mapping[str, int], entry: str
) -> tuple[Family, ...]:
    """The histogram family; empty when the program counts nothing by integer keys."""
    program = without_reserved(program, entry, _NAMES)
    plan = match(program)
    if plan is None:
        return ()
    signature = program.signature
    context = Context(signature, dtype)
    struct = _Writer(context, plan).write()
    known = {**{name: 1 for name in signature.dimensions}, **sizes}
    known |= {s.name: 1 for s in signature.scalars if s.kind == "int" and s.name not in known}
    few = evaluate_dimension(plan.bins.extent, known) <= _FEW_BINS
    tunables = _tunables(machine, few)
    tensors = [t.name for t in signature.tensors]
    numbers = [*signature.dimensions, *(s.name for s in signature.scalars)]
    nothing = ["nullptr"] * len(tensors)
    source = "\n".join([
        f"// histogram: {plan.tensor}, {dtype} workloads.", tunables.declarations(), "",
        "#define LANES 4", INCLUDES, "", paste(context.blocks), "",
        block_file(Path(__file__).parent / "histogram.hpp"), "", *struct, "",
        f'extern "C" {signature.workspace_prototype(entry)} {{',
        f"    const Problem problem{{{', '.join([*nothing, *numbers])}}};",
        "    return histogram::Sizes(problem).bytes();", "}", "",
        f'extern "C" {signature.prototype(entry, dtype)} {{',
        "    (void)prepared, (void)stream;",
        f"    const Problem problem{{{', '.join([*tensors, *numbers])}}};",
        "    return histogram::run(problem, workspace, workspace_bytes);", "}", "",
    ])  # fmt: skip
    lineage = Lineage("recipe", note="histogram")
    return (Family("histogram", "cpp", entry, source, lineage, tunables.defaults()),)


class _Writer:
    """Emits `struct Problem` of the block `histogram`."""

    def __init__(self, context: Context, plan: Counting) -> None:
        self.context, self.plan = context, plan
        integers = Integers({b.axis: b.extent for b in (plan.bins, plan.keys)})
        self.key = flat_loads(plan.key, context.signature, integers)
        self.body = flat_loads(_counted(plan), context.signature, integers)
        context.taken |= _NAMES
        context.axis_names |= {plan.bins.axis: "$bin", plan.keys.axis: "$at"}
        context.blocks |= {"vector", "scalars", "scalars_f16"}
        context.count_uses([self.key, self.body])

    def write(self) -> list[str]:
        """The lines of the struct."""
        signature, dtype, plan = self.context.signature, self.context.dtype, self.plan
        fields = [f"const {t.resolve(dtype).c_type}* {t.name};" for t in signature.inputs]
        fields += [f"{t.resolve(dtype).c_type}* {t.name};" for t in signature.outputs]
        fields += [f"int64_t {name};" for name in signature.dimensions]
        fields += [f"{s.c_type} {s.name};" for s in signature.scalars]
        fields += [f"int64_t key_count = {dimension_to_c(plan.keys.extent)};",
                   f"int64_t bin_count = {dimension_to_c(plan.bins.extent)};"]  # fmt: skip
        plain = self._plain()
        is_bytes = plain is Dtype.U8
        narrow = plain is not None and plain.itemsize <= 4
        at = Scope(self.context, None, [plan.keys.axis])
        value = at.as_int(at.value(self.key), 64).text
        if isinstance(self.key, Load) and narrow:
            value = f"(int32_t){value}"
        methods = [
            f"static constexpr bool BYTES = {str(is_bytes).lower()};",
            f"using Key = uint{32 if narrow else 64}_t;",
            "INLINED Key key(int64_t $at) const {",
            *indent([*at.lines, f"return (Key){value};"]), "}",
            *([f"const uint8_t* bytes() const {{ return {self.key.tensor}; }}"]
              if is_bytes and isinstance(self.key, Load) else []),
            "void store(int64_t $bin, int64_t $count) const {",
            *indent(self._store()), "}",
        ]  # fmt: skip
        lines = ["struct Problem {", *indent([*fields, "", *methods]), "};"]
        return name_locals(lines, self.context.fresh)

    def _plain(self) -> Dtype | None:
        """The element type of keys that are the elements of a tensor, one after the other."""
        if isinstance(self.key, Load) and self.key.indices == (Axis(self.plan.keys.axis),):
            return self.context.dtypes[self.key.tensor]
        return None

    def _store(self) -> list[str]:
        scope = Scope(self.context, None, [self.plan.bins.axis])
        scope.known[_COUNT] = Value("$count", "int", width=64)
        value, dtype = scope.value(self.body), self.context.dtypes[self.plan.tensor]
        place = f"{self.plan.tensor}[$bin]"
        if dtype.is_float:
            stored = f"simd::put({self.plan.tensor} + $bin, {scope.as_float(value).text});"
        else:
            stored = f"{place} = ({dtype.c_type})({scope.as_int(value, 64).text});"
        return [*scope.lines, stored]


_COUNT = Axis("count of a bin")


def _counted(plan: Counting) -> Node:
    """The stored value with a name in place of the count."""
    return transform(plan.body, lambda node: _COUNT if node is plan.count else node)


def _tunables(machine: Machine, few: bool) -> Tunables:
    choices: dict[str, tuple[int | str, ...]] = {
        "COPIES": (4, 8, 2, 1, 16) if few else (2, 4, 1, 8), "RUNS": (1, 0),
        "PREFETCH": (0, 1024, 4096),
    }  # fmt: skip
    departures: tuple[dict[str, int | str], ...] = (
        {"COPIES": 8}, {"COPIES": 2 if few else 4}, {"PREFETCH": 1024}, {"RUNS": 0}, {"COPIES": 1},
    )  # fmt: skip
    return Tunables(choices | toolchain_choices(machine), (), departures)
