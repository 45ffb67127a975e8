"""Running sums along the last axis on a GPU: one pass over memory with decoupled look-back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kernelwright.codegen.assemble import Tunables
from kernelwright.codegen.contraction_lower import flat_loads
from kernelwright.codegen.cuda.assemble import Region, Source
from kernelwright.codegen.cuda.problem import COMMON, ProblemStruct
from kernelwright.codegen.emit import Scope
from kernelwright.codegen.naming import without_reserved
from kernelwright.expr.integers import Integers
from kernelwright.expr.nodes import Axis, Load, Program
from kernelwright.expr.pretty import pretty
from kernelwright.expr.rowwise import flatten, merge_axes
from kernelwright.expr.scan import ScanPlan, match
from kernelwright.model import Dtype, Family, Lineage
from kernelwright.model.dimensions import dimension_to_c

_NAMES = frozenset({
    "PLAIN", "Element", "Result", "row_count", "column_count", "value", "elements", "target",
    "scan", "rows", "Tile", "TILE", "CHUNK", "WARPS", "MARK", "OWN", "WHOLE", "ticket", "states",
})  # fmt: skip
_STORED = (Dtype.F32, Dtype.BF16, Dtype.F16)


def families(
    program: Program, dtype: Dtype, sizes: Mapping[str, int], entry: str
) -> tuple[Family, ...]:
    """The scan family; empty when the program is no scan of floats along its last axis."""
    program = without_reserved(program, entry, _NAMES | COMMON)
    plan = match(program)
    output = program.signature.outputs[0].resolve(dtype)
    if plan is None or output not in _STORED:
        return ()
    struct = ProblemStruct(program.signature, dtype, _NAMES)
    if struct.context.kinds.of(plan.body) != "float":
        return ()
    _fill(struct, plan)
    struct.context.blocks |= {"wide", "launch", "shuffle", "division"}
    struct.context.blocks.add("scalars_f16" if output is Dtype.F16 else "scalars")
    tunables = _tunables(output.itemsize == 2)
    rows = " * ".join(f"({dimension_to_c(b.extent)})" for b in plan.rows) or "1"
    columns = dimension_to_c(plan.column.extent)
    region = Region("states", "char", f"256 + scan::tiles_of({columns}) * {rows} * 8")
    source = Source(program.signature, struct.context, tunables, entry, "A running sum")
    body = [
        struct.instance(),
        "if (const int failed = scan::run(problem, states, stream)) return failed;",
    ]
    file = Path(__file__).parent / "scan.cu"
    text = source.text(pretty(program), struct.lines(), body, [region], [file])
    lineage = Lineage("recipe", note="scan")
    return (Family("scan", "cuda", entry, text, lineage, tunables.defaults()),)


def _fill(struct: ProblemStruct, plan: ScanPlan) -> None:
    """What is summed, and where it goes."""
    context, signature = struct.context, struct.signature
    extents = {b.axis: b.extent for b in (*plan.rows, plan.column)}
    body = flat_loads(plan.body, signature, Integers(extents))
    rows, drop = merge_axes(plan.rows, [body], [])
    body = drop(body)
    struct.count("row_count", plan.rows)
    struct.count("column_count", [plan.column])
    context.axis_names[plan.column.axis] = "$at"
    context.count_uses([body])
    axes = struct.name_axes(rows, "$row")
    scope = Scope(context, None, [*(b.axis for b in rows), plan.column.axis])
    value = scope.as_float(scope.value(body)).text
    struct.method("float value(int64_t $row, int64_t $at)",
                  [*axes, *scope.lines, f"return {value};"])  # fmt: skip
    bounds = (*plan.rows, plan.column)
    own = flatten(
        Load("", tuple(Axis(b.axis) for b in bounds)), tuple(b.extent for b in bounds),
        Integers(extents),
    )  # fmt: skip
    plain = isinstance(plan.body, Load)
    if plain and isinstance(plan.body, Load):
        flat = flat_loads(plan.body, signature, Integers(extents))
        plain = flat.children[0] is own.children[0]
        element = context.dtypes[plan.body.tensor]
        plain = plain and element is not Dtype.F64
        struct.methods.append(f"using Element = {element.c_type};")
        struct.method(f"const {element.c_type}* elements()", [f"return {plan.body.tensor};"])
    else:
        struct.methods.append("using Element = float;")
    struct.methods.append(f"static constexpr bool PLAIN = {str(plain).lower()};")
    result = context.dtypes[plan.tensor].c_type
    struct.methods.append(f"using Result = {result};")
    struct.method(f"{result}* target(int64_t $row)",
                  [f"return {plan.tensor} + $row * column_count;"])  # fmt: skip


def _tunables(narrow: bool) -> Tunables:
    choices: dict[str, tuple[int | str, ...]] = {
        "THREADS": (128, 256, 512), "WIDTH": (8, 4) if narrow else (4, 2),
        "KEEP": (8, 4, 2, 1) if narrow else (16, 8, 4, 2),
    }  # fmt: skip
    first = choices["KEEP"]
    departures: tuple[dict[str, int | str], ...] = (
        {"THREADS": 256}, {"KEEP": first[1]}, {"THREADS": 256, "KEEP": first[1]},
        {"THREADS": 512, "KEEP": first[1]}, {"THREADS": 512, "KEEP": first[2]}, {"KEEP": first[2]},
    )  # fmt: skip
    return Tunables(choices, (), departures)
