"""Writes the sweeps of a nest: words are loaded first, then worked on element by element."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from kernelwright.codegen.assemble import indent
from kernelwright.codegen.cuda import reductions
from kernelwright.codegen.cuda.wide import Alignment
from kernelwright.codegen.emit import Context, Scope, Value, bare
from kernelwright.codegen.sweeps import Sweep, cached_terms
from kernelwright.expr.nodes import Load, Node, walk
from kernelwright.expr.rowwise import Bound, Nest, Store
from kernelwright.model import Dtype
from kernelwright.model.dimensions import dimension_to_c


@dataclass
class SweepWriter:
    """Writes sweeps one after the other; what an earlier one loaded or computed may be kept."""

    context: Context
    nest: Nest
    alignment: Alignment
    keeps: bool
    """Whether a later sweep finds in registers what an earlier one left there, where KEPT."""
    held: dict[Node, str] = field(default_factory=dict[Node, str])
    kept: dict[Node, str] = field(default_factory=dict[Node, str])

    def write(self, row: Scope, sweep: Sweep, bounds: str) -> list[str]:
        """The statements of one sweep; `bounds` are first, last and step of a thread.

        Words that are declared for it go to the scope of the row.
        """
        loads = self.alignment.loads(sweep.roots, sweep.axis)
        fetches = [line for load in loads for line in self._fetch(row, load)]
        work = self._work(row, sweep, loads)
        kept = "KEPT" if self.keeps else "false"
        head = "[&](int64_t at, int slot) {"
        return [
            f"simt::sweep<{kept}, SLOTS>({bounds},",
            f"    {head}",
            *indent([*self._place(sweep.columns, "at"), *fetches, "(void)slot;"], 2),
            "    },",
            f"    {head}",
            *indent(work, 2),
            "    });",
        ]

    def _place(self, columns: tuple[Bound, ...], index: str) -> list[str]:
        """Names of the axes at a flat column."""
        names = [self.context.axis_names[b.axis] for b in columns]
        lines, rest = list[str](), index
        for bound, name in reversed(list(zip(columns[1:], names[1:], strict=True))):
            extent = dimension_to_c(bound.extent)
            self.context.blocks.add("division")
            lines.append(f"const int64_t {name}_rest = simt::quotient({rest}, {extent});")
            lines += [f"const int64_t {name} = {rest} - {name}_rest * ({extent});"]
            rest = f"{name}_rest"
        return [*lines, f"const int64_t {names[0]} = {rest};", f"(void){names[0]};"]

    def _axes(self, sweep: Sweep) -> list[str]:
        """Axes that have values inside of a sweep, beside those of the row."""
        return [b.axis for b in sweep.columns]

    # -- loads ---------------------------------------------------------------------------------

    def _fetch(self, row: Scope, load: Load) -> list[str]:
        scope = Scope(self.context, row, row.axes)
        address = scope.address(load.tensor, scope.offset(load.indices[0]))
        first = load not in self.held
        if first:
            self.held[load] = self.context.fresh(f"{load.tensor}_held")
            element = self.context.dtypes[load.tensor].c_type
            row.lines.append(f"simt::Wide<{element}, WORD> {self.held[load]}[SLOTS];")
        # what other rows read too stays in the caches
        rows = {b.axis for b in self.nest.rows}
        once = "ONCE" if not rows or self.context.depends(load) & rows else "false"
        line = f"simt::fetch<{once}>({self.held[load]}[slot], {address});"
        return [line if first or not self.keeps else f"if (!KEPT) {line}"]

    def _given(self, scope: Scope, load: Load) -> None:
        """Name the element of a word that was loaded."""
        dtype, kind = self.context.dtypes[load.tensor], self.context.kinds.of(load)
        place = f"{self.held[load]}[slot].at[v]"
        name = scope.local(f"{load.tensor}_at")
        if kind == "float":
            scope.need("scalars_f16" if dtype is Dtype.F16 else "scalars")
            line = f"const float {name} = simt::get(&{place});"
        elif kind == "bool":
            line = f"const bool {name} = {place} != 0;"
        else:
            line = f"const int64_t {name} = (int64_t){place};"
        scope.lines.append(line)
        scope.known[load] = Value(name, kind, width=64)

    # -- work ----------------------------------------------------------------------------------

    def _work(self, row: Scope, sweep: Sweep, loads: list[Load]) -> list[str]:
        axes = self._axes(sweep)
        scope = Scope(self.context, row, axes)
        for load in loads:
            self._given(scope, load)
        self._keep_terms(row, scope, sweep)
        wide = self.alignment.stores(sweep.stores, sweep.axis)
        statements: list[str] = []
        before, after = list[str](), list[str]()
        for reduction in sweep.reductions:
            statement = reductions.accumulate(scope, reduction)
            statements.append(statement)
        for store in sweep.stores:
            if store not in wide:
                statements += self._single(scope, store)
                continue
            name = self.context.fresh(f"{store.tensor}_word")
            element = self.context.dtypes[store.tensor].c_type
            before.append(f"simt::Wide<{element}, WORD> {name};")
            statements.append(self._put(scope, store, f"{name}.at[v]"))
            outside = Scope(self.context, row, axes)
            address = outside.address(store.tensor, outside.offset(store.offset))
            after.append(f"simt::write<STREAM>({address}, {name});")
        place = self._place(sweep.columns, "(at + v)")
        lines = [
            *before,
            "#pragma unroll",
            "for (int v = 0; v < WORD; ++v) {",
            *indent([*place, *scope.lines, *statements]),
            "}",
        ]
        if after:
            lines += ["{", *indent([*self._place(sweep.columns, "at"), *after]), "}"]
        scope.close()
        return [*lines, "(void)slot;"]

    def _put(self, scope: Scope, store: Store, place: str) -> str:
        dtype = self.context.dtypes[store.tensor]
        value = scope.value(store.body)
        if dtype.is_float:
            scope.need("scalars_f16" if dtype is Dtype.F16 else "scalars")
            return f"simt::put(&{place}, {bare(scope.as_float(value).text)});"
        value = scope.as_bool(value) if dtype is Dtype.BOOL else scope.as_int(value, 64)
        return f"{place} = ({dtype.c_type})({bare(value.text)});"

    def _single(self, scope: Scope, store: Store) -> list[str]:
        offset = scope.offset_text(scope.offset(store.offset))
        return [self._put(scope, store, f"{store.tensor}[{offset}]")]

    def _keep_terms(self, row: Scope, scope: Scope, sweep: Sweep) -> None:
        """Leave what a later sweep needs too in registers, and find it there."""
        if not self.keeps:
            return
        terms = cached_terms(self.nest)
        computed = set(walk(*sweep.roots))
        for node, columns in terms.items():
            if columns != sweep.columns or node not in computed:
                continue
            if self.context.kinds.of(node) != "float":
                continue
            if node in self.kept:
                scope.replaced[node] = self._found(self.kept[node])
                continue
            self.kept[node] = self.context.fresh("kept_term")
            row.lines.append(f"float {self.kept[node]}[SLOTS][WORD];")
            scope.replaced[node] = self._left(scope, self.kept[node])

    @staticmethod
    def _found(name: str) -> Callable[[Value], Value]:
        def read(value: Value) -> Value:
            return Value(f"KEPT && TERMS ? {name}[slot][v] : {value.text}", "float")

        return read

    @staticmethod
    def _left(scope: Scope, name: str) -> Callable[[Value], Value]:
        def keep(value: Value) -> Value:
            own = scope.local("term")
            scope.lines.append(f"const float {own} = {bare(value.text)};")
            scope.lines.append(f"if (KEPT && TERMS) {name}[slot][v] = {own};")
            return Value(own, "float")

        return keep
