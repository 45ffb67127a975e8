"""Writes one nest of a rowwise plan: the parallel loop over rows and its sweeps.

A row that is too long for one thread, or too lonely, is shared by the team: every thread sweeps
its own columns and the partial results are exchanged. Which of the two happens is decided when
the kernel runs, from the number of rows.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kernelwright.codegen.emit import Context, Scope, Value, bare
from kernelwright.codegen.functions import HEAVY, float_text
from kernelwright.expr.nodes import Apply, Axis, Load, Node, walk
from kernelwright.expr.polynomial import ONE
from kernelwright.expr.rowwise import Bound, Nest, Reduction, Store, stride_of
from kernelwright.model import Dtype
from kernelwright.model.dimensions import dimension_to_c

_SERIAL_BELOW = 16384
"""Elements below which waking the team costs more than it saves."""


@dataclass(frozen=True)
class Sweep:
    """Work of one level over the same columns."""

    level: int
    columns: tuple[Bound, ...]
    reductions: tuple[Reduction, ...]
    stores: tuple[Store, ...]

    @property
    def axis(self) -> str:
        """The vectorised axis."""
        return self.columns[-1].axis

    @property
    def roots(self) -> list[Node]:
        """All terms computed."""
        return [work.body for work in (*self.reductions, *self.stores)]


def sweeps(nest: Nest) -> tuple[Sweep, ...]:
    """The sweeps of a nest in order."""
    found: list[Sweep] = []
    for level in range(nest.levels):
        work = [w for w in (*nest.reductions, *nest.stores) if w.level == level and w.columns]
        for columns in dict.fromkeys(w.columns for w in work):
            mine = [w for w in work if w.columns == columns]
            reductions = tuple(w for w in mine if isinstance(w, Reduction))
            stores = tuple(w for w in mine if isinstance(w, Store))
            found.append(Sweep(level, columns, reductions, stores))
    return tuple(found)


def cached_terms(nest: Nest) -> dict[Node, tuple[Bound, ...]]:
    """Terms worth keeping for a later sweep: shared along the same columns and not just a load."""
    found: dict[Node, tuple[Bound, ...]] = {}
    before: dict[tuple[Bound, ...], set[Node]] = {}
    for sweep in sweeps(nest):
        known = before.setdefault(sweep.columns, set())
        stack, seen = list(sweep.roots), set[Node]()
        while stack:
            node = stack.pop()
            if node in seen or isinstance(node, Load):
                continue
            seen.add(node)
            if node in known and _worth_keeping(node, sweep.axis):
                found[node] = sweep.columns
            else:
                stack.extend(node.children)
        known.update(walk(*sweep.roots))
    return found


def _worth_keeping(node: Node, axis: str) -> bool:
    if not isinstance(node, Apply):
        return False
    inside = [n for n in walk(node) if isinstance(n, Load | Apply)]
    varying = [n for n in inside if _varies(n, axis)]
    loads = sum(isinstance(n, Load) for n in varying)
    heavy = sum(HEAVY.get(n.op, 0) for n in varying if isinstance(n, Apply))
    return loads > 1 or heavy > 6


def _varies(node: Node, axis: str) -> bool:
    return any(n is Axis(axis) for n in walk(node))


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
            f"        split ? simd::Range{{0, {self.row_count}}} : simd::share({self.row_count}, 1);",
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
                lines = self._scalar_store(scope, store)
                scope.lines += [f"if (leader) {lines}"]

    def _scalar_store(self, scope: Scope, store: Store) -> str:
        value = scope.value(store.body)
        dtype = self.context.dtypes[store.tensor]
        offset = scope.offset_text(scope.offset(store.offset))
        if dtype.is_float:
            scope.need("scalars_f16" if dtype is Dtype.F16 else "scalars")
            pointer = store.tensor if offset == "0" else f"{store.tensor} + {offset}"
            return f"simd::put({pointer}, {scope.as_float(value).text});"
        value = scope.as_bool(value) if dtype is Dtype.BOOL else scope.as_int(value, 64)
        return f"{store.tensor}[{offset}] = ({dtype.c_type})({value.text});"

    def _blocked(self, call: Scope) -> list[str]:
        """Several rows at once: what they share is loaded once, and more loads are in flight."""
        self.features.add("ROWS")
        sweep, bound = self.sweeps[0], self.nest.rows[0]
        name = self.context.axis_names[bound.axis]
        outer = Scope(self.context, call, [])
        per_row = Scope(self.context, outer, [bound.axis, "row"])
        vector = Scope(self.context, per_row, [sweep.axis], sweep.axis)
        offers = [self._accumulate(vector, r, "[nth][acc]") for r in sweep.reductions]
        inner = [f"const int64_t {name} = base + nth;", *per_row.lines, *self._prefetches(vector)]
        inner += [*vector.lines, *offers]
        final = Scope(self.context, outer, [bound.axis, "row"])
        final.lines.append(f"const int64_t {name} = base + nth;")
        for reduction in sweep.reductions:
            self._finish(final, reduction, "[nth]")
        self._row_stores(final, 0)
        self._row_stores(final, 1)
        settle = self._settle(sweep, "[nth]")
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
        lines += _indent([self._declare(r, "[rows_at_once]") for r in sweep.reductions])
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
            f"for (; {name} < mine.end; ++{name}) block(std::integral_constant<int, 1>{{}}, {name});",
        ]
        return [*outer.lines, *lines]

    # -- a sweep -------------------------------------------------------------------------------

    def _part(self, columns: tuple[Bound, ...]) -> str:
        """The name of a thread's own columns of a row."""
        return f"{self.context.axis_names[columns[0].axis]}_part"

    def _parts(self) -> list[str]:
        parts = {self._part(s.columns): dimension_to_c(s.columns[0].extent) for s in self.sweeps}
        return [
            f"    const simd::Range {name} = split ? simd::share({extent}, 64) : simd::Range{{0, {extent}}};"
            for name, extent in parts.items()
        ]

    def _sweep(self, row: Scope, sweep: Sweep) -> None:
        """One sweep inside a row: declarations, loops, results."""
        row.lines += ["", f"// {self._describe(sweep)}"]
        row.lines += [self._declare(r, "") for r in sweep.reductions]
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
            self._finish(row, reduction, "")

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
        offers = [self._accumulate(vector, r, "[acc]") for r in sweep.reductions]
        writes = [line for s in sweep.stores for line in self._store(vector, s)]
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
        settle = self._settle(sweep, "")
        tail = f"}}, [&] {{ {settle} }});" if settle else "});"
        stream = next((s for s in sweep.stores if self._streams(s, sweep)), None)
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

    # -- reductions ----------------------------------------------------------------------------

    def _is_blocked_sum(self, reduction: Reduction) -> bool:
        return reduction.op == "sum" and reduction.value.kind == "float"

    def _settle(self, sweep: Sweep, index: str) -> str:
        if sweep.stores:
            return ""
        sums = [r for r in sweep.reductions if self._is_blocked_sum(r)]
        return " ".join(f"{r.value.name}_lanes{index}.settle();" for r in sums)

    def _declare(self, reduction: Reduction, rows: str) -> str:
        """The accumulators of a reduction."""
        name, op = f"{reduction.value.name}_lanes", reduction.op
        if op in ("argmax", "argmin"):
            self.context.blocks.add("best")
            return f"simd::best<{1 if op == 'argmax' else -1}> {name}{rows}[UNROLL];"
        self.context.blocks.add("across")
        if self._is_blocked_sum(reduction):
            self.context.blocks.add("blocked_sum")
            return f"simd::blocked_sum<UNROLL> {name}{rows};"
        identity = self._identity(reduction)
        kind = "floats" if reduction.value.kind == "float" else "longs"
        kind = "ints" if reduction.value.kind == "bool" else kind
        if rows:
            loops = "for (auto& row_lanes : {0}) for (auto& lane : row_lanes) lane = {1};"
        else:
            loops = "for (auto& lane : {0}) lane = {1};"
        return f"simd::{kind} {name}{rows}[UNROLL]; " + loops.format(name, identity)

    def _identity(self, reduction: Reduction) -> str:
        kind, op = reduction.value.kind, reduction.op
        if kind == "bool":
            return "simd::splat(true)" if op == "all" else "simd::splat(false)"
        if kind == "int":
            values = {"sum": "0", "prod": "1", "max": "INT64_MIN", "min": "INT64_MAX"}
            return f"simd::splat((int64_t){values[op]})"
        values = {"sum": 0.0, "prod": 1.0, "max": float("-inf"), "min": float("inf")}
        return f"simd::splat({float_text(values[op])})"

    def _operand(self, scope: Scope, reduction: Reduction) -> str:
        value = scope.value(reduction.body)
        if reduction.op in ("argmax", "argmin"):
            return scope.spread(scope.as_float(value)).text
        if reduction.value.kind == "float":
            value = scope.as_float(value)
        elif reduction.value.kind == "bool":
            value = scope.as_bool(value)
        else:
            value = scope.as_int(value, 64)
        return scope.spread(value).text

    def _accumulate(self, scope: Scope, reduction: Reduction, index: str) -> str:
        """The statement that takes one vector into the accumulators."""
        name, op, operand = (
            f"{reduction.value.name}_lanes",
            reduction.op,
            self._operand(scope, reduction),
        )
        if op in ("argmax", "argmin"):
            column = self.context.axis_names[reduction.columns[-1].axis]
            return f"{name}{index}.offer({operand}, {column}, lanes);"
        identity = self._identity(reduction)
        if self._is_blocked_sum(reduction):
            row = index.removesuffix("[acc]")
            return f"{name}{row}.add(acc, simd::keep({operand}, {identity}, lanes));"
        target, kept = f"{name}{index}", f"simd::keep({operand}, {identity}, lanes)"
        if op in ("max", "min"):
            self.context.blocks |= {"extremes", "across_extremes"}
            # a greater or NaN operand is rare: it goes first, so that NaN stays
            return f"{target} = simd::{op}imum({kept}, {target});"
        symbol = {"sum": "+", "prod": "*", "any": "|", "all": "&"}[op]
        return f"{target} {symbol}= {kept};"

    def _finish(self, scope: Scope, reduction: Reduction, index: str) -> None:
        """Combine lanes, accumulators and, where a row is split, threads."""
        name, op, kind = reduction.value.name, reduction.op, reduction.value.kind
        lanes = f"{name}_lanes{index}"
        if op in ("argmax", "argmin"):
            sign = 1 if op == "argmax" else -1
            scope.lines += [
                f"simd::winner {name}_best = simd::best<{sign}>::across({lanes});",
                f"if (split) {name}_best = simd::across_team(team, turn, {name}_best, simd::best_of<{sign}>{{}});",
                f"const int64_t {name} = {name}_best.index;",
            ]
            return
        combine = {"sum": "plus_of", "prod": "times_of", "max": "greater_of", "min": "lesser_of",
                   "any": "either_of", "all": "both_of"}[op]  # fmt: skip
        total = (
            f"{lanes}.total()"
            if self._is_blocked_sum(reduction)
            else (f"simd::across({lanes}, simd::{combine}{{}})")
        )
        kind_c = {"float": "float", "int": "int64_t", "bool": "int32_t"}[kind]
        scope.lines += [
            f"{kind_c} {name} = {total};",
            f"if (split) {name} = simd::across_team(team, turn, {name}, simd::{combine}{{}});",
        ]

    # -- stores --------------------------------------------------------------------------------

    def _streams(self, store: Store, sweep: Sweep) -> bool:
        """Whether whole lines of this output can be written: it advances by one per column."""
        dtype = self.context.dtypes[store.tensor]
        offset = self.context.integers.polynomial(store.offset)
        lead = next(
            (
                s
                for s in sweep.stores
                if self.context.dtypes[s.tensor] in _STREAMED
                and stride_of(self.context.integers.polynomial(s.offset), sweep.axis) == ONE
            ),
            None,
        )
        if lead is None or dtype not in _STREAMED:
            return False
        same = offset == self.context.integers.polynomial(lead.offset)
        return same and dtype.itemsize == self.context.dtypes[lead.tensor].itemsize

    def _store(self, scope: Scope, store: Store) -> list[str]:
        """The statements that write one vector of an output."""
        sweep = next(s for s in self.sweeps if store in s.stores)
        value = scope.value(store.body)
        dtype = self.context.dtypes[store.tensor]
        offset = scope.offset(store.offset)
        contiguous = stride_of(offset, sweep.axis) == ONE
        if dtype.is_float:
            value = scope.spread(scope.as_float(value))
        elif dtype is Dtype.BOOL:
            value = scope.spread(scope.as_bool(value))
        else:
            value = scope.spread(scope.as_int(value, 64 if dtype is Dtype.I64 else value.width))
        if contiguous and dtype in _STREAMED:
            suffix = {Dtype.F32: "floats", Dtype.BF16: "bf16", Dtype.F16: "f16"}[dtype]
            streams = self._streams(store, sweep)
            scope.need(f"{'write' if streams else 'store'}_{suffix}")
            if streams:
                self.features.add("STREAM")
            verb = "write" if streams else "store"
            return [
                f"simd::{verb}({scope.address(store.tensor, offset)}, {bare(value.text)}, lanes);"
            ]
        if contiguous and not dtype.is_float:
            scope.need("integers")
            text = f"-{value.text}" if dtype is Dtype.BOOL else value.text
            return [f"simd::store_as({scope.address(store.tensor, offset)}, {text}, lanes);"]
        return self._scatter(scope, store, value, dtype, sweep.axis)

    def _scatter(
        self, scope: Scope, store: Store, value: Value, dtype: Dtype, axis: str
    ) -> list[str]:
        name = scope.local("result")
        column = self.context.axis_names[axis]
        offset = scope.offset_text(scope.offset(store.offset), {axis: f"({column} + lane)"})
        lines = [f"const {scope.type_of(value)} {name} = {bare(value.text)};"]
        loop = "for (int64_t lane = 0; lane < lanes.count; ++lane)"
        if dtype.is_float:
            scope.need("scalars_f16" if dtype is Dtype.F16 else "scalars")
            return [*lines, f"{loop} simd::put({store.tensor} + {offset}, {name}[lane]);"]
        sign = "-" if dtype is Dtype.BOOL else ""
        return [*lines, f"{loop} {store.tensor}[{offset}] = ({dtype.c_type})({sign}{name}[lane]);"]

    # -- pointwise -----------------------------------------------------------------------------

    def _pointwise(self, call: Scope) -> list[str]:
        """Elements are divided evenly, wherever rows begin and end."""
        self.context.blocks.add("parallel")
        rows = self.nest.rows
        if not self.sweeps:
            scope = Scope(self.context, call, [])
            stores = [self._scalar_store(scope, store) for store in self.nest.stores]
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


_STREAMED = (Dtype.F32, Dtype.BF16, Dtype.F16)


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
