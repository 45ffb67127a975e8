"""Transpositions on a GPU, and pointwise work along with them: tiles in shared memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kernelwright.codegen.assemble import Tunables
from kernelwright.codegen.cuda.assemble import Source
from kernelwright.codegen.cuda.problem import COMMON, ProblemStruct
from kernelwright.codegen.cuda.wide import Alignment
from kernelwright.codegen.emit import Scope, Value
from kernelwright.codegen.naming import without_reserved
from kernelwright.expr.nodes import Program
from kernelwright.expr.pretty import pretty
from kernelwright.expr.turned import Turned, match
from kernelwright.model import Dtype, Family, Lineage

_NAMES = frozenset({
    "CROSSED", "Element", "Result", "outer_count", "across_count", "column_count", "place",
    "value", "target", "aligned", "turned", "tiles", "Shared", "Corner", "bring", "bring_singly",
    "take", "into_line", "Start", "ACROSS", "COLUMNS", "LANES", "GROUP", "PITCH", "WARPS", "LINE",
})  # fmt: skip
_FLOATS = (Dtype.F32, Dtype.BF16, Dtype.F16)
_MOST_CROSSED = 2


def families(
    program: Program, dtype: Dtype, sizes: Mapping[str, int], entry: str
) -> tuple[Family, ...]:
    """The family of turned tiles; empty when the program reads nothing across its rows."""
    program = without_reserved(program, entry, _NAMES | COMMON)
    plan = match(program)
    output = program.signature.outputs[0].resolve(dtype)
    if plan is None or output not in _FLOATS or len(plan.crossed) > _MOST_CROSSED:
        return ()
    struct = ProblemStruct(program.signature, dtype, _NAMES)
    if any(struct.context.dtypes[load.tensor] not in _FLOATS for load in plan.crossed):
        return ()
    _fill(struct, plan)
    dtypes = {struct.context.dtypes[load.tensor] for load in plan.crossed} | {output}
    struct.context.blocks |= {"wide", "launch", "division", "scalars"}
    if Dtype.F16 in dtypes:
        struct.context.blocks.add("scalars_f16")
    tunables = _tunables(max(d.itemsize for d in dtypes) == 2, len(plan.crossed))
    source = Source(program.signature, struct.context, tunables, entry, "Turned tiles")
    body = [
        struct.instance(),
        "if (const int failed = turned::run(problem, stream)) return failed;",
    ]
    file = Path(__file__).parent / "turned.cu"
    text = source.text(
        pretty(program), struct.lines(), body, (), [file], ["#include <type_traits>"]
    )
    lineage = Lineage("recipe", note="turned tiles")
    return (Family("turned", "cuda", entry, text, lineage, tunables.defaults()),)


def _fill(struct: ProblemStruct, plan: Turned) -> None:
    context = struct.context
    context.axis_names |= {plan.across.axis: "$n", plan.column.axis: "$m"}
    context.count_uses([plan.body])
    struct.count("outer_count", plan.outer)
    struct.count("across_count", [plan.across])
    struct.count("column_count", [plan.column])
    outer = struct.name_axes(plan.outer, "$outer")
    axes = [b.axis for b in (*plan.outer, plan.across, plan.column)]
    alignment = Alignment(context)
    whole = alignment.admits(plan.offset, plan.column.axis)
    places: list[str] = []
    types: list[str] = []
    for number, load in enumerate(plan.crossed):
        whole = alignment.admits(load.children[0], plan.across.axis) and whole
        scope = Scope(context, None, axes)
        address = scope.address(load.tensor, scope.offset(load.children[0]))
        places.append(
            f"{'else ' if number else ''}if constexpr (LOAD == {number}) return {address};"
        )
        types.append(context.dtypes[load.tensor].c_type)
    rest = types[-1]
    for number, kind in reversed(list(enumerate(types[:-1]))):
        rest = f"std::conditional_t<LOAD == {number}, {kind}, {rest}>"
    output = context.dtypes[plan.tensor].c_type
    struct.methods += [
        f"static constexpr int CROSSED = {len(plan.crossed)};",
        f"template <int LOAD> using Element = {rest};",
        f"using Result = {output};",
    ]
    conditions = " && ".join(f"({e}) % WIDTH == 0" for e in alignment.extents) or "true"
    struct.methods.append(f"bool aligned() const {{ return {conditions if whole else 'false'}; }}")
    index = "int64_t $outer, int64_t $n, int64_t $m"
    struct.methods.append("template <int LOAD>")
    struct.method(f"const Element<LOAD>* place({index})", [*outer, *places])
    scope = Scope(context, None, axes)
    for number, load in enumerate(plan.crossed):
        scope.known[load] = Value(f"$own[{number}]", "float")
    value = scope.as_float(scope.value(plan.body)).text
    unused = "(void)$n, (void)$m, (void)$own;"
    struct.method(f"float value({index}, const float* $own)",
                  [*outer, unused, *scope.lines, f"return {value};"])  # fmt: skip
    address = scope.address(plan.tensor, scope.offset(plan.offset))
    struct.method(f"{output}* target({index})", [*outer, f"return {address};"])


def _tunables(narrow: bool, crossed: int) -> Tunables:
    choices: dict[str, tuple[int | str, ...]] = {
        "ACROSS": (128, 64, 32) if narrow else (64, 128, 32), "COLUMNS": (64, 128, 32),
        "WIDTH": (8, 4) if narrow else (4, 2), "LANES": (8, 16, 4), "THREADS": (256, 128, 512),
        "GROUP": (1024, 64, 8, 1),
    }  # fmt: skip
    departures: tuple[dict[str, int | str], ...] = (
        {"ACROSS": 64} if narrow else {"ACROSS": 128},
        {"COLUMNS": 128}, {"LANES": 16}, {"GROUP": 1}, {"ACROSS": 64, "THREADS": 128},
    )  # fmt: skip
    largest = (1 << 14) // crossed if narrow else (1 << 13) // crossed
    rules = ("LANES * WIDTH <= ACROSS", "8 * WIDTH <= COLUMNS", f"ACROSS * COLUMNS <= {largest}")
    return Tunables(choices, rules, departures)
