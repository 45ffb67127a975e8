"""Kernels on grids with a border: rows in vectors, margins peeled off, several rows at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kernelwright.codegen.assemble import (
    INCLUDES,
    Tunables,
    indent,
    lane_choices,
    name_locals,
    toolchain_choices,
)
from kernelwright.codegen.contraction_lower import flat_loads
from kernelwright.codegen.emit import Context, Scope
from kernelwright.codegen.library import paste
from kernelwright.codegen.naming import renamed_sizes, without_reserved
from kernelwright.codegen.stores import Stores
from kernelwright.codegen.sweeps import Sweep
from kernelwright.expr.integers import Integers
from kernelwright.expr.nodes import (
    Apply,
    Axis,
    Constant,
    Load,
    Node,
    Program,
    substitute,
    transform,
)
from kernelwright.expr.powers import inverse_roots
from kernelwright.expr.pretty import pretty
from kernelwright.expr.rowwise import Bound, Store
from kernelwright.expr.stencil import Cell, Margin, StencilPlan, match
from kernelwright.model import Dtype, Family, Lineage, Machine
from kernelwright.model.dimensions import dimension_to_c

_SERIAL_BELOW = 16384
"""Cells below which waking the team costs more than it saves."""
_ROWS = (1, 2, 4)


def families(
    program: Program, dtype: Dtype, machine: Machine, sizes: Mapping[str, int], entry: str
) -> tuple[Family, ...]:
    """The stencil family; empty when the program treats no border of its grid apart."""
    program = without_reserved(program, entry)
    plan = match(program)
    signature = program.signature
    if plan is None or dtype is Dtype.F64:
        return ()
    context = Context(signature, dtype)
    writer = _Writer(context, plan)
    body = name_locals(writer.write(), context.fresh)
    known = renamed_sizes(sizes)
    written = sum(t.nbytes(known, dtype) for t in signature.outputs) if sizes else 0
    tunables = _tunables(machine, written > machine.l2_bytes, writer)
    source = "\n".join([
        f"// A stencil, {dtype} workloads:", "//",
        *(f"//     {line}" for line in pretty(program).splitlines()), "//",
        tunables.declarations(), "", INCLUDES, "", paste(context.blocks), "",
        f'extern "C" {signature.prototype(entry, dtype)} {{',
        "    (void)prepared, (void)workspace, (void)workspace_bytes, (void)stream;",
        *indent(body), "    return 0;", "}", "",
    ])  # fmt: skip
    lineage = Lineage("recipe", note="stencil")
    return (Family("stencil", "cpp", entry, source, lineage, tunables.defaults()),)


class _Writer:
    """Emits the loops over the rows of the grid."""

    def __init__(self, context: Context, plan: StencilPlan) -> None:
        self.context, self.plan = context, plan
        self.features: set[str] = set()
        self.stores = Stores(context, self.features)
        self.rows, self.column = plan.bounds[:-1], plan.bounds[-1]
        for bound in plan.bounds:
            context.axis_names[bound.axis] = context.fresh(_axis_name(bound.extent))
        context.blocks |= {"parallel", "vector"}

    def write(self) -> list[str]:
        """The parallel region."""
        extents = [f"({dimension_to_c(b.extent)})" for b in self.plan.bounds]
        count, width = " * ".join(extents[:-1]) or "1", extents[-1]
        margin = self.plan.margins[-1]
        border = self._border()
        several = [self._middle(n, "inside") for n in _ROWS[1:]] if self.rows else []
        blocks = [
            line
            for number, (n, lines) in enumerate(zip(_ROWS[1:], several, strict=False))
            for line in (f"#{'el' if number else ''}if ROWS == {n}", *lines)
        ]
        one = ["if (inside_rows) {", *indent(self._middle(1, "inside")), "} else {",
               *indent(self._middle(1, "in_columns")), "}"]  # fmt: skip
        choice = ["if ($several) {", *indent(blocks), "#endif", "} else"] if several else []
        fence = ["    if (STREAM) simd::stream_fence();"] if "STREAM" in self.features else []
        return [
            f"#pragma omp parallel if (({count}) * {width} > {_SERIAL_BELOW})",
            "{",
            f"    const simd::Range $mine = simd::share({count}, 1);",
            f"    const int64_t $begin = std::min<int64_t>({margin.before}, {width});",
            f"    const int64_t $end = std::max<int64_t>($begin, {width} - {margin.after});",
            *indent(border),
            "    for (int64_t $row = $mine.begin; $row < $mine.end;) {",
            *indent([*self._row_lines("$row"), *self._choose(width)], 2),
            "        for (int64_t $r = $row; $r < $row + $step; ++$r) {",
            "            for (int64_t $at = 0; $at < $begin; ++$at) $border($r, $at);",
            f"            for (int64_t $at = $end; $at < {width}; ++$at) $border($r, $at);",
            "        }",
            *indent([*choice, *one], 2),
            "        $row += $step;",
            "    }",
            *fence,
            "}",
        ]

    def _choose(self, width: str) -> list[str]:
        """Whether this row is inside of all margins, and how many are taken at once."""
        tests: list[str] = []
        for bound, margin in zip(self.rows, self.plan.margins, strict=False):
            name, extent = self.context.axis_names[bound.axis], dimension_to_c(bound.extent)
            tests += [f"{name} >= {margin.before}"] if margin.before else []
            tests += [f"{name} < {extent} - {margin.after}"] if margin.after else []
        lines = [f"const bool inside_rows = {' && '.join(tests) or 'true'};"]
        if not self.rows:
            return [*lines, "const int64_t $step = 1;"]
        last, margin = self.rows[-1], self.plan.margins[-2]
        name, extent = self.context.axis_names[last.axis], dimension_to_c(last.extent)
        sizes = {self.context.dtypes[c.tensor].itemsize for c in self.plan.cells}
        # streaming stores need every row of a block to begin at the same place in its line
        even = " && ".join(f"{width} * {size} % 64 == 0" for size in sorted(sizes))
        streams = f" && (!STREAM || ({even}))" if "STREAM" in self.features else ""
        return [
            *lines,
            "const bool $several = ROWS > 1 && inside_rows && $row + ROWS <= $mine.end &&",
            f"                      {name} + ROWS <= {extent} - {margin.after}{streams};",
            "const int64_t $step = $several ? ROWS : 1;",
        ]

    def _row_lines(self, index: str) -> list[str]:
        lines: list[str] = []
        for number, bound in reversed(list(enumerate(self.rows))):
            name, extent = self.context.axis_names[bound.axis], dimension_to_c(bound.extent)
            text = f"({index}) % ({extent})" if number else index
            lines.append(f"const int64_t {name} = {text};")
            index = f"({index}) / ({extent})"
        return [*lines, *(f"(void){self.context.axis_names[b.axis]};" for b in self.rows)]

    def _flat(self, node: Node, margins: Sequence[Margin]) -> Node:
        """Loads by flat offset; where an axis is inside its margin they need no clamping."""
        return inverse_roots(flat_loads(node, self.context.signature, inside_bounds(
            self.plan.bounds, margins)))  # fmt: skip

    def _target(self, cell: Cell) -> Node:
        load = Load(cell.tensor, tuple(Axis(b.axis) for b in self.plan.bounds))
        integers = Integers({b.axis: b.extent for b in self.plan.bounds})
        return flat_loads(load, self.context.signature, integers).children[0]

    def _border(self) -> list[str]:
        """One cell in scalars, right anywhere."""
        nothing = [Margin() for _ in self.plan.bounds]
        bodies = [self._flat(cell.anywhere, nothing) for cell in self.plan.cells]
        self.context.count_uses(bodies)
        scope = Scope(self.context, None, [b.axis for b in self.plan.bounds])
        name = self.context.axis_names[self.column.axis]
        stores = [
            self.stores.scalar(scope, Store(cell.tensor, self._target(cell), (), body, 0))
            for cell, body in zip(self.plan.cells, bodies, strict=True)
        ]
        head = f"const auto $border = [&](int64_t $row, int64_t {name}) {{"
        lines = [head, "    (void)$row;", *indent(self._row_lines("$row"))]
        return [*lines, *indent([*scope.lines, *stores]), "};"]

    def _middle(self, count: int, where: str) -> list[str]:
        """The middle of some rows in vectors; what the rows share is loaded once."""
        margins = list(self.plan.margins)
        if where == "in_columns":
            margins = [*(Margin() for _ in self.rows), margins[-1]]
        work: list[Store] = []
        for step in range(count):
            for cell in self.plan.cells:
                body = cell.inside if where == "inside" else cell.in_columns
                parts = [self._flat(body, margins), self._target(cell)]
                if step:
                    last = self.rows[-1].axis
                    moved: Node = Apply("add", (Axis(last), Constant(step)))
                    parts = [tidy(substitute(part, {last: moved})) for part in parts]
                work.append(Store(cell.tensor, parts[1], (self.column,), parts[0], 0))
        self.context.count_uses([store.body for store in work])
        row = Scope(self.context, None, [b.axis for b in self.rows])
        vector = Scope(self.context, row, [self.column.axis], self.column.axis)
        writes = [
            line
            for store in work
            for line in self.stores.vector(vector, store, Sweep(0, (self.column,), (), (store,)))
        ]
        name = self.context.axis_names[self.column.axis]
        sweep = "simd::sweep<UNROLL>("
        lead = next((s for s in work if self._streams(s)), None)
        if lead is not None:
            self.context.blocks.add("sweep_lines")
            offset = row.offset_text(row.offset(lead.offset), {self.column.axis: "$begin"})
            sweep = f"simd::sweep_lines<UNROLL>({lead.tensor} + {offset}, "
        body = [*self._prefetches(vector), *vector.lines, *writes]
        lines = [
            f"{sweep}$begin, $end, [&](int64_t {name}, auto lanes, auto) INLINED {{",
            *indent(body), "});",
        ]  # fmt: skip
        vector.close()
        return [*row.lines, *lines]

    def _streams(self, store: Store) -> bool:
        return self.stores.streams(store, Sweep(0, (self.column,), (), (store,)))

    def _prefetches(self, vector: Scope) -> list[str]:
        """Ask for what is read farthest ahead; everything nearer has been asked for before."""
        extents = {bound.axis: bound.extent for bound in self.plan.bounds}
        integers = Integers(extents)
        farthest: dict[str, tuple[Load, str]] = {}
        for load, address in vector.loads:
            found = farthest.get(load.tensor)
            if found is not None:
                ahead = vector.offset(load.indices[0]) - vector.offset(found[0].indices[0])
                if not integers.never_negative(ahead):
                    continue
            farthest[load.tensor] = (load, address)
        if farthest:
            self.features.add("PREFETCH")
            self.context.blocks.add("prefetch")
        return [f"simd::prefetch({address});" for _, address in farthest.values()]


def tidy(term: Node) -> Node:
    """Equal offsets as one term, so that equal loads are one."""
    integers = Integers({})

    def change(node: Node) -> Node:
        if isinstance(node, Load):
            return Load(node.tensor, (integers.node(integers.polynomial(node.indices[0])),))
        return node

    return transform(term, change)


def inside_bounds(bounds: Sequence[Bound], margins: Sequence[Margin]) -> Integers:
    """What is known of the axes where each is inside its margin."""
    integers = Integers({bound.axis: bound.extent for bound in bounds})
    for bound, margin in zip(bounds, margins, strict=True):
        integers.restrict(bound.axis, margin.before, margin.after)
    return integers


def _axis_name(extent: str) -> str:
    """A short name for an axis: `h` for H, `i` for what is not a name."""
    return extent.lower() if extent.isidentifier() and len(extent) <= 2 else "i"


def _tunables(machine: Machine, leaves_cache: bool, writer: _Writer) -> Tunables:
    choices: dict[str, tuple[int | str, ...]] = {
        "LANES": lane_choices(machine), "UNROLL": (1, 2, 4),
    }  # fmt: skip
    if writer.rows:
        choices["ROWS"] = _ROWS[::-1]
    if "STREAM" in writer.features:
        choices["STREAM"] = (1, 0) if leaves_cache else (0, 1)
    if "PREFETCH" in writer.features:
        choices["PREFETCH"] = (2048, 1024, 0, 4096, 8192)
    departures: tuple[dict[str, int | str], ...] = (
        {"ROWS": 2}, {"PREFETCH": 1024}, {"PREFETCH": 0}, {"UNROLL": 2}, {"ROWS": 1},
        {"PREFETCH": 4096}, {"ROWS": 2, "PREFETCH": 1024}, {"STREAM": 0}, {"STREAM": 1},
    )  # fmt: skip
    return Tunables(choices | toolchain_choices(machine), (), departures)
