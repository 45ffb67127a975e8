"""Writes one nest of a rowwise plan: the parallel loop over rows and its sweeps.

A row that is too long for one thread, or too lonely, is shared by the team: every thread sweeps
its own columns and the partial results are exchanged. Which of the two happens is decided when
the kernel runs, from the number of rows.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kernelwright.codegen.accumulators import Accumulators
from kernelwright.codegen.emit import Context, Scope, Value, bare
from kernelwright.codegen.stores import Stores
from kernelwright.codegen.sweeps import Sweep, cached_terms, sweeps
from kernelwright.expr.nodes import Node, walk
from kernelwright.expr.rowwise import Bound, Nest, stride_of
from kernelwright.model.dimensions import dimension_to_c

_SERIAL_BELOW = 16384
"""Elements below which waking the team costs more than it saves."""


@dataclass
class NestWriter:
    """Emits one nest; afterwards `features` says which tunables have an effect."""

    context: Context
    nest: Nest
    features: set[str] = field(default_factory=set[str])

    def __post_init__(self) -> None:
        """Name the axes and look for shared terms."""
        context, nest = self.context, self.nest
        context.row_values |= {r.value for r in nest.reductions}
        self.sweeps = sweeps(nest)
        self.accumulators = Accumulators(context)
        self.stores = Stores(context, self.features)
        self.kept = list(cached_terms(nest))
        self.kept = [n for n in self.kept if context.kinds.of(n) == "float"]
        self.kept_columns = cached_terms(nest)
        for bound in (*nest.rows, *(b for s in self.sweeps for b in s.columns)):
            if bound.axis not in context.axis_names:
                context.axis_names[bound.axis] = context.fresh(_axis_name(bound.extent))
        self.row_blocks = self._blocks_rows()

    def _blocks_rows(self) -> bool:
        """Whether several rows are reduced at once: one level of reductions, outputs per row."""
        nest = self.nest
        return (
            bool(nest.rows)
            and len(self.sweeps) == 1
            and not self.sweeps[0].stores
            and len(self.sweeps[0].columns) == 1
            and len(nest.rows) == 1
        )

    # -- the loop over rows --------------------------------------------------------------------

    def write(self, call: Scope) -> list[str]:
        """The parallel region; `call` is the scope of the whole call."""
        rows = [b.extent for b in self.nest.rows]
        count = " * ".join(
            f"({e})" if "+" in e or "-" in e else e for e in map(dimension_to_c, rows)
        )
        self.row_count = count or "1"
        self.longest = " * ".join(dimension_to_c(b.extent) for b in self._widest())
        if not self.nest.reductions:
            return self._pointwise(call)
        body = self._blocked(call) if self.row_blocks else self._rows(call)
        self.context.blocks |= {"team", "parallel"}
        lines = [
            "simd::Team team;",
            f"#pragma omp parallel num_threads(std::min(omp_get_max_threads(), simd::MAX_TEAM)) "
            f"if ({self.row_count} * {self.longest or '1'} > {_SERIAL_BELOW})",
            "{",
            "    // fewer rows than threads: the team shares each row",
            f"    const bool split = {self.row_count} < omp_get_num_threads();",
            *self._leader(),
            "    const simd::Range mine =",
            f"        split ? simd::Range{{0, {self.row_count}}} "
            f": simd::share({self.row_count}, 1);",
            *self._parts(),
            "    int turn = 0;",
            *self._scratch(),
            *_indent(body),
            *self._fence(),
            "}",
        ]
        return lines

    def _leader(self) -> list[str]:
        if all(store.columns for store in self.nest.stores):
            return []
        return ["    const bool leader = !split || omp_get_thread_num() == 0;"]

    def _widest(self) -> tuple[Bound, ...]:
        return max((s.columns for s in self.sweeps), key=len, default=())

    def _scratch(self) -> list[str]:
        if not self.kept:
            return []
        self.features.add("CACHE_ROW")
        size = f"{len(self.kept)} * kept_row({', '.join(self._dimensions())})"
        return [
            "    float* scratch = (float*)workspace;",
            f"    if (CACHE_ROW && !split) scratch += omp_get_thread_num() * {size};",
        ]

    def _dimensions(self) -> tuple[str, ...]:
        signature = self.context.signature
        return (*signature.dimensions, *(s.name for s in signature.scalars))

    def _fence(self) -> list[str]:
        if "STREAM" not in self.features:
            return []
        return ["    if (STREAM) simd::stream_fence();"]

    def _row_lines(self, index: str) -> list[str]:
        """Names of the row axes from the number of the row."""
        rows, lines = self.nest.rows, list[str]()
        rest = index
        for bound in reversed(rows[1:]):
            name, extent = self.context.axis_names[bound.axis], dimension_to_c(bound.extent)
            lines.append(f"const int64_t {name} = {rest} % {extent};")
            rest = f"{rest} / {extent}"
        if rows and self.context.axis_names[rows[0].axis] != index:
            lines.append(f"const int64_t {self.context.axis_names[rows[0].axis]} = {rest};")
        return lines

    def _rows(self, call: Scope) -> list[str]:
        scope = Scope(self.context, call, [b.axis for b in self.nest.rows] + ["row"])
        single = len(self.nest.rows) == 1
        index = self.context.axis_names[self.nest.rows[0].axis] if single else "row"
        scope.lines += self._row_lines(index)
        for level in range(self.nest.levels):
            self._row_stores(scope, level)
            for sweep in (s for s in self.sweeps if s.level == level):
                self._sweep(scope, sweep)
        loop = f"for (int64_t {index} = mine.begin; {index} < mine.end; ++{index}) {{"
        return [loop, *_indent(scope.lines), "}"]

    def _row_stores(self, scope: Scope, level: int) -> None:
        for store in self.nest.stores:
            if store.level == level and not store.columns:
                lines = self.stores.scalar(scope, store)
                scope.lines += [f"if (leader) {lines}"]

    def _blocked(self, call: Scope) -> list[str]:
        """Several rows at once: what they share is loaded once, and more loads are in flight."""
        self.features.add("ROWS")
        sweep, bound = self.sweeps[0], self.nest.rows[0]
        name = self.context.axis_names[bound.axis]
        outer = Scope(self.context, call, [])
        per_row = Scope(self.context, outer, [bound.axis, "row"])
        vector = Scope(self.context, per_row, [sweep.axis], sweep.axis)
        offers = [self.accumulators.accumulate(vector, r, "[nth][acc]") for r in sweep.reductions]
        inner = [f"const int64_t {name} = base + nth;", *per_row.lines, *self._prefetches(vector)]
        inner += [*vector.lines, *offers]
        final = Scope(self.context, outer, [bound.axis, "row"])
        final.lines.append(f"const int64_t {name} = base + nth;")
        for reduction in sweep.reductions:
            self.accumulators.finish(final, reduction, "[nth]")
        self._row_stores(final, 0)
        self._row_stores(final, 1)
        settle = self.accumulators.settle(sweep, "[nth]")
        if settle:
            settle = (
                f", [&] {{ simd::unrolled<rows_at_once>([&](auto nth) INLINED {{ {settle} }}); }}"
            )
        column = self.context.axis_names[sweep.axis]
        step = [
            f"[&](int64_t {column}, auto lanes, auto acc) INLINED {{",
            "    simd::unrolled<rows_at_once>([&](auto nth) INLINED {",
            *_indent(inner, 2),
            "    });",
            f"}}{settle});",
        ]
        lines = [
            "const auto block = [&](auto nth_rows, int64_t base) INLINED {",
            "    constexpr int rows_at_once = nth_rows;",
        ]
        lines += _indent([self.accumulators.declare(r, "[rows_at_once]") for r in sweep.reductions])
        part = self._part(sweep.columns)
        lines += [
            f"    simd::sweep<UNROLL>({part}.begin, {part}.end, {step[0]}",
            *_indent(step[1:]),
        ]
        lines += [
            "    simd::unrolled<rows_at_once>([&](auto nth) INLINED {",
            *_indent(final.lines, 2),
            "    });",
            "};",
        ]
        lines += [
            f"int64_t {name} = mine.begin;",
            f"for (; {name} + ROWS <= mine.end; {name} += ROWS) "
            f"block(std::integral_constant<int, ROWS>{{}}, {name});",
            f"for (; {name} < mine.end; ++{name}) "
            f"block(std::integral_constant<int, 1>{{}}, {name});",
        ]
        return [*outer.lines, *lines]

    # -- a sweep -------------------------------------------------------------------------------

    def _part(self, columns: tuple[Bound, ...]) -> str:
        """The name of a thread's own columns of a row."""
        return f"{self.context.axis_names[columns[0].axis]}_part"

    def _parts(self) -> list[str]:
        parts = {self._part(s.columns): dimension_to_c(s.columns[0].extent) for s in self.sweeps}
        return [
            f"    const simd::Range {name} = "
            f"split ? simd::share({extent}, 64) : simd::Range{{0, {extent}}};"
            for name, extent in parts.items()
        ]

    def _sweep(self, row: Scope, sweep: Sweep) -> None:
        """One sweep inside a row: declarations, loops, results."""
        row.lines += ["", f"// {self._describe(sweep)}"]
        row.lines += [self.accumulators.declare(r, "") for r in sweep.reductions]
        outer = [b.axis for b in sweep.columns[:-1]]
        nested = Scope(self.context, row, outer) if outer else row
        vector = Scope(self.context, nested, [sweep.axis], sweep.axis)
        self._keep_terms(vector, sweep)
        inner = self._bodies(vector, sweep)
        part = self._part(sweep.columns)
        if outer:
            row.lines += self._outer_loops(sweep, nested, inner)
        else:
            row.lines += self._loop(sweep, f"{part}.begin", f"{part}.end", inner)
        vector.close()
        for reduction in sweep.reductions:
            self.accumulators.finish(row, reduction, "")

    def _outer_loops(self, sweep: Sweep, nested: Scope, inner: list[str]) -> list[str]:
        extent = dimension_to_c(sweep.columns[-1].extent)
        lines = [*nested.lines, *self._loop(sweep, "0", extent, inner)]
        for i, bound in reversed(list(enumerate(sweep.columns[:-1]))):
            name, limit = self.context.axis_names[bound.axis], dimension_to_c(bound.extent)
            part = self._part(sweep.columns)
            begin, end = (f"{part}.begin", f"{part}.end") if i == 0 else ("0", limit)
            lines = [
                f"for (int64_t {name} = {begin}; {name} < {end}; ++{name}) {{",
                *_indent(lines),
                "}",
            ]
        return lines

    def _bodies(self, vector: Scope, sweep: Sweep) -> list[str]:
        offers = [self.accumulators.accumulate(vector, r, "[acc]") for r in sweep.reductions]
        writes = [line for s in sweep.stores for line in self.stores.vector(vector, s, sweep)]
        hints = [*self._prefetches(vector), *self._ahead(vector, sweep)]
        self._seen_loads().update(load for load, _ in vector.loads)
        return [*hints, *vector.lines, *offers, *writes]

    def _describe(self, sweep: Sweep) -> str:
        names = [r.op for r in sweep.reductions] + [s.tensor for s in sweep.stores]
        column = ", ".join(self.context.axis_names[b.axis] for b in sweep.columns)
        return f"{', '.join(names)} along {column}"

    def _loop(self, sweep: Sweep, begin: str, end: str, inner: list[str]) -> list[str]:
        column = self.context.axis_names[sweep.axis]
        number = " acc" if sweep.reductions else ""
        head = f"[&](int64_t {column}, auto lanes, auto{number}) INLINED {{"
        settle = self.accumulators.settle(sweep, "")
        tail = f"}}, [&] {{ {settle} }});" if settle else "});"
        stream = next((s for s in sweep.stores if self.stores.streams(s, sweep)), None)
        call = f"simd::sweep<UNROLL>({begin}, {end}, {head}"
        if stream is not None:
            self.context.blocks.add("sweep_lines")
            scope = Scope(self.context, None, [])
            offset = scope.offset_text(
                scope.offset(stream.offset),
                {sweep.axis: begin},
            )
            call = f"simd::sweep_lines<UNROLL>({stream.tensor} + {offset}, {begin}, {end}, {head}"
            if settle:
                tail, begin = "});", begin
        return [call, *_indent(inner), tail]

    def _prefetches(self, vector: Scope) -> list[str]:
        """Prefetch what this sweep reads for the first time in the row."""
        lines: list[str] = []
        rows = {b.axis for b in self.nest.rows}
        for load, address in vector.loads:
            depends = self.context.depends(load)
            if (rows and not depends & rows) or load in self._seen_loads():
                continue
            self.features.add("PREFETCH")
            self.context.blocks.add("prefetch")
            lines.append(f"simd::prefetch({address});")
        return lines

    def _ahead(self, vector: Scope, sweep: Sweep) -> list[str]:
        """In the last sweep of a row, prefetch what the first one will read of the next row."""
        if len(self.sweeps) < 2 or sweep is not self.sweeps[-1] or len(self.nest.rows) != 1:
            return []
        lines: list[str] = []
        for load, address in vector.loads:
            step = stride_of(vector.offset(load.indices[0]), self.nest.rows[0].axis)
            if step is None or not step.terms or load not in self._seen_loads():
                continue
            self.features.add("AHEAD")
            self.context.blocks.add("ahead")
            lines.append(f"simd::prefetch_ahead({address} + {vector.offset_text(step)});")
        return lines

    def _seen_loads(self) -> set[Node]:
        if not hasattr(self, "_seen"):
            self._seen: set[Node] = set()
        return self._seen

    def _keep_terms(self, vector: Scope, sweep: Sweep) -> None:
        """Write kept terms to the scratch row in their first sweep, read them in later ones."""
        computed = set(walk(*sweep.roots))
        for slot, node in enumerate(self.kept):
            if self.kept_columns[node] != sweep.columns or node not in computed:
                continue
            index = self._scratch_index(sweep, slot)
            first = sweep is next(
                s for s in self.sweeps if s.columns == sweep.columns and node in set(walk(*s.roots))
            )
            vector.need("load_floats")
            vector.need("store_floats")
            vector.replaced[node] = self._keeper(vector, index) if first else self._reader(index)

    def _scratch_index(self, sweep: Sweep, slot: int) -> str:
        text = "0"
        for bound in sweep.columns:
            name, extent = self.context.axis_names[bound.axis], dimension_to_c(bound.extent)
            text = name if text == "0" else f"({text}) * {extent} + {name}"
        base = f"{slot} * kept_row({', '.join(self._dimensions())}) + " if slot else ""
        return f"scratch + {base}{text}"

    def _keeper(self, vector: Scope, index: str) -> Callable[[Value], Value]:
        def keep(value: Value) -> Value:
            name = vector.local("kept")
            vector.lines.append(f"const simd::floats {name} = {bare(value.text)};")
            vector.lines.append(f"if (CACHE_ROW) simd::store({index}, {name}, lanes);")
            return Value(name, "float", True)

        return keep

    @staticmethod
    def _reader(index: str) -> Callable[[Value], Value]:
        def read(value: Value) -> Value:
            return Value(f"CACHE_ROW ? simd::load({index}, lanes) : {value.text}", "float", True)

        return read

    # -- pointwise -----------------------------------------------------------------------------

    def _pointwise(self, call: Scope) -> list[str]:
        """Elements are divided evenly, wherever rows begin and end."""
        self.context.blocks.add("parallel")
        rows = self.nest.rows
        if not self.sweeps:
            scope = Scope(self.context, call, [])
            stores = [self.stores.scalar(scope, store) for store in self.nest.stores]
            return [*scope.lines, *stores]
        sweep = self.sweeps[0]
        row = Scope(self.context, call, [b.axis for b in rows] + ["row"])
        vector = Scope(self.context, row, [sweep.axis], sweep.axis)
        inner = self._bodies(vector, sweep)
        extent = dimension_to_c(sweep.columns[0].extent)
        total = f"{self.row_count} * {extent}" if rows else extent
        head = [
            f"#pragma omp parallel if ({total} > {_SERIAL_BELOW})",
            "{",
            f"    const simd::Range mine = simd::share({total}, 64);",
        ]
        if not rows:
            lines = [*row.lines, *self._loop(sweep, "mine.begin", "mine.end", inner)]
            return [*head, *_indent(lines), *self._fence(), "}"]
        lines = [
            f"const int64_t begin = std::max(mine.begin - row * {extent}, INT64_C(0));",
            f"const int64_t end = std::min(mine.end - row * {extent}, {extent});",
            *self._row_lines("row"),
            *row.lines,
            *self._loop(sweep, "begin", "end", inner),
        ]
        loop = f"for (int64_t row = mine.begin / {extent}; row * {extent} < mine.end; ++row) {{"
        return [*head, *_indent([loop, *_indent(lines), "}"]), *self._fence(), "}"]


def _axis_name(extent: str) -> str:
    """A short name for an axis: `t` for T, `i` for what is not a name."""
    return extent.lower() if extent.isidentifier() and len(extent) <= 2 else "i"


def _indent(lines: Sequence[str], depth: int = 1) -> list[str]:
    return [
        textwrap.indent(line, "" if line.startswith("#") else "    " * depth)
        for line in lines
        if line or depth == 1
    ]


def kept_row_text(writers: Sequence[NestWriter]) -> str | None:
    """The C expression of the length of a scratch row, or None when nothing is kept."""
    extents = {
        " * ".join(dimension_to_c(b.extent) for b in columns)
        for writer in writers
        for node, columns in writer.kept_columns.items()
        if node in writer.kept
    }
    if not extents:
        return None
    longest = "INT64_C(0)"
    for extent in sorted(extents):
        longest = extent if longest == "INT64_C(0)" else f"std::max<int64_t>({longest}, {extent})"
    return longest
