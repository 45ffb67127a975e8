"""Kernels on grids with a border in CUDA C++: words along the columns, several rows at once.

A line of cells that several rows and neighbours read is loaded once, as a word and the cells on
both sides of it. Words that touch a margin are computed cell by cell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kernelwright.codegen.assemble import Tunables, indent, name_locals
from kernelwright.codegen.contraction_lower import flat_loads
from kernelwright.codegen.cuda.assemble import Source, arguments_of, parameters_of
from kernelwright.codegen.cuda.wide import Alignment
from kernelwright.codegen.dialects import CUDA
from kernelwright.codegen.emit import Context, Scope, Value, bare
from kernelwright.codegen.naming import without_reserved
from kernelwright.codegen.stencil import inside_bounds, tidy
from kernelwright.codegen.stores import Stores
from kernelwright.expr.integers import Integers
from kernelwright.expr.nodes import Apply, Axis, Constant, Load, Node, Program, substitute, walk
from kernelwright.expr.polynomial import ONE, Polynomial
from kernelwright.expr.powers import inverse_roots
from kernelwright.expr.pretty import pretty
from kernelwright.expr.rowwise import Store, stride_of
from kernelwright.expr.stencil import Cell, Margin, StencilPlan, match
from kernelwright.model import Dtype, Family, Lineage
from kernelwright.model.dimensions import dimension_to_c

_NAMES = frozenset({
    "WORD", "WIDTH", "THREADS", "ROWS", "STREAM", "simt", "v", "failed", "threadIdx", "blockIdx",
    "blockDim", "gridDim", "warpSize", "dim3",
})  # fmt: skip
_ROWS = (4, 2, 1, 8)
_WIDEST = 16


def families(
    program: Program, dtype: Dtype, sizes: Mapping[str, int], entry: str
) -> tuple[Family, ...]:
    """The stencil family; empty when the program treats no border of its grid apart."""
    del sizes
    program = without_reserved(program, entry, _NAMES)
    plan = match(program)
    signature = program.signature
    if plan is None or dtype is Dtype.F64 or len(plan.bounds) < 2:
        return ()
    context = Context(signature, dtype, CUDA)
    context.taken |= _NAMES
    context.blocks |= {"wide", "launch", "division"}
    writer = _Writer(context, plan, entry)
    kernel = name_locals(writer.kernel(), context.fresh)
    tunables = _tunables(dtype)
    source = Source(signature, context, tunables, entry, "A stencil")
    text = source.text(pretty(program), kernel, name_locals(writer.launch(), context.fresh))
    lineage = Lineage("recipe", note="stencil")
    return (Family("stencil", "cuda", entry, text, lineage, tunables.defaults()),)


@dataclass(frozen=True)
class _Line:
    """Neighbouring cells of a tensor, those around a word of columns."""

    tensor: str
    offset: Polynomial
    """Of the first cell of the word itself."""


class _Writer:
    """Emits the kernel and its launch."""

    def __init__(self, context: Context, plan: StencilPlan, entry: str) -> None:
        self.context, self.plan, self.entry = context, plan, entry
        self.alignment = Alignment(context)
        self.rows, self.column = plan.bounds[:-1], plan.bounds[-1]
        for bound in self.rows:
            context.axis_names[bound.axis] = context.fresh("i")
        context.axis_names[self.column.axis] = context.fresh("j")

    def kernel(self) -> list[str]:
        """The definition."""
        last, count = self.rows[-1], [dimension_to_c(b.extent) for b in self.plan.bounds]
        row, column = (self.context.axis_names[b.axis] for b in (last, self.column))
        parameters = parameters_of(self.context.signature, self.context)
        choices: list[str] = []
        for number, rows in enumerate(_ROWS):
            choices += [f"#{'el' if number else ''}if ROWS == {rows}", *self._inside(rows)]
        return [
            "template <int WORD> static __global__ void __launch_bounds__(THREADS)",
            f"{self.entry}_cells({parameters}, int64_t $words, int64_t $items) {{",
            "    const int64_t $item = (int64_t)blockIdx.x * THREADS + threadIdx.x;",
            "    if ($item >= $items) return;",
            "    const int64_t $tile = simt::quotient($item, $words);",
            "    const int64_t $start = ($item - $tile * $words) * WORD;",
            f"    const int64_t {column} = $start;",
            f"    const int64_t $tiles = (({count[-2]}) + ROWS - 1) / ROWS;",
            "    const int64_t $outer = simt::quotient($tile, $tiles);",
            f"    const int64_t {row} = ($tile - $outer * $tiles) * ROWS;",
            *indent(self._outer_axes()),
            f"    if ({' && '.join(self._tests(row, column))}) {{",
            *indent([*choices, "#endif"], 2),
            "        return;",
            "    }",
            f"    const int64_t $last_row = {row} + ROWS, $last_column = {column} + WORD;",
            f"    for (int64_t $r = {row}; $r < $last_row && $r < {count[-2]}; ++$r)",
            f"        for (int64_t $c = {column}; $c < $last_column && $c < {count[-1]}; ++$c) {{",
            *indent(self._anywhere(), 3),
            "        }",
            "}", "",
        ]  # fmt: skip

    def launch(self) -> list[str]:
        """The statements of the entry."""
        extents = [dimension_to_c(b.extent) for b in self.plan.bounds]
        outer = " * ".join(f"({e})" for e in extents[:-2]) or "1"
        arguments = arguments_of(self.context.signature)
        needed = dict.fromkeys([extents[-1], *self.alignment.extents])
        wide = " && ".join(f"({text}) % WIDTH == 0" for text in needed)
        launch = (
            f"simt::launch({self.entry}_cells<{{0}}>, dim3((unsigned)simt::blocks($items, "
            f"THREADS)), THREADS, 0, stream, {arguments}, $words, $items)"
        )
        return [
            f"const bool $wide = {wide};",
            f"const int64_t $words = simt::blocks({extents[-1]}, $wide ? WIDTH : 1);",
            f"const int64_t $items = $words * simt::blocks({extents[-2]}, ROWS) * {outer};",
            "if ($items < 1) return 0;",
            f"const int failed = $wide ? {launch.format('WIDTH')} : {launch.format('1')};",
            "if (failed) return failed;",
        ]

    def _outer_axes(self) -> list[str]:
        lines, rest = list[str](), "$outer"
        for bound in reversed(self.rows[1:-1]):
            name, extent = self.context.axis_names[bound.axis], dimension_to_c(bound.extent)
            lines += [f"const int64_t {name}_rest = simt::quotient({rest}, {extent});",
                      f"const int64_t {name} = {rest} - {name}_rest * ({extent});",
                      f"(void){name};"]  # fmt: skip
            rest = f"{name}_rest"
        if len(self.rows) > 1:
            name = self.context.axis_names[self.rows[0].axis]
            lines += [f"const int64_t {name} = {rest};", f"(void){name};"]
        return lines

    def _tests(self, row: str, column: str) -> list[str]:
        """Whether the whole tile is inside of all margins."""
        tests: list[str] = []
        for bound, margin in zip(self.plan.bounds, self.plan.margins, strict=True):
            name, extent = self.context.axis_names[bound.axis], dimension_to_c(bound.extent)
            size = {row: " + ROWS", column: " + WORD"}.get(name, " + 1")
            tests += [f"{name} >= {margin.before}"] if margin.before else []
            tests.append(f"{name}{size} <= ({extent}) - {margin.after}")
        return tests

    # -- bodies --------------------------------------------------------------------------------

    def _flat(self, node: Node, margins: Sequence[Margin]) -> Node:
        bounds = inside_bounds(self.plan.bounds, margins)
        return inverse_roots(flat_loads(node, self.context.signature, bounds))

    def _target(self, cell: Cell) -> Node:
        load = Load(cell.tensor, tuple(Axis(b.axis) for b in self.plan.bounds))
        integers = Integers({b.axis: b.extent for b in self.plan.bounds})
        return flat_loads(load, self.context.signature, integers).children[0]

    def _anywhere(self) -> list[str]:
        """One cell at `$r`, `$c`."""
        nothing = [Margin() for _ in self.plan.bounds]
        bodies = [self._flat(cell.anywhere, nothing) for cell in self.plan.cells]
        self.context.count_uses(bodies)
        scope = Scope(self.context, None, [b.axis for b in self.plan.bounds])
        stores = Stores(self.context, set())
        lines = [
            stores.scalar(scope, Store(cell.tensor, self._target(cell), (), body, 0))
            for cell, body in zip(self.plan.cells, bodies, strict=True)
        ]
        row, column = (self.context.axis_names[b.axis] for b in self.plan.bounds[-2:])
        inner = [*scope.lines, *lines]
        return [f"const int64_t {row} = $r, {column} = $c;", *inner]

    def _inside(self, rows: int) -> list[str]:
        """A word of each of some rows, inside of all margins."""
        work: list[tuple[Cell, Node, Node]] = []
        last = self.rows[-1].axis
        for step in range(rows):
            for cell in self.plan.cells:
                parts = [self._flat(cell.inside, self.plan.margins), self._target(cell)]
                if step:
                    moved: Node = Apply("add", (Axis(last), Constant(step)))
                    parts = [tidy(substitute(part, {last: moved})) for part in parts]
                work.append((cell, tidy(parts[0]), parts[1]))
        self.context.count_uses([body for _, body, _ in work])
        lines, known = self._lines([body for _, body, _ in work])
        declared, writes, stores = list[str](), list[str](), list[str]()
        axes = [b.axis for b in self.plan.bounds]
        scope = Scope(self.context, Scope(self.context, None, []), axes)
        scope.known.update(known)
        outside = Scope(self.context, None, axes)
        for cell, body, target in work:
            dtype = self.context.dtypes[cell.tensor]
            value = scope.value(body)
            name = self.context.fresh(f"{cell.tensor}_word")
            aligned = self.alignment.admits(target, self.column.axis)
            text = outside.offset_text(outside.offset(target))
            place = f"{name}.at[v]" if aligned else f"{cell.tensor}[{text} + v]"
            if aligned:
                declared.append(f"simt::Wide<{dtype.c_type}, WORD> {name};")
                address = outside.address(cell.tensor, outside.offset(target))
                writes.append(f"simt::write<STREAM>({address}, {name});")
            if dtype.is_float:
                self.context.blocks.add("scalars_f16" if dtype is Dtype.F16 else "scalars")
                stores.append(f"simt::put(&{place}, {bare(scope.as_float(value).text)});")
            else:
                stored = scope.as_bool(value) if dtype is Dtype.BOOL else scope.as_int(value, 64)
                stores.append(f"{place} = ({dtype.c_type})({bare(stored.text)});")
        call = scope.parent.lines if scope.parent else []
        column = self.context.axis_names[self.column.axis]
        return [
            *lines, *call, *declared,
            "#pragma unroll",
            "for (int v = 0; v < WORD; ++v) {",
            *indent([f"const int64_t {column} = $start + v;", f"(void){column};"]),
            *indent([*scope.lines, *stores]),
            "}",
            *writes,
        ]  # fmt: skip

    def _lines(self, bodies: list[Node]) -> tuple[list[str], dict[Node, Value]]:
        """Loads of all lines, and what stands for their cells."""
        reach: dict[_Line, Margin] = {}
        found: list[tuple[Load, _Line, int]] = []
        axis = self.column.axis
        for node in walk(*bodies):
            if not isinstance(node, Load) or self.context.dtypes[node.tensor].itemsize > 4:
                continue
            offset = self.context.integers.polynomial(node.indices[0])
            if stride_of(offset, axis) != ONE:
                continue
            shift = offset.terms.get((), 0)
            shift -= round(shift / _WIDEST) * _WIDEST
            line = _Line(node.tensor, offset - Polynomial.constant(shift))
            if not self.alignment.admits(self.context.integers.node(line.offset), axis):
                continue
            margin = Margin(max(-shift, 0), max(shift, 0))
            reach[line] = reach.get(line, Margin()).joined(margin)
            found.append((node, line, shift))
        names = {line: self.context.fresh(f"{line.tensor}_line") for line in reach}
        scope = Scope(self.context, None, [b.axis for b in self.plan.bounds])
        lines: list[str] = []
        for line, margin in reach.items():
            element = self.context.dtypes[line.tensor].c_type
            address, name = scope.address(line.tensor, line.offset), names[line]
            lines.append(f"const {element}* {name}_from = {address};")
            lines.append(f"simt::Wide<{element}, WORD> {name};")
            lines.append(f"simt::fetch<false>({name}, {name}_from);")
            around = [*range(-margin.before, 0), *range(margin.after)]
            for cell in around:
                place = f"{cell}" if cell < 0 else f"WORD + {cell}"
                lines.append(f"const {element} {name}_{_word(cell)} = {name}_from[{place}];")
        known: dict[Node, Value] = {}
        for node, line, shift in found:
            known[node] = self._cell(node, names[line], shift)
        return lines, known

    def _cell(self, node: Load, name: str, shift: int) -> Value:
        """A cell of a line at `v + shift`."""
        text = f"{name}.at[v{f' + {shift}' if shift > 0 else f' - {-shift}' if shift else ''}]"
        if shift < 0:
            for cell in range(shift, 0):
                # v + shift = cell
                text = f"v == {cell - shift} ? {name}_{_word(cell)} : {text}"
        for cell in range(shift):
            text = f"v + {shift} == WORD + {cell} ? {name}_{_word(cell)} : {text}"
        element, kind = self.context.dtypes[node.tensor], self.context.kinds.of(node)
        if kind == "float":
            self.context.blocks.add("scalars_f16" if element is Dtype.F16 else "scalars")
            return Value(f"simt::value({text})", "float")
        if kind == "bool":
            return Value(f"(({text}) != 0)", "bool")
        return Value(f"(int64_t)({text})", "int", width=64)


def _word(cell: int) -> str:
    return f"before{-cell}" if cell < 0 else f"after{cell + 1}"


def _tunables(dtype: Dtype) -> Tunables:
    choices: dict[str, tuple[int | str, ...]] = {
        "WIDTH": (8, 4) if dtype.itemsize == 2 else (4, 2), "ROWS": _ROWS,
        "THREADS": (256, 128, 512), "STREAM": (1, 0),
    }  # fmt: skip
    departures: tuple[dict[str, int | str], ...] = (
        {"ROWS": 8}, {"ROWS": 2}, {"THREADS": 128}, {"STREAM": 0}, {"THREADS": 128, "ROWS": 8},
        {"ROWS": 1},
    )  # fmt: skip
    return Tunables(choices, (), departures)
