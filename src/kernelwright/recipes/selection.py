"""The largest or smallest of each row: a bar, a buffer of what reaches it, a short sort."""

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
from kernelwright.codegen.contraction_lower import flat_loads
from kernelwright.codegen.emit import Context, Scope
from kernelwright.codegen.library import paste
from kernelwright.codegen.naming import without_reserved
from kernelwright.expr.integers import Integers
from kernelwright.expr.nodes import Axis, Load, Program
from kernelwright.expr.selection import INDEX, Selection, match
from kernelwright.model import Dtype, Family, Lineage, Machine
from kernelwright.model.dimensions import dimension_to_c

_NAMES = frozenset({
    "Problem", "row_count", "column_count", "position_count", "value", "store", "lanes", "Lanes",
    "selection", "simd", "LANES", "UNROLL", "GROUP_VECTORS", "LARGEST",
})  # fmt: skip


def families(
    program: Program, dtype: Dtype, machine: Machine, sizes: Mapping[str, int], entry: str
) -> tuple[Family, ...]:
    """The selection family; empty when the program does not select by floats in rows."""
    program = without_reserved(program, entry, _NAMES)
    plan = match(program)
    signature = program.signature
    if plan is None or dtype is Dtype.F64:
        return ()
    context = Context(signature, dtype)
    if context.kinds.of(plan.key) != "float":
        return ()
    struct = _Writer(context, plan).write()
    tunables = _tunables(machine)
    tensors = [t.name for t in signature.tensors]
    numbers = [*signature.dimensions, *(s.name for s in signature.scalars)]
    nothing = ["nullptr"] * len(tensors)
    way = "largest" if plan.largest else "smallest"
    names = ", ".join(name for name, _ in plan.results)
    source = "\n".join([
        f"// selection of the {way}: {names}, {dtype} workloads.", tunables.declarations(), "",
        INCLUDES, "#include <functional>", f"#define LARGEST {int(plan.largest)}", "",
        paste(context.blocks), "", block_file(Path(__file__).parent / "selection.hpp"), "",
        *struct, "",
        f'extern "C" {signature.workspace_prototype(entry)} {{',
        f"    const Problem problem{{{', '.join([*nothing, *numbers])}}};",
        "    return omp_get_max_threads() * selection::Buffer::bytes(problem.position_count);",
        "}", "",
        f'extern "C" {signature.prototype(entry, dtype)} {{',
        "    (void)prepared, (void)stream;",
        f"    const Problem problem{{{', '.join([*tensors, *numbers])}}};",
        "    return selection::run(problem, workspace, workspace_bytes);", "}", "",
    ])  # fmt: skip
    lineage = Lineage("recipe", note=f"selection of the {way}")
    return (Family("selection", "cpp", entry, source, lineage, tunables.defaults()),)


class _Writer:
    """Emits `struct Problem` of the block `selection`."""

    def __init__(self, context: Context, plan: Selection) -> None:
        self.context, self.plan = context, plan
        bounds = (*plan.rows, plan.column, plan.position)
        extents = {b.axis: b.extent for b in bounds} | {INDEX: plan.column.extent}
        signature, integers = context.signature, Integers(extents)
        self.key = flat_loads(plan.key, signature, integers)
        self.bodies = [flat_loads(body, signature, integers) for _, body in plan.results]
        place = [Axis(b.axis) for b in (*plan.rows, plan.position)]
        self.targets = [
            flat_loads(Load(name, tuple(place)), signature, integers) for name, _ in plan.results
        ]
        context.taken |= _NAMES
        context.blocks |= {"vector"}
        context.axis_names |= {b.axis: context.fresh("i") for b in plan.rows}
        context.axis_names |= {
            plan.column.axis: "$at", plan.position.axis: "$position", INDEX: "$index",
        }  # fmt: skip
        context.count_uses([self.key, *self.bodies])

    def write(self) -> list[str]:
        """The lines of the struct."""
        signature, dtype, plan = self.context.signature, self.context.dtype, self.plan
        fields = [f"const {t.resolve(dtype).c_type}* {t.name};" for t in signature.inputs]
        fields += [f"{t.resolve(dtype).c_type}* {t.name};" for t in signature.outputs]
        fields += [f"int64_t {name};" for name in signature.dimensions]
        fields += [f"{s.c_type} {s.name};" for s in signature.scalars]
        rows = " * ".join(dimension_to_c(b.extent) for b in plan.rows) or "1"
        fields += [f"int64_t row_count = {rows};",
                   f"int64_t column_count = {dimension_to_c(plan.column.extent)};",
                   f"int64_t position_count = {dimension_to_c(plan.position.extent)};"]  # fmt: skip
        methods = [
            "// What is compared, greater first, in column `$at` and the lanes after it.",
            "template <class Lanes>",
            "INLINED simd::floats value(int64_t $row, int64_t $at, Lanes lanes) const {",
            *indent(self._value()), "}",
            "INLINED void store(int64_t $row, int64_t $position, int64_t $index) const {",
            *indent(self._store()), "}",
        ]  # fmt: skip
        lines = ["struct Problem {", *indent([*fields, "", *methods]), "};"]
        return name_locals(lines, self.context.fresh)

    def _row(self) -> Scope:
        scope = Scope(self.context, None, [b.axis for b in self.plan.rows])
        index = "$row"
        for number, bound in reversed(list(enumerate(self.plan.rows))):
            name, extent = self.context.axis_names[bound.axis], dimension_to_c(bound.extent)
            text = f"({index}) % {extent}" if number else index
            scope.lines.append(f"const int64_t {name} = {text};")
            index = f"({index}) / {extent}"
        return scope

    def _value(self) -> list[str]:
        row, column = self._row(), self.plan.column.axis
        vector = Scope(self.context, row, [column], column)
        value = vector.spread(vector.as_float(vector.value(self.key))).text
        sign = "" if self.plan.largest else "-"
        return [*row.lines, *vector.lines, f"return {sign}{value};"]

    def _store(self) -> list[str]:
        row = self._row()
        scope = Scope(self.context, row, [self.plan.position.axis, INDEX])
        stores: list[str] = []
        for (name, _), target, body in zip(
            self.plan.results, self.targets, self.bodies, strict=True
        ):
            dtype = self.context.dtypes[name]
            offset = scope.offset_text(scope.offset(target.children[0]))
            value = scope.value(body)
            if dtype.is_float:
                scope.need("scalars_f16" if dtype is Dtype.F16 else "scalars")
                stores.append(f"simd::put({name} + {offset}, {scope.as_float(value).text});")
            else:
                text = scope.as_int(value, 64).text
                stores.append(f"{name}[{offset}] = ({dtype.c_type})({text});")
        return [*row.lines, "(void)$position, (void)$index;", *scope.lines, *stores]


def _tunables(machine: Machine) -> Tunables:
    choices: dict[str, tuple[int | str, ...]] = {
        "LANES": lane_choices(machine), "GROUP_VECTORS": (4, 8, 2), "UNROLL": (4, 2, 1, 8),
    }  # fmt: skip
    departures: tuple[dict[str, int | str], ...] = (
        {"GROUP_VECTORS": 8}, {"UNROLL": 2}, {"UNROLL": 8}, {"GROUP_VECTORS": 2},
    )  # fmt: skip
    return Tunables(choices | toolchain_choices(machine), (), departures)
