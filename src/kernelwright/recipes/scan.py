"""Running sums along the last axis: one pass over memory, carries in double."""

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
from kernelwright.codegen.emit import Context, Scope
from kernelwright.codegen.library import paste
from kernelwright.codegen.naming import without_reserved
from kernelwright.expr.integers import Integers
from kernelwright.expr.nodes import Program
from kernelwright.expr.rowwise import merge_axes
from kernelwright.expr.scan import ScanPlan, match
from kernelwright.model import Dtype, Family, Lineage, Machine
from kernelwright.model.dimensions import dimension_to_c

_STORED = {Dtype.F32: "write_floats", Dtype.BF16: "write_bf16", Dtype.F16: "write_f16"}
_NAMES = frozenset({
    "Problem", "row_count", "column_count", "value", "prefetch", "target", "lanes",
    "Lanes", "scan", "simd", "shuffle", "LANES", "UNROLL", "TILE", "STREAM", "PREFETCH",
})  # fmt: skip


def families(
    program: Program, dtype: Dtype, machine: Machine, sizes: Mapping[str, int], entry: str
) -> tuple[Family, ...]:
    """The scan family; empty when the program is no scan of floats along its last axis."""
    program = without_reserved(program, entry, _NAMES)
    plan = match(program)
    signature = program.signature
    if plan is None or signature.outputs[0].resolve(dtype) not in _STORED:
        return ()
    context = Context(signature, dtype)
    if context.kinds.of(plan.body) != "float":
        return ()
    struct = _problem(context, plan)
    tunables = _tunables(machine)
    tensors = [t.name for t in signature.tensors]
    numbers = [*signature.dimensions, *(s.name for s in signature.scalars)]
    source = "\n".join([
        f"// scan: {plan.tensor}, {dtype} workloads.", tunables.declarations(), "",
        INCLUDES, "#include <atomic>", "#include <thread>", "",
        paste(context.blocks), "", block_file(SHUFFLE), "",
        block_file(Path(__file__).parent / "scan.hpp"), "", *struct, "",
        f'extern "C" {signature.prototype(entry, dtype)} {{',
        "    (void)prepared, (void)workspace, (void)workspace_bytes, (void)stream;",
        f"    return scan::run(Problem{{{', '.join([*tensors, *numbers])}}});", "}", "",
    ])  # fmt: skip
    lineage = Lineage("recipe", note="scan")
    return (Family("scan", "cpp", entry, source, lineage, tunables.defaults()),)


def _problem(context: Context, plan: ScanPlan) -> list[str]:
    """What is summed, and where it goes."""
    signature, dtype = context.signature, context.dtype
    extents = {b.axis: b.extent for b in (*plan.rows, plan.column)}
    body = flat_loads(plan.body, signature, Integers(extents))
    rows, drop = merge_axes(plan.rows, [body], [])
    body = drop(body)
    context.taken |= _NAMES
    context.blocks |= {_STORED[signature.outputs[0].resolve(dtype)], "sweep_lines"}
    column = plan.column.axis
    context.axis_names |= {b.axis: context.fresh("i") for b in rows} | {column: "$at"}
    context.count_uses([body])
    top = Scope(context, None, [])
    row = Scope(context, top, [b.axis for b in rows])
    index = "$row"
    for bound in reversed(rows):
        name, extent = context.axis_names[bound.axis], dimension_to_c(bound.extent)
        last = bound is rows[0]
        row.lines.append(f"const int64_t {name} = {index if last else f'({index}) % {extent}'};")
        index = f"({index}) / {extent}"
    vector = Scope(context, row, [column], column)
    value = vector.spread(vector.as_float(vector.value(body))).text
    fields = [f"const {t.resolve(dtype).c_type}* {t.name};" for t in signature.inputs]
    fields += [f"{t.resolve(dtype).c_type}* {t.name};" for t in signature.outputs]
    fields += [f"int64_t {name};" for name in signature.dimensions]
    fields += [f"{s.c_type} {s.name};" for s in signature.scalars]
    extent = dimension_to_c(plan.column.extent)
    fields += [f"int64_t row_count = {' * '.join(dimension_to_c(b.extent) for b in rows) or '1'};",
               f"int64_t column_count = {extent};"]  # fmt: skip
    output = signature.outputs[0]
    fetches = [f"__builtin_prefetch({address});" for _, address in vector.loads]
    methods = [
        "// The summed value in column `$at` and the lanes after it.",
        "template <class Lanes>",
        "INLINED simd::floats value(int64_t $row, int64_t $at, Lanes lanes) const {",
        *indent([*top.lines, *row.lines, *vector.lines, f"return {value};"]), "}",
        "INLINED void prefetch(int64_t $row, int64_t $at) const {",
        *indent([*row.lines, *fetches]), "}",
        f"{output.resolve(dtype).c_type}* target(int64_t $row) const {{ "
        f"return {output.name} + $row * column_count; }}",
    ]  # fmt: skip
    lines = ["struct Problem {", *indent([*fields, "", *methods]), "};"]
    return name_locals(lines, context.fresh)


def _tunables(machine: Machine) -> Tunables:
    choices: dict[str, tuple[int | str, ...]] = {
        "LANES": lane_choices(machine), "UNROLL": (4, 2, 1, 8),
        "TILE": (65536, 8192, 16384, 32768, 131072), "STREAM": (1, 0), "PREFETCH": (1, 0),
    }  # fmt: skip
    departures: tuple[dict[str, int | str], ...] = (
        {"PREFETCH": 0}, {"TILE": 32768}, {"TILE": 131072}, {"UNROLL": 2}, {"STREAM": 0},
        {"TILE": 16384},
    )  # fmt: skip
    return Tunables(choices | toolchain_choices(machine), (), departures)
