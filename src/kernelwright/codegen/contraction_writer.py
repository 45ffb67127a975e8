"""Writes the part of a contraction that depends on the program: packing and epilogue."""

from __future__ import annotations

from collections.abc import Sequence

from kernelwright.codegen.assemble import indent, name_locals
from kernelwright.codegen.contraction_lower import FlatContraction, FlatResult
from kernelwright.codegen.emit import Context, Scope, Value
from kernelwright.expr.contraction import product_value
from kernelwright.expr.nodes import Apply, Axis, Load, Node, transform, walk
from kernelwright.expr.polynomial import ONE
from kernelwright.expr.rowwise import Bound, stride_of
from kernelwright.model import Dtype
from kernelwright.model.dimensions import dimension_to_c

_ROWS_AHEAD = 4
_FLOATS = {Dtype.F32: "floats", Dtype.BF16: "bf16", Dtype.F16: "f16"}
MEMBERS = frozenset({
    "products", "a_inner_k", "in_place", "batch_count", "row_count", "column_count",
    "depth_count", "Problem", "pack_a", "pack_b", "a_at", "b_at", "left_lies", "right_lies",
    "b_in_place", "b_stride", "epilogue", "contraction", "simd", "lanes", "lane", "ahead",
    "Row", "row_values",
})  # fmt: skip
"""Names that the written code cannot change; tensors and dimensions must have others."""


class ContractionWriter:
    """Emits `struct Problem`, which the block `contraction` is a template over."""

    def __init__(self, context: Context, flat: FlatContraction) -> None:
        """Name the axes and look at how the operands lie in memory."""
        self.context, self.flat = context, flat
        column = Axis(flat.columns[-1].axis)
        # a sum belongs to its row and column, so that no scope outside of both takes it
        place = (column, *(Axis(bound.axis) for bound in flat.rows))
        values = {product_value(n): Apply(f"product{n}", place) for n in range(len(flat.lefts))}
        self.results = [
            FlatResult(r.tensor, r.offset, transform(r.body, lambda n: values.get(n, n)))
            for r in flat.results
        ]
        self.values = list(values.values())
        context.taken |= MEMBERS
        for group in (flat.batch, flat.rows, flat.columns, flat.depth):
            for bound in group:
                context.axis_names[bound.axis] = context.fresh(bound.axis[0])
        context.count_uses(self._terms())
        context.blocks |= {"load_floats", "store_floats"}
        if any(isinstance(n, Apply) and n.op in ("floordiv", "mod") for n in walk(*self._terms())):
            context.blocks.add("floor_division")
        self.a_inner_k = not all(self._plain(t, flat.rows) for t in flat.lefts)

    def _terms(self) -> list[Node]:
        return [*self.flat.lefts, *self.flat.rights, *(r.body for r in self.results)]

    # -- how operands lie in memory --------------------------------------------------------------

    def _plain(self, term: Node, along: tuple[Bound, ...]) -> bool:
        """Whether an operand is a narrow or plain float load, contiguous along a lone axis."""
        if not isinstance(term, Load) or self.context.dtypes[term.tensor] not in _FLOATS:
            return False
        offset = self.context.integers.polynomial(term.indices[0])
        return len(along) == 1 and stride_of(offset, along[0].axis) == ONE

    def in_place(self) -> bool:
        """Whether the right operands can be read where they lie: float32 rows."""
        depth = self.flat.depth
        return len(depth) == 1 and all(
            isinstance(t, Load)
            and self.context.dtypes[t.tensor] is Dtype.F32
            and self._plain(t, self.flat.columns)
            and stride_of(self.context.integers.polynomial(t.indices[0]), depth[0].axis) is not None
            for t in self.flat.rights
        )

    def pairs(self) -> bool:
        """Whether all operands are bfloat16 as they lie, which pairwise dot products take."""
        operands = (*self.flat.lefts, *self.flat.rights)
        dtypes = self.context.dtypes
        return all(isinstance(t, Load) and dtypes[t.tensor] is Dtype.BF16 for t in operands)

    def right_is_static(self) -> bool:
        """Whether the right operands hold nothing but weights, which can be packed beforehand."""
        static = {tensor.name for tensor in self.context.signature.static_inputs}
        loaded = {node.tensor for node in walk(*self.flat.rights) if isinstance(node, Load)}
        return bool(loaded) and loaded <= static

    # -- the struct ------------------------------------------------------------------------------

    def write(self) -> list[str]:
        """The lines of `struct Problem`."""
        signature, context = self.context.signature, self.context
        fields = [f"const {t.resolve(context.dtype).c_type}* {t.name};" for t in signature.inputs]
        fields += [f"{t.resolve(context.dtype).c_type}* {t.name};" for t in signature.outputs]
        fields += [f"int64_t {name};" for name in signature.dimensions]
        fields += [f"{s.c_type} {s.name};" for s in signature.scalars]
        counts = {"batch_count": self.flat.batch, "row_count": self.flat.rows,
                  "column_count": self.flat.columns, "depth_count": self.flat.depth}  # fmt: skip
        fields += [f"int64_t {name} = {_extent(bounds)};" for name, bounds in counts.items()]
        panel = "int $count, int64_t $first_k, int64_t $depth, float* $to"
        lies, lying = self._as_they_lie() if self.pairs() else ([], [])
        pack_a = [self._pack_a(term) for term in self.flat.lefts]
        pack_b = [self._pack_b(term) for term in self.flat.rights]
        fields_of_row, row_values, known = self._row_values()
        epilogue, ahead = self._epilogue(known)
        methods = [
            "// One panel of the left operand: rows from first_row, steps of k from first_k.",
            f"void pack_a(int $product, int64_t $batch, int64_t $first_row, {panel}) const {{",
            *indent(_choose(pack_a)), "}", "",
            "// One panel of the right operand: columns from first_column.",
            f"void pack_b(int $product, int64_t $batch, int64_t $first_column, {panel}) const {{",
            *indent(_choose(pack_b)), "}", "",
            *(self._in_place() if self.in_place() else []),
            *lying,
            "// What the epilogue needs of each row.",
            "void row_values(int64_t $batch, int64_t $first_row, int64_t $rows, Row* $to) const {",
            *indent(row_values), "}", "",
            "// What happens to a finished tile, while it is in the nearest cache.",
            "INLINED void epilogue(int64_t $batch, int64_t $first_row, int64_t $first_column, "
            "int $rows,", "                      int $columns, const Row* $values, "
            "const float* $tile) const {",
            *indent(epilogue), "}", "",
            "// Asks for what the epilogue will read and write in one row of a tile.",
            "INLINED void ahead(int64_t $batch, int64_t $first_row, int64_t $first_column, "
            "int64_t $r) const {",
            *indent(ahead), "}",
        ]  # fmt: skip
        head = [f"static constexpr int products = {len(self.flat.lefts)};",
                f"static constexpr bool a_inner_k = {str(self.a_inner_k).lower()};",
                f"static constexpr bool in_place = {str(self.in_place()).lower()};",
                *lies]  # fmt: skip
        lines = [
            "struct Problem {",
            *indent([*head, *fields, "", *fields_of_row, "", *methods]),
            "};",
        ]
        return name_locals(lines, context.fresh)

    def _decode(self, index: str, bounds: Sequence[Bound]) -> list[str]:
        """The index variables of a group from its flat index."""
        lines: list[str] = []
        for bound in reversed(bounds[1:]):
            name, extent = self.context.axis_names[bound.axis], dimension_to_c(bound.extent)
            lines.append(f"const int64_t {name} = ({index}) % {extent};")
            index = f"({index}) / {extent}"
        if bounds:
            lines.append(f"const int64_t {self.context.axis_names[bounds[0].axis]} = {index};")
        return lines

    def _scopes(self) -> tuple[Scope, Scope]:
        top = Scope(self.context, None, [])
        batch = Scope(self.context, top, [b.axis for b in self.flat.batch])
        batch.lines += self._decode("$batch", self.flat.batch)
        return top, batch

    def _group(self, parent: Scope, index: str, bounds: tuple[Bound, ...]) -> Scope:
        scope = Scope(self.context, parent, [b.axis for b in bounds])
        scope.lines += self._decode(index, bounds)
        return scope

    def _vector(self, parent: Scope, start: str, bounds: tuple[Bound, ...]) -> Scope:
        """A scope along the only axis of a group, at `start + at`."""
        axis = bounds[0].axis
        scope = Scope(self.context, parent, [axis], axis)
        scope.lines.append(f"const int64_t {self.context.axis_names[axis]} = {start} + $at;")
        return scope

    # -- packing ---------------------------------------------------------------------------------

    def _pack_a(self, term: Node) -> list[str]:
        top, batch = self._scopes()
        if not self.a_inner_k:
            return self._lines(term, batch, "MR", self.flat.rows, "$first_row")
        row = self._group(batch, "$first_row + $r", self.flat.rows)
        if len(self.flat.depth) == 1:
            vector = self._vector(row, "$first_k", self.flat.depth)
            value = _float(vector, term, spread=True)
            place = "contraction::inner_k($r, $at)"
            store = f"simd::store($to + {place}, {value}, simd::all_lanes{{}});"
            loop = _sweep("1", "$depth", [*vector.lines, *self._next_rows(vector), store])
        else:
            one = self._group(row, "$first_k + $at", self.flat.depth)
            store = f"$to[contraction::inner_k($r, $at)] = {_float(one, term)};"
            head = "for (int64_t $at = 0; $at < $depth; ++$at) {"
            loop = [head, *indent([*one.lines, store]), "}"]
        return [
            *top.lines, *batch.lines,
            "contraction::clear_rows($to, $count, $depth);",
            "for (int $r = 0; $r < $count; ++$r) {", *indent([*row.lines, *loop]), "}",
        ]  # fmt: skip

    def _next_rows(self, vector: Scope) -> list[str]:
        """Prefetches of the same place a few rows on: the hardware stops at the end of a page."""
        if len(self.flat.rows) != 1:
            return []
        axis = self.flat.rows[0].axis
        ahead = {axis: f"({self.context.axis_names[axis]} + {_ROWS_AHEAD})"}
        lines: list[str] = []
        for load, _ in vector.loads:
            offset = vector.offset(load.indices[0])
            if axis in self.context.depends(load):
                text = vector.offset_text(offset, ahead)
                lines.append(f"__builtin_prefetch({load.tensor} + {text});")
        return lines

    def _pack_b(self, term: Node) -> list[str]:
        top, batch = self._scopes()
        columns, depth = self.flat.columns, self.flat.depth
        if self._plain(term, depth) and not self._plain(term, columns):
            return self._lines(term, batch, "", columns, "$first_column")
        step = self._group(batch, "$first_k + $r", depth)
        vector = self._vector(step, "$first_column", columns)
        value = _float(vector, term, spread=True)
        kept = f"simd::keep({value}, simd::floats{{}}, lanes)"
        body = [*vector.lines, f"simd::store($to + $at, {kept}, simd::all_lanes{{}});"]
        return [
            *top.lines, *batch.lines,
            "for (int64_t $r = 0; $r < $depth; ++$r, $to += contraction::NR) {",
            *indent([*step.lines, *_sweep("NV", "$count", body)]),
            "    for (int64_t $at = contraction::ceil_div($count, LANES) * LANES;",
            "         $at < contraction::NR; ++$at) $to[$at] = 0.0f;",
            "}",
        ]  # fmt: skip

    def _lines(
        self, term: Node, batch: Scope, width: str, bounds: tuple[Bound, ...], first: str
    ) -> list[str]:
        """Copies of whole lines: along the panel (`width` given) or across it."""
        assert isinstance(term, Load)
        offset = batch.offset(term.indices[0])
        if width:
            names = {bounds[0].axis: first, self.flat.depth[0].axis: "($first_k + $line)"}
            decode, call = self.flat.depth, f"contraction::pack_lines<{width}>"
        else:
            names = {bounds[0].axis: f"({first} + $line)", self.flat.depth[0].axis: "$first_k"}
            decode, call = bounds, "contraction::pack_transposed<contraction::NR>"
            self.context.blocks.add(f"load_{_FLOATS[self.context.dtypes[term.tensor]]}")
        start = "$first_k + $line" if width else f"{first} + $line"
        several = len(decode) > 1
        if several:
            names = {k: v for k, v in names.items() if k not in {b.axis for b in decode}}
        inner = self._decode(start, decode) if several else []
        address = f"{term.tensor} + {batch.offset_text(offset, names)}"
        return [
            *(batch.parent.lines if batch.parent else []), *batch.lines,
            f"{call}([&](int64_t $line) {{ {' '.join(inner)} return {address}; }},",
            "    $count, $depth, $to);",
        ]  # fmt: skip

    def _in_place(self) -> list[str]:
        """Where the right operands lie when they need no packing."""
        starts: list[list[str]] = []
        strides: list[list[str]] = []
        depth, column = self.flat.depth[0].axis, self.flat.columns[0].axis
        for term in self.flat.rights:
            assert isinstance(term, Load)
            top, batch = self._scopes()
            offset = batch.offset(term.indices[0])
            stride = stride_of(offset, depth)
            assert stride is not None
            text = batch.offset_text(offset, {depth: "$first_k", column: "$first_column"})
            starts.append([*top.lines, *batch.lines, f"return {term.tensor} + {text};"])
            strides.append([f"return {batch.offset_text(stride)};"])
        return [
            "// The right operand where it lies, and the distance of its rows.",
            "const float* b_in_place(int $product, int64_t $batch, int64_t $first_k, "
            "int64_t $first_column) const {", *indent(_choose(starts)), "}",
            "int64_t b_stride(int $product) const {", *indent(_choose(strides)), "}", "",
        ]  # fmt: skip

    def _as_they_lie(self) -> tuple[list[str], list[str]]:
        """Where operands of bfloat16 lie that are packed bit by bit: constants and functions.

        `left_lies`: rows lie along k; `right_lies`: 1 along the columns, 2 along k. 0: otherwise.
        """
        depth, column = self.flat.depth, self.flat.columns
        left = all(self._plain(term, depth) for term in self.flat.lefts)
        right = 0
        if all(self._plain(term, column) for term in self.flat.rights):
            right = 1
        elif all(self._plain(term, depth) for term in self.flat.rights):
            right = 2
        lines: list[str] = []
        for name, terms, across in (
            ("a_at", self.flat.lefts if left else (), self.flat.rows),
            ("b_at", self.flat.rights if right else (), column),
        ):
            if not terms:
                continue
            first = "$row" if name == "a_at" else "$column"
            arguments = f"{first}, int64_t $k" if name == "a_at" else f"$k, int64_t {first}"
            bodies: list[list[str]] = []
            for term in terms:
                assert isinstance(term, Load)
                top, batch = self._scopes()
                step = self._group(batch, "$k", depth)
                line = self._group(step, first, across)
                place = line.offset_text(line.offset(term.indices[0]))
                found = [*top.lines, *batch.lines, *step.lines, *line.lines]
                bodies.append([*found, f"return (const uint16_t*)({term.tensor} + {place});"])
            head = f"const uint16_t* {name}(int $product, int64_t $batch, int64_t {arguments})"
            lines += [
                f"{head} const {{",
                *indent(_choose(bodies)), "}", "",
            ]  # fmt: skip
        constants = [
            f"static constexpr bool left_lies = {str(left).lower()};",
            f"static constexpr int right_lies = {right};",
        ]
        return constants, lines

    # -- epilogue --------------------------------------------------------------------------------

    def _row_values(self) -> tuple[list[str], list[str], dict[Node, Value]]:
        """`struct Row`, the statements that fill it, and what stands for its terms in epilogues.

        It holds the greatest terms that depend on the row but not on the column: they are
        evaluated once per row, not once per tile, and the indices of a row of several axes.
        """
        top, batch = self._scopes()
        row = self._group(batch, "$first_row + $r", self.flat.rows)
        fields: list[str] = []
        values: list[str] = []
        known: dict[Node, Value] = {}

        def add(node: Node, value: Value, name: str) -> None:
            fields.append(f"{row.type_of(value)} {name};")
            values.append(value.text)
            known[node] = Value(f"$values[$r].{name}", value.kind, value.vector, value.width)

        if len(self.flat.rows) > 1:
            for bound in self.flat.rows:
                name = self.context.axis_names[bound.axis]
                add(Axis(bound.axis), Value(name, "int", width=64), name)
        for node in self._of_rows([result.body for result in self.results]):
            value = row.value(node)
            hint = value.text if value.text.isidentifier() else "of_row"
            add(node, value, self.context.fresh(hint))
        struct = ["struct Row {", *indent(fields), "};"]
        if not fields:
            return struct, ["(void)$batch, (void)$first_row, (void)$rows, (void)$to;"], known
        fill = [*row.lines, f"$to[$r] = Row{{{', '.join(values)}}};"]
        loop = ["for (int64_t $r = 0; $r < $rows; ++$r) {", *indent(fill), "}"]
        return struct, [*top.lines, *batch.lines, *loop], known

    def _of_rows(self, terms: list[Node]) -> list[Node]:
        """The greatest terms that depend on rows, perhaps on batches, and on nothing else."""
        rows = {bound.axis for bound in self.flat.rows}
        outside = rows | {bound.axis for bound in self.flat.batch}
        found: dict[Node, None] = {}
        for term in terms:
            below = self.context.depends(term)
            if below & rows and below <= outside and not isinstance(term, Axis):
                found[term] = None
            elif not isinstance(term, Load):
                found |= dict.fromkeys(self._of_rows(list(term.children)))
        return list(found)

    def _epilogue(self, known: dict[Node, Value]) -> tuple[list[str], list[str]]:
        """The statements of `epilogue` and of `ahead`; values of a column serve all its rows."""
        top, batch = self._scopes()
        column = self._vector(batch, "$first_column", self.flat.columns)
        axes = [bound.axis for bound in self.flat.rows]
        one = Scope(self.context, column, axes, column.vector)
        one.known |= known
        indices = {axis: known[Axis(axis)].text for axis in axes if Axis(axis) in known}
        decoded = [f"const int64_t {self.context.axis_names[axis]} = {text};"
                   for axis, text in indices.items()]  # fmt: skip
        one.lines += decoded or self._decode("$first_row + $r", self.flat.rows)
        for number, node in enumerate(self.values):
            start = "$tile + $r * contraction::NR + $at"
            if number:
                start = f"$tile + ({number} * MR + $r) * contraction::NR + $at"
            value = self.context.fresh(f"sum{number}")
            one.lines.append(
                f"const simd::floats {value} = simd::load({start}, simd::all_lanes{{}});"
            )
            one.known[node] = Value(value, "float", True)
        stores = [line for result in self.results for line in self._store(one, result)]
        rows = ["for (int $r = 0; $r < $rows; ++$r) {", *indent([*one.lines, *stores]), "}"]
        loop = _sweep("1", "$columns", [*column.lines, *rows])
        return [*top.lines, *batch.lines, "(void)$values;", *loop], self._ahead(one)

    def _ahead(self, vector: Scope) -> list[str]:
        """Prefetches of everything in a row that lies along the columns, outputs first."""
        top, batch = self._scopes()
        row = self._group(batch, "$first_row + $r", self.flat.rows)
        column = self.flat.columns[0].axis
        places = [(r.tensor, vector.offset(r.offset), ", 1") for r in self.results]
        places += [(load.tensor, vector.offset(load.indices[0]), "") for load, _ in vector.loads]
        lines: list[str] = []
        for tensor, offset, kind in dict.fromkeys(places):
            if stride_of(offset, column) != ONE:
                continue
            text = vector.offset_text(offset, {column: "($first_column + $at)"})
            lines += [f"for (int $at = 0; $at < contraction::NR; $at += 64 / sizeof *{tensor})",
                      f"    __builtin_prefetch({tensor} + {text}{kind});"]  # fmt: skip
        return [*top.lines, *batch.lines, *row.lines, *lines]

    def _store(self, scope: Scope, result: FlatResult) -> list[str]:
        dtype = self.context.dtypes[result.tensor]
        value = scope.value(result.body)
        address = scope.address(result.tensor, scope.offset(result.offset))
        if dtype in _FLOATS:
            scope.need(f"store_{_FLOATS[dtype]}")
            text = scope.spread(scope.as_float(value)).text
            return [f"simd::store({address}, {text}, lanes);"]
        if dtype is Dtype.F64:
            text = scope.spread(scope.as_float(value)).text
            loop = "for (int64_t lane = 0; lane < lanes.count; ++lane)"
            name = self.context.fresh("wide")
            lines = [f"const simd::floats {name} = {text};"]
            return [*lines, f"{loop} ({address})[lane] = {name}[lane];"]
        scope.need("integers")
        if dtype is Dtype.BOOL:
            text = scope.spread(scope.as_bool(value)).text
            return [f"simd::store_as({address}, -{text}, lanes);"]
        text = scope.spread(scope.as_int(value, 64)).text
        return [f"simd::store_as({address}, {text}, lanes);"]


def _extent(bounds: Sequence[Bound]) -> str:
    return " * ".join(dimension_to_c(bound.extent) for bound in bounds) or "1"


def _float(scope: Scope, term: Node, spread: bool = False) -> str:
    value = scope.as_float(scope.value(term))
    return scope.spread(value).text if spread else value.text


def _sweep(steps: str, end: str, body: list[str]) -> list[str]:
    head = f"simd::sweep<{steps}>(0, {end}, [&](int64_t $at, auto lanes, auto) INLINED {{"
    return [head, *indent(["(void)lanes;", *body]), "});"]


def _choose(variants: list[list[str]]) -> list[str]:
    """Code for each product in turn; what all have in common is written once."""
    if all(variant == variants[0] for variant in variants):
        return ["(void)$product;", *variants[0]]
    lines: list[str] = []
    for number, variant in enumerate(variants):
        lines += [f"if ($product == {number}) {{", *indent(variant), "}"]
    if variants[0][-1].startswith("return"):
        lines[-len(variants[-1]) - 2 :] = variants[-1]
    return lines
