"""Writes the kernels of one nest: rows in groups of threads, few long rows split over blocks."""

from __future__ import annotations

from dataclasses import dataclass, field

from kernelwright.codegen.assemble import indent
from kernelwright.codegen.cuda import reductions
from kernelwright.codegen.cuda.sweeping import SweepWriter
from kernelwright.codegen.cuda.wide import Alignment
from kernelwright.codegen.emit import Context, Scope
from kernelwright.codegen.stores import Stores
from kernelwright.codegen.sweeps import Sweep, sweeps
from kernelwright.expr.rowwise import Bound, Nest, Reduction
from kernelwright.model.dimensions import dimension_to_c

PARTS = 1024
"""Most parts into which all rows together are split, and results of each of them."""
PART_BYTES = 16
FEW_ROWS = 256
"""Fewer rows than this leave processors idle unless long ones are split."""


@dataclass
class NestWriter:
    """Emits one nest: `kernels` are definitions, `calls` the statements of the entry."""

    context: Context
    nest: Nest
    prefix: str
    """What the names of kernels begin with."""
    parameters: str
    arguments: str
    slots_before: int
    """Reductions of earlier nests, whose parts come first in the workspace."""
    kernels: list[str] = field(default_factory=list[str])
    terms: bool = False
    """Whether computed terms can be kept in registers."""

    def __post_init__(self) -> None:
        """Name the axes."""
        context, nest = self.context, self.nest
        context.row_values |= {r.value for r in nest.reductions}
        self.sweeps = sweeps(nest)
        self.alignment = Alignment(context)
        for bound in (*nest.rows, *(b for s in self.sweeps for b in s.columns)):
            if bound.axis not in context.axis_names:
                context.axis_names[bound.axis] = context.fresh(_axis_name(bound.extent))
        self.keeps = len(self.sweeps) > 1
        self.row_count = _count(nest.rows)

    def write(self) -> list[str]:
        """The statements of the entry that launch this nest; fills `kernels`."""
        if not self.nest.reductions:
            return self._pointwise()
        self.context.blocks |= {"sweep", "wide", "group", "launch"}
        self.kernels += self._rows_kernel()
        levels = range(self.nest.levels)
        for level in levels:
            self.kernels += self._part_kernel(level)
        return self._launches(levels)

    # -- rows in groups of threads -------------------------------------------------------------

    def _rows_kernel(self) -> list[str]:
        call = Scope(self.context, None, [])
        row = Scope(self.context, call, [b.axis for b in self.nest.rows] + ["row"])
        row.lines += self._row_axes("row")
        writer = SweepWriter(self.context, self.nest, self.alignment, self.keeps)
        for level in range(self.nest.levels):
            self._row_stores(row, level, "active && group.lane() == 0")
            for sweep in (s for s in self.sweeps if s.level == level):
                last = _count(sweep.columns)
                bounds = f"group.lane() * WORD, {last}, SPAN * WORD"
                if sweep.stores:
                    bounds = f"group.lane() * WORD, active ? {last} : 0, SPAN * WORD"
                self._sweep(row, writer, sweep, bounds)
                for reduction in sweep.reductions:
                    row.lines.append(reductions.settle(reduction))
        self.terms = bool(writer.kept)
        kept = ", bool KEPT" if self.keeps else ""
        bounds = "THREADS, KEPT ? RESIDENT : 1" if self.keeps else "THREADS"
        slots = "KEPT ? KEEP : UNROLL" if self.keeps else "UNROLL"
        return [
            f"template <int WORD{kept}> static __global__ void __launch_bounds__({bounds})",
            f"{self.prefix}_rows({self.parameters}) {{",
            f"    constexpr int SPAN = THREADS / ROWS, SLOTS = {slots};",
            f"    constexpr bool ONCE = STREAM{' && KEPT' if self.keeps else ''};",
            "    (void)ONCE;",
            "    __shared__ __align__(16) char exchange[2 * (THREADS / 32) * 16];",
            "    simt::Group<SPAN, THREADS> group(exchange);",
            f"    const int64_t own = (int64_t)blockIdx.x * ROWS + group.number(), "
            f"count = {self.row_count};",
            "    const bool active = own < count;",
            "    const int64_t row = active ? own : count - 1;",
            *indent([*call.lines, *row.lines]),
            "}", "",
        ]  # fmt: skip

    def _sweep(self, row: Scope, writer: SweepWriter, sweep: Sweep, bounds: str) -> None:
        for reduction in sweep.reductions:
            row.lines += reductions.declare(reduction)
        lines = writer.write(row, sweep, bounds)
        row.lines += lines
        for reduction in sweep.reductions:
            row.lines += reductions.gather(reduction, self.context)

    def _row_axes(self, index: str) -> list[str]:
        """Names of the row axes from the number of the row."""
        lines: list[str] = []
        rest = index
        for bound in reversed(self.nest.rows[1:]):
            name, extent = self.context.axis_names[bound.axis], dimension_to_c(bound.extent)
            self.context.blocks.add("division")
            lines += [f"const int64_t {name}_rest = simt::quotient({rest}, {extent});",
                      f"const int64_t {name} = {rest} - {name}_rest * ({extent});",
                      f"(void){name};"]  # fmt: skip
            rest = f"{name}_rest"
        for bound in self.nest.rows[:1]:
            name = self.context.axis_names[bound.axis]
            lines += [f"const int64_t {name} = {rest};", f"(void){name};"]
        return lines

    def _row_stores(self, scope: Scope, level: int, who: str) -> None:
        stores = Stores(self.context, set())
        for store in self.nest.stores:
            if store.level == level and not store.columns:
                line = stores.scalar(scope, store)
                scope.lines.append(f"if ({who}) {line}")

    # -- few long rows: a launch for each level ------------------------------------------------

    def _number(self, reduction: Reduction) -> int:
        return self.slots_before + self.nest.reductions.index(reduction)

    def _parts_of(self, reduction: Reduction) -> str:
        start = self._number(reduction) * PARTS * PART_BYTES
        return f"(({reductions.c_type(reduction)}*)(parts + {start}))"

    def _part_kernel(self, level: int) -> list[str]:
        call = Scope(self.context, None, [])
        row = Scope(self.context, call, [b.axis for b in self.nest.rows] + ["row"])
        row.lines += [*self._row_axes("row"), *self._known(level)]
        writer = SweepWriter(self.context, self.nest, self.alignment, False)
        self._row_stores(row, level, "blockIdx.x == 0 && threadIdx.x == 0")
        for number, sweep in enumerate(s for s in self.sweeps if s.level == level):
            own = f"own_part{number}"
            row.lines.append(f"const simt::Part {own}({_count(sweep.columns)}, THREADS * WORD);")
            bounds = f"{own}.first + threadIdx.x * WORD, {own}.last, THREADS * WORD"
            self._sweep(row, writer, sweep, bounds)
            for reduction in sweep.reductions:
                place = f"{self._parts_of(reduction)}[row * gridDim.x + blockIdx.x]"
                row.lines.append(f"if (threadIdx.x == 0) {place} = {reduction.value.name}_total;")
        self.context.blocks.add("part")
        return [
            "template <int WORD> static __global__ void __launch_bounds__(THREADS)",
            f"{self.prefix}_part{level}({self.parameters}, int known_parts) {{",
            "    constexpr int SLOTS = UNROLL;",
            f"    constexpr bool ONCE = {'false' if self.keeps else 'STREAM'};",
            "    (void)ONCE;",
            "    __shared__ __align__(16) char exchange[2 * (THREADS / 32) * 16];",
            "    simt::Group<THREADS, THREADS> group(exchange);",
            "    const int64_t row = blockIdx.y;",
            "    (void)row, (void)group, (void)known_parts;",
            *indent([*call.lines, *row.lines]),
            "}", "",
        ]  # fmt: skip

    def _known(self, level: int) -> list[str]:
        """Results of earlier levels from their parts."""
        lines: list[str] = []
        for reduction in self.nest.reductions:
            if reduction.level >= level:
                continue
            name, kind = reduction.value.name, reductions.c_type(reduction)
            call, place = reductions.combine(reduction, self.context), self._parts_of(reduction)
            lines += [
                f"{kind} {name}_total = {reductions.identity(reduction)};",
                "for (int n = threadIdx.x; n < known_parts; n += THREADS)",
                f"    {name}_total = {call}({name}_total, {place}[row * known_parts + n]);",
                f"{name}_total = group.across({name}_total, {call});",
                reductions.settle(reduction),
            ]
        return lines

    # -- launches ------------------------------------------------------------------------------

    def _wide(self, columns: list[str]) -> str:
        needed = dict.fromkeys([*columns, *self.alignment.extents])
        return " && ".join(f"({text}) % WIDTH == 0" for text in needed) or "true"

    def _launches(self, levels: range) -> list[str]:
        extents = [_last(s.columns) for s in self.sweeps]
        longest = [_count(s.columns) for s in self.sweeps]
        fits = " && ".join(
            f"{n} <= (int64_t)KEEP * (THREADS / ROWS) * WIDTH" for n in dict.fromkeys(longest)
        )
        arguments = self.arguments
        rows = f"dim3((unsigned)((rows + ROWS - 1) / ROWS)), THREADS, 0, stream, {arguments}"
        one = f"simt::launch({self.prefix}_rows<{{0}}>, {rows})"
        if self.keeps:
            once = f"KEEP > 0 && {fits} ? {one.format('WIDTH, (KEEP > 0)')} : "
            whole = f"{once}{one.format('WIDTH, false')}"
            single = one.format("1, false")
        else:
            whole, single = one.format("WIDTH"), one.format("1")
        grid = "dim3((unsigned)parts_of_row, (unsigned)rows), THREADS, 0, stream, "
        lines = [
            "{",
            f"    const int64_t rows = {self.row_count}, "
            f"longest = simt::longest({{{', '.join(longest)}}});",
            f"    const bool wide = {self._wide(extents)};",
            f"    const int64_t parts_of_row = simt::parts(rows, longest, {FEW_ROWS}, {PARTS}, "
            "(int64_t)THREADS * (wide ? WIDTH : 1) * UNROLL);",
            "    int failed = 0;",
            "    if (rows > 0 && parts_of_row > 1) {",
        ]
        before = "0"
        for level in levels:
            stored = any(s.level == level and s.columns for s in self.nest.stores)
            reduced = any(r.level == level for r in self.nest.reductions)
            if not (stored or reduced or any(s.level == level for s in self.nest.stores)):
                continue
            use = grid if stored or reduced else grid.replace("parts_of_row", "1", 1)
            kernel = f"{self.prefix}_part{level}"
            lines += [
                f"        if (!failed) failed = wide ? simt::launch({kernel}<WIDTH>, {use}"
                f"{arguments}, (int){before})",
                f"            : simt::launch({kernel}<1>, {use}{arguments}, (int){before});",
            ]
            before = "parts_of_row"
        lines += [
            "    } else if (rows > 0) {",
            f"        failed = wide ? ({whole}) : {single};",
            "    }",
            "    if (failed) return failed;",
            "}",
        ]
        return lines

    # -- pointwise -----------------------------------------------------------------------------

    def _pointwise(self) -> list[str]:
        """Words are divided among threads wherever rows begin and end."""
        self.context.blocks |= {"sweep", "wide", "launch"}
        call = Scope(self.context, None, [])
        if not self.sweeps:
            return self._single(call)
        sweep, rows = self.sweeps[0], self.nest.rows
        extent = dimension_to_c(sweep.columns[0].extent)
        row = Scope(self.context, call, [])
        writer = _FlatWriter(self.context, self.nest, self.alignment, False)
        writer.row_axes = self._row_axes("row")
        lines = writer.write(row, sweep, "first, last, THREADS * WORD")
        lines = [line.replace("simt::sweep<false,", "simt::sweep<true,") for line in lines]
        self.kernels += [
            "template <int WORD> static __global__ void __launch_bounds__(THREADS)",
            f"{self.prefix}_words({self.parameters}, int64_t begin, int64_t last) {{",
            "    constexpr int SLOTS = UNROLL;",
            "    constexpr bool ONCE = STREAM;",
            "    (void)ONCE;",
            "    const int64_t first = begin +",
            "        ((int64_t)blockIdx.x * (THREADS * UNROLL) + threadIdx.x) * WORD;",
            *indent([*call.lines, *row.lines, *lines]),
            "}", "",
        ]  # fmt: skip
        total = f"({self.row_count}) * {extent}"
        whole = "total / WIDTH * WIDTH" if not rows else "total"
        launch = (
            f"simt::launch({self.prefix}_words<{{0}}>, dim3((unsigned)simt::blocks({{1}}, "
            f"(int64_t)THREADS * UNROLL * {{0}})), THREADS, 0, stream, {self.arguments}, {{2}})"
        )
        rest = launch.format("1", "total - whole", "whole, total")
        return [
            "{",
            f"    const int64_t total = {total};",
            f"    const int64_t whole = {self._wide([extent] if rows else [])} ? {whole} : 0;",
            f"    int failed = whole > 0 ? {launch.format('WIDTH', 'whole', '(int64_t)0, whole')} "
            ": 0;",
            f"    if (!failed && whole < total) failed = {rest};",
            "    if (failed) return failed;",
            "}",
        ]

    def _single(self, call: Scope) -> list[str]:
        """Outputs of one element."""
        self._row_stores(call, 0, "threadIdx.x == 0")
        self.kernels += [
            f"static __global__ void {self.prefix}_single({self.parameters}) {{",
            *indent(call.lines),
            "}", "",
        ]  # fmt: skip
        launch = f"simt::launch({self.prefix}_single, dim3(1), 32, 0, stream, {self.arguments})"
        return [f"if (const int failed = {launch}) return failed;"]


class _FlatWriter(SweepWriter):
    """Sweeps over rows and columns at once: `at` counts elements from the first row on."""

    row_axes: list[str]
    """Statements that name the axes of `row`."""

    def _axes(self, sweep: Sweep) -> list[str]:
        return [*(b.axis for b in self.nest.rows), "row", *super()._axes(sweep)]

    def _place(self, columns: tuple[Bound, ...], index: str) -> list[str]:
        if not self.nest.rows:
            return super()._place(columns, index)
        extent, name = dimension_to_c(columns[0].extent), self.context.axis_names[columns[0].axis]
        self.context.blocks.add("division")
        return [
            f"const int64_t row = simt::quotient(at, {extent});",
            f"const int64_t {name} = {index} - row * ({extent});",
            f"(void){name};",
            *self.row_axes,
        ]


def _count(bounds: tuple[Bound, ...]) -> str:
    texts = [dimension_to_c(b.extent) for b in bounds]
    texts = [f"({t})" if "+" in t or "-" in t else t for t in texts]
    return " * ".join(texts) or "INT64_C(1)"


def _last(bounds: tuple[Bound, ...]) -> str:
    return dimension_to_c(bounds[-1].extent)


def _axis_name(extent: str) -> str:
    """A short name for an axis: `t` for T, `i` for what is not a name."""
    return extent.lower() if extent.isidentifier() and len(extent) <= 2 else "i"
