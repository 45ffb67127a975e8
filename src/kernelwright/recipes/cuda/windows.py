"""Sums over moving windows on a GPU: depthwise convolutions from shared memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from kernelwright.codegen.assemble import Tunables, indent
from kernelwright.codegen.contraction_lower import flat_loads
from kernelwright.codegen.cuda.assemble import Source
from kernelwright.codegen.cuda.problem import COMMON, ProblemStruct
from kernelwright.codegen.emit import Scope, Value
from kernelwright.codegen.naming import without_reserved
from kernelwright.expr.integers import Integers
from kernelwright.expr.nodes import Load, Node, Program
from kernelwright.expr.pretty import pretty
from kernelwright.expr.rowwise import Bound
from kernelwright.expr.windows import (
    COLUMN,
    ROW,
    SIGNAL_COLUMN,
    SIGNAL_ROW,
    TAP_COLUMN,
    TAP_ROW,
    WindowPlan,
    match,
)
from kernelwright.model import Dtype, Family, Lineage
from kernelwright.model.dimensions import dimension_to_c

_NAMES = frozenset({
    "plane_count", "row_count", "column_count", "height", "width", "window_rows", "window_columns",
    "top", "left", "signal", "taps", "store", "windows", "slide", "plainly", "Shape", "Tile",
    "SPAN", "WARPS", "ROWS", "TALL", "WIDE", "PLANES",
})  # fmt: skip


def families(
    program: Program, dtype: Dtype, sizes: Mapping[str, int], entry: str
) -> tuple[Family, ...]:
    """The window family; empty when the program is no sum of floats over windows."""
    program = without_reserved(program, entry, _NAMES | COMMON)
    plan = match(program)
    if plan is None or dtype is Dtype.F64:
        return ()
    if not program.signature.outputs[0].resolve(dtype).is_float:
        return ()
    struct = ProblemStruct(program.signature, dtype, _NAMES)
    _fill(struct, plan)
    struct.context.blocks |= {"launch", "division", "shared_memory", "scalars"}
    tunables = _tunables()
    source = Source(program.signature, struct.context, tunables, entry, "Sums over windows")
    body = [
        struct.instance(),
        "if (const int failed = windows::run(problem, stream)) return failed;",
    ]
    file = Path(__file__).parent / "windows.cu"
    text = source.text(pretty(program), struct.lines(), body, (), [file])
    lineage = Lineage("recipe", note="windows")
    return (Family("windows", "cuda", entry, text, lineage, tunables.defaults()),)


def _fill(struct: ProblemStruct, plan: WindowPlan) -> None:
    """The signal, the sum of the taps of all windows, and what is stored."""
    context, signature, first = struct.context, struct.signature, plan.windows[0]
    bounds = (*plan.batch, plan.row, plan.column, Bound(SIGNAL_ROW, plan.height),
              Bound(SIGNAL_COLUMN, plan.width))  # fmt: skip
    extents = {bound.axis: bound.extent for bound in bounds}
    signal = flat_loads(plan.signal, signature, Integers(extents))
    taps = [
        flat_loads(
            window.taps,
            signature,
            Integers(extents | {TAP_ROW: window.rows, TAP_COLUMN: window.columns}),
        )
        for window in plan.windows
    ]
    body = flat_loads(plan.body, signature, Integers(extents))
    target = flat_loads(Load(plan.tensor, plan.index), signature, Integers(extents))
    context.axis_names |= {
        ROW: "$h", COLUMN: "$w", SIGNAL_ROW: "$y", SIGNAL_COLUMN: "$x", TAP_ROW: "$k",
        TAP_COLUMN: "$l",
    }  # fmt: skip
    context.count_uses([signal, body, *taps])
    struct.count("plane_count", plan.batch)
    struct.count("row_count", [plan.row])
    struct.count("column_count", [plan.column])
    for name, extent in (
        ("height", plan.height), ("width", plan.width), ("window_rows", first.rows),
        ("window_columns", first.columns),
    ):  # fmt: skip
        struct.extents[name] = dimension_to_c(extent)
    struct.methods.append(f"static constexpr int top = {first.top}, left = {first.left};")
    planes, axes = struct.name_axes(plan.batch, "$plane"), [b.axis for b in plan.batch]
    scope = Scope(context, None, [*axes, SIGNAL_ROW, SIGNAL_COLUMN])
    value = scope.as_float(scope.value(signal)).text
    struct.method("float signal(int64_t $plane, int64_t $y, int64_t $x)",
                  [*planes, "(void)$y, (void)$x;", *scope.lines, f"return {value};"])  # fmt: skip
    struct.method("float taps(int64_t $plane, int64_t $row, int64_t $column)",
                  [*planes, *_taps(struct, plan, taps, axes), "return $sum;"])  # fmt: skip
    scope = Scope(context, None, [*axes, ROW, COLUMN])
    scope.known[plan.total] = Value("$total", "float")
    stored = struct.put(scope, plan.tensor, target.children[0], body)
    struct.method("void store(int64_t $plane, int64_t $h, int64_t $w, float $total)",
                  [*planes, *scope.lines, stored])  # fmt: skip


def _taps(
    struct: ProblemStruct, plan: WindowPlan, taps: Sequence[Node], axes: Sequence[str]
) -> list[str]:
    """Statements that add up what each window has at a place in the first one."""
    first, lines = plan.windows[0], ["float $sum = 0.0f;"]
    for window, term in zip(plan.windows, taps, strict=True):
        scope = Scope(struct.context, None, [*axes, TAP_ROW, TAP_COLUMN])
        value = scope.as_float(scope.value(term)).text
        down, right = first.top - window.top, first.left - window.left
        rows, columns = dimension_to_c(window.rows), dimension_to_c(window.columns)
        lines += [
            f"if (const int64_t $k = $row - {down}, $l = $column - {right};",
            f"    $k >= 0 && $k < {rows} && $l >= 0 && $l < {columns}) {{",
            *indent([*scope.lines, f"$sum += {value};"]), "}",
        ]  # fmt: skip
    return lines


def _tunables() -> Tunables:
    choices: dict[str, tuple[int | str, ...]] = {
        "ROWS": (4, 2, 7, 8), "PLANES": (2, 4, 1, 3), "THREADS": (224, 128, 256, 416, 320),
        "TALL": (56, 64, 32, 112), "WIDE": (64, 32, 128),
    }  # fmt: skip
    departures: tuple[dict[str, int | str], ...] = (
        {"PLANES": 1, "THREADS": 128}, {"PLANES": 4, "THREADS": 416},
        {"ROWS": 7, "PLANES": 4}, {"ROWS": 2, "PLANES": 1},
        {"ROWS": 7, "PLANES": 2, "THREADS": 128},
    )  # fmt: skip
    rules = ("TALL % ROWS == 0",)
    return Tunables(choices, rules, departures)
