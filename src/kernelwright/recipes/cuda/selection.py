"""The largest or smallest of each row on a GPU: a bar, what reaches it, ranks among that."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kernelwright.codegen.assemble import Tunables
from kernelwright.codegen.contraction_lower import flat_loads
from kernelwright.codegen.cuda.assemble import Source
from kernelwright.codegen.cuda.problem import COMMON, ProblemStruct
from kernelwright.codegen.emit import Scope
from kernelwright.codegen.naming import renamed_sizes, without_reserved
from kernelwright.expr.integers import Integers
from kernelwright.expr.nodes import Axis, Load, Program
from kernelwright.expr.pretty import pretty
from kernelwright.expr.rowwise import flatten
from kernelwright.expr.selection import INDEX, Selection, match
from kernelwright.model import Dtype, Family, Lineage, evaluate_dimension

_NAMES = frozenset({
    "PLAIN", "LARGEST", "Element", "CANDIDATES", "BUFFER", "FEW_ROWS", "Stream", "streams",
    "GROUPS", "Shared", "Row", "STEPS", "row_count", "column_count", "position_count", "value",
    "elements", "store", "selection", "rows", "ranks",
})  # fmt: skip


def families(
    program: Program, dtype: Dtype, sizes: Mapping[str, int], entry: str
) -> tuple[Family, ...]:
    """The selection family; empty when the program does not select by floats in rows."""
    program = without_reserved(program, entry, _NAMES | COMMON)
    plan = match(program)
    if plan is None or dtype is Dtype.F64:
        return ()
    struct = ProblemStruct(program.signature, dtype, _NAMES)
    if struct.context.kinds.of(plan.key) != "float":
        return ()
    narrow = _fill(struct, plan)
    struct.context.blocks |= {"wide", "launch", "shuffle", "scalars", "shared_memory"}
    known = {**{name: 1 for name in program.signature.dimensions}, **renamed_sizes(sizes)}
    known |= {s.name: 1 for s in program.signature.scalars if s.name not in known}
    tunables = _tunables(narrow, evaluate_dimension(plan.column.extent, known))
    way = "largest" if plan.largest else "smallest"
    source = Source(program.signature, struct.context, tunables, entry, f"A selection of the {way}")
    body = [
        struct.instance(),
        "if (const int failed = selection::run(problem, stream)) return failed;",
    ]
    file = Path(__file__).parent / "selection.cu"
    fixed = [] if narrow else ["#define WIDTH 4", ""]
    text = source.text(pretty(program), struct.lines(), body, (), [file], fixed)
    lineage = Lineage("recipe", note=f"selection of the {way}")
    return (Family("selection", "cuda", entry, text, lineage, tunables.defaults()),)


def _fill(struct: ProblemStruct, plan: Selection) -> bool:
    """Emit what is compared and what is stored; whether what is compared has 16 bits."""
    context, signature = struct.context, struct.signature
    bounds = (*plan.rows, plan.column, plan.position)
    extents = {b.axis: b.extent for b in bounds} | {INDEX: plan.column.extent}
    integers = Integers(extents)
    key = flat_loads(plan.key, signature, integers)
    bodies = [flat_loads(body, signature, integers) for _, body in plan.results]
    place = tuple(Axis(b.axis) for b in (*plan.rows, plan.position))
    context.axis_names |= {
        plan.column.axis: "$at", plan.position.axis: "$position", INDEX: "$index",
    }  # fmt: skip
    context.count_uses([key, *bodies])
    axes = struct.name_axes(plan.rows, "$row")
    struct.count("row_count", plan.rows)
    struct.count("column_count", [plan.column])
    struct.count("position_count", [plan.position])
    struct.methods.append(f"static constexpr bool LARGEST = {str(plan.largest).lower()};")
    scope = Scope(context, None, [b.axis for b in (*plan.rows, plan.column)])
    value = scope.as_float(scope.value(key)).text
    struct.method("float value(int64_t $row, int64_t $at)",
                  [*axes, *scope.lines, f"return {value};"])  # fmt: skip
    rows = (*plan.rows, plan.column)
    own = flatten(
        Load("", tuple(Axis(b.axis) for b in rows)), tuple(b.extent for b in rows), integers
    )
    plain = isinstance(key, Load) and key.children[0] is own.children[0]
    element = context.dtypes[key.tensor] if plain and isinstance(key, Load) else Dtype.F32
    struct.methods += [f"static constexpr bool PLAIN = {str(plain).lower()};",
                       f"using Element = {element.c_type};"]  # fmt: skip
    if plain and isinstance(key, Load):
        struct.method(f"const {element.c_type}* elements()", [f"return {key.tensor};"])
        if element is Dtype.F16:
            context.blocks.add("scalars_f16")
    inner = Scope(context, None, [*(b.axis for b in plan.rows), plan.position.axis, INDEX])
    stores: list[str] = []
    for (name, _), body in zip(plan.results, bodies, strict=True):
        target = flat_loads(Load(name, place), signature, integers)
        stores.append(struct.put(inner, name, target.children[0], body))
    struct.method("void store(int64_t $row, int64_t $position, int64_t $index)",
                  [*axes, "(void)$position, (void)$index;", *inner.lines, *stores])  # fmt: skip
    return element.itemsize == 2


def _tunables(narrow: bool, columns: int) -> Tunables:
    width, threads = 8 if narrow else 4, 256
    keep = next((n for n in (1, 2, 4, 8) if n * width * threads >= columns), 16)
    choices: dict[str, tuple[int | str, ...]] = {
        "THREADS": (threads, 128, 512), "WIDTH": (width, 4) if narrow else (4,),
        "UNROLL": (4, 2, 8), "BUFFER": (384, 512, 1024) if narrow else (256, 384, 512, 1024),
        "KEEP": (keep, *(n for n in (2, 4, 8, 16) if n != keep)), "CANDIDATES": (1024, 512, 2048),
    }  # fmt: skip
    if not narrow:
        del choices["WIDTH"]
    departures: tuple[dict[str, int | str], ...] = (
        {"UNROLL": 2}, {"THREADS": 512}, {"BUFFER": 512}, {"THREADS": 128}, {"UNROLL": 8},
        {"BUFFER": 1024},
    )  # fmt: skip
    return Tunables(choices, (), departures)
