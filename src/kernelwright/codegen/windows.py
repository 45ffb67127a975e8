"""Kernels that sum over moving windows: depthwise convolutions from a band in the nearest cache."""

from __future__ import annotations

from collections.abc import Mapping

from kernelwright.codegen.assemble import (
    INCLUDES,
    Tunables,
    block_file,
    indent,
    lane_choices,
    name_locals,
    toolchain_choices,
)
from kernelwright.codegen.blocks import WINDOWS
from kernelwright.codegen.contraction_lower import flat_loads
from kernelwright.codegen.emit import Context, Scope, Value, bare
from kernelwright.codegen.library import paste
from kernelwright.codegen.naming import without_reserved
from kernelwright.codegen.stores import Stores
from kernelwright.codegen.sweeps import Sweep
from kernelwright.expr.integers import Integers
from kernelwright.expr.nodes import Load, Node, Program
from kernelwright.expr.pretty import pretty
from kernelwright.expr.rowwise import Bound, Store
from kernelwright.expr.windows import (
    COLUMN,
    ROW,
    SIGNAL_COLUMN,
    SIGNAL_ROW,
    TAP_COLUMN,
    TAP_ROW,
    Window,
    WindowPlan,
    match,
)
from kernelwright.model import Dtype, Family, Lineage, Machine
from kernelwright.model.dimensions import dimension_to_c

_NAMES = frozenset({
    "Problem", "plane_count", "row_count", "column_count", "height", "width", "top", "left",
    "window_rows", "window_columns", "pack_signal", "pack_taps", "store", "lanes", "windows",
    "simd", "LANES", "ROWS", "VECTORS", "TAPS", "COLUMNS",
})  # fmt: skip


def families(
    program: Program, dtype: Dtype, machine: Machine, sizes: Mapping[str, int], entry: str
) -> tuple[Family, ...]:
    """The window family; empty when the program is no sum over windows."""
    program = without_reserved(program, entry, _NAMES)
    plan = match(program)
    signature = program.signature
    if plan is None or dtype is Dtype.F64 or not signature.outputs[0].resolve(dtype).is_float:
        return ()
    context = Context(signature, dtype)
    struct = _Writer(context, plan).write()
    tunables = _tunables(machine)
    tensors = [t.name for t in signature.tensors]
    numbers = [*signature.dimensions, *(s.name for s in signature.scalars)]
    nothing = ["nullptr"] * len(tensors)
    source = "\n".join([
        f"// Sums over windows, {dtype} workloads:", "//",
        *(f"//     {line}" for line in pretty(program).splitlines()), "//",
        tunables.declarations(), "", INCLUDES, "", paste(context.blocks), "",
        block_file(WINDOWS), "", *struct, "",
        f'extern "C" {signature.workspace_prototype(entry)} {{',
        f"    return windows::workspace(Problem{{{', '.join([*nothing, *numbers])}}});", "}", "",
        f'extern "C" {signature.prototype(entry, dtype)} {{',
        "    (void)prepared, (void)stream;",
        f"    const Problem problem{{{', '.join([*tensors, *numbers])}}};",
        "    return windows::run(problem, workspace, workspace_bytes);", "}", "",
    ])  # fmt: skip
    lineage = Lineage("recipe", note="windows")
    return (Family("windows", "cpp", entry, source, lineage, tunables.defaults()),)


class _Writer:
    """Emits `struct Problem` of the block `windows`."""

    def __init__(self, context: Context, plan: WindowPlan) -> None:
        self.context, self.plan = context, plan
        signature = context.signature
        first = plan.windows[0]
        bounds = (*plan.batch, plan.row, plan.column, Bound(SIGNAL_ROW, plan.height),
                  Bound(SIGNAL_COLUMN, plan.width))  # fmt: skip
        extents = {b.axis: b.extent for b in bounds}
        self.signal = flat_loads(plan.signal, signature, Integers(extents))
        self.taps = [
            flat_loads(w.taps, signature,
                       Integers(extents | {TAP_ROW: w.rows, TAP_COLUMN: w.columns}))
            for w in plan.windows
        ]  # fmt: skip
        self.body = flat_loads(plan.body, signature, Integers(extents))
        target = flat_loads(Load(plan.tensor, plan.index), signature, Integers(extents))
        self.offset = target.children[0]
        self.rows, self.columns = dimension_to_c(first.rows), dimension_to_c(first.columns)
        context.taken |= _NAMES
        named = (ROW, COLUMN, SIGNAL_ROW, SIGNAL_COLUMN, TAP_ROW, TAP_COLUMN)
        context.axis_names |= {axis: context.fresh(axis) for axis in named}
        context.axis_names |= {b.axis: context.fresh("b") for b in plan.batch}
        context.count_uses([self.signal, self.body, *self.taps])
        context.blocks |= {"parallel", "load_floats", "store_floats"}

    def write(self) -> list[str]:
        """The lines of the struct."""
        signature, dtype, plan = self.context.signature, self.context.dtype, self.plan
        names, first = self.context.axis_names, plan.windows[0]
        fields = [f"const {t.resolve(dtype).c_type}* {t.name};" for t in signature.inputs]
        fields += [f"{t.resolve(dtype).c_type}* {t.name};" for t in signature.outputs]
        fields += [f"int64_t {name};" for name in signature.dimensions]
        fields += [f"{s.c_type} {s.name};" for s in signature.scalars]
        planes = " * ".join(f"({dimension_to_c(b.extent)})" for b in plan.batch)
        sizes = {
            "plane_count": planes or "1", "row_count": dimension_to_c(plan.row.extent),
            "column_count": dimension_to_c(plan.column.extent),
            "height": dimension_to_c(plan.height), "width": dimension_to_c(plan.width),
            "window_rows": self.rows, "window_columns": self.columns,
            "top": str(first.top), "left": str(first.left),
        }  # fmt: skip
        fields += [f"int64_t {name} = {value};" for name, value in sizes.items()]
        row, column, y = names[ROW], names[COLUMN], names[SIGNAL_ROW]
        methods = [
            "// Columns `$begin` to `$end` of a row of the signal.",
            f"void pack_signal(int64_t $plane, int64_t {y}, int64_t $begin, int64_t $end, "
            "float* $to) const {",
            *indent(self._pack_signal()), "}", "",
            "void pack_taps(int64_t $plane, float* $to) const {", *indent(self._pack_taps()), "}",
            "", "template <class Lanes>",
            f"INLINED void store(int64_t $plane, int64_t {row}, int64_t {column}, "
            "simd::floats $total, Lanes lanes) const {",
            *indent(self._store()), "}",
        ]  # fmt: skip
        lines = ["struct Problem {", *indent([*fields, "", *methods]), "};"]
        return name_locals(lines, self.context.fresh)

    def _plane(self) -> Scope:
        """Names of the batch axes from the number of the plane."""
        batch = self.plan.batch
        scope = Scope(self.context, None, [b.axis for b in batch])
        scope.lines.append("(void)$plane;")
        index = "$plane"
        for number, bound in reversed(list(enumerate(batch))):
            name, extent = self.context.axis_names[bound.axis], dimension_to_c(bound.extent)
            text = f"({index}) % ({extent})" if number else index
            scope.lines.append(f"const int64_t {name} = {text};")
            index = f"({index}) / ({extent})"
        return scope

    def _pack_signal(self) -> list[str]:
        plane = self._plane()
        row = Scope(self.context, plane, [SIGNAL_ROW])
        row.lines.append(f"(void){self.context.axis_names[SIGNAL_ROW]};")
        vector = Scope(self.context, row, [SIGNAL_COLUMN], SIGNAL_COLUMN)
        value = vector.spread(vector.as_float(vector.value(self.signal))).text
        name = self.context.axis_names[SIGNAL_COLUMN]
        body = [*vector.lines, f"simd::store($to + ({name} - $begin), {bare(value)}, lanes);"]
        head = f"simd::sweep<1>($begin, $end, [&](int64_t {name}, auto lanes, auto) INLINED {{"
        return [*plane.lines, *row.lines, head, *indent(body), "});"]

    def _pack_taps(self) -> list[str]:
        plane = self._plane()
        first = self.plan.windows[0]
        lines = [
            "for (int64_t $at = 0; $at < window_rows * window_columns; ++$at) $to[$at] = 0.0f;"
        ]
        for window, taps in zip(self.plan.windows, self.taps, strict=True):
            lines += self._add_taps(plane, window, taps, (first.top, first.left))
        return [*plane.lines, *lines]

    def _add_taps(
        self, plane: Scope, window: Window, taps: Node, origin: tuple[int, int]
    ) -> list[str]:
        """Add one window's taps at its place in the first one."""
        k, column = self.context.axis_names[TAP_ROW], self.context.axis_names[TAP_COLUMN]
        inner = Scope(self.context, plane, [TAP_ROW, TAP_COLUMN])
        value = inner.as_float(inner.value(taps)).text
        down, right = origin[0] - window.top, origin[1] - window.left
        rows, columns = dimension_to_c(window.rows), dimension_to_c(window.columns)
        place = f"({k} + {down}) * window_columns + ({column} + {right})"
        return [
            f"for (int64_t {k} = 0; {k} < {rows}; ++{k})",
            f"    for (int64_t {column} = 0; {column} < {columns}; ++{column}) {{",
            *indent([*inner.lines, f"$to[{place}] += {value};"], 2), "    }",
        ]  # fmt: skip

    def _store(self) -> list[str]:
        plane = self._plane()
        row = Scope(self.context, plane, [ROW])
        row.lines.append(f"(void){self.context.axis_names[ROW]};")
        vector = Scope(self.context, row, [COLUMN], COLUMN)
        vector.known[self.plan.total] = Value("$total", "float", True)
        store = Store(self.plan.tensor, self.offset, (self.plan.column,), self.body, 0)
        stores = Stores(self.context, set())
        lines = stores.vector(vector, store, Sweep(0, (self.plan.column,), (), ()))
        return ["(void)lanes;", *plane.lines, *row.lines, *vector.lines, *lines]


def _tunables(machine: Machine) -> Tunables:
    wide = "avx512f" in machine.isa
    choices: dict[str, tuple[int | str, ...]] = {
        "LANES": lane_choices(machine),
        "ROWS": (4, 6, 7, 2, 8, 3) if wide else (3, 2, 4),
        "VECTORS": (4, 2, 3, 1),
        "TAPS": (1, 2, 4, 8), "COLUMNS": (2048, 512, 8192),
    }  # fmt: skip
    constraints = (f"ROWS * VECTORS + VECTORS <= {31 if wide else 16}",)
    departures: tuple[dict[str, int | str], ...] = (
        {"TAPS": 4}, {"ROWS": 6}, {"ROWS": 8, "VECTORS": 2}, {"ROWS": 7, "VECTORS": 2},
        {"ROWS": 8, "VECTORS": 2, "TAPS": 2}, {"ROWS": 2}, {"VECTORS": 2},
    )  # fmt: skip
    return Tunables(choices | toolchain_choices(machine), constraints, departures)
