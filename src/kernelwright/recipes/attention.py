"""Softmax attention: two register-tiled products with an online softmax between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path

from kernelwright.codegen.assemble import (
    INCLUDES,
    Tunables,
    block_file,
    indent,
    lane_choices,
    name_locals,
    toolchain_choices,
)
from kernelwright.codegen.blocks import (
    ATTENTION_STEP,
    CONTRACTION_DOT,
    CONTRACTION_PAIRS,
    CONTRACTION_TILE,
    SHUFFLE,
)
from kernelwright.codegen.contraction_lower import flat_loads
from kernelwright.codegen.emit import Context, Scope, Value
from kernelwright.codegen.library import paste
from kernelwright.codegen.matrix_unit import (
    IN_PARTS,
    ON_MATRIX_UNIT,
    has_matrix_unit,
    on_unit,
    tile_definitions,
    unit_blocks,
)
from kernelwright.codegen.naming import renamed_sizes, without_reserved
from kernelwright.expr.attention import (
    DOT,
    GREATEST,
    MIXED,
    TOTAL,
    AttentionPlan,
    match,
)
from kernelwright.expr.integers import Integers
from kernelwright.expr.nodes import Apply, Load, Node, Program, free_axes, transform
from kernelwright.expr.polynomial import ONE
from kernelwright.expr.rowwise import Bound, stride_of
from kernelwright.model import Dtype, Family, Lineage, Machine, evaluate_dimension
from kernelwright.model.dimensions import dimension_to_c

_NAMES = frozenset({
    "Problem", "plain", "batch_count", "row_count", "key_count", "depth_count", "column_count",
    "queries", "keys", "values", "ends", "scores", "store", "attention", "contraction", "shuffle",
    "simd", "lanes", "LANES", "MR", "NV", "UNROLL_K", "PREFETCH", "KEYS", "PANELS", "SPLIT", "DOT",
})  # fmt: skip
_FEW = 8
"""So few rows wait for memory: their weights stay float32. Rounded to bfloat16, equal weights of
tokens that a page table repeats err alike, and add up."""
MATRIX_UNIT = f"attention {ON_MATRIX_UNIT}"
PARTS = f"attention {IN_PARTS}"
_LEAST_ROWS = 16
"""With fewer queries that share keys, taking keys apart costs more than it saves."""
_LOADS = {Dtype.F32: "load_floats", Dtype.BF16: "load_bf16", Dtype.F16: "load_f16"}
_STORES = {Dtype.F32: "store_floats", Dtype.BF16: "store_bf16", Dtype.F16: "store_f16"}


def families(
    program: Program, dtype: Dtype, machine: Machine, sizes: Mapping[str, int], entry: str
) -> tuple[Family, ...]:
    """The attention families, the fastest unit first; empty when there is no such attention."""
    program = without_reserved(program, entry, _NAMES)
    plan = match(program)
    signature = program.signature
    if plan is None or any(t.resolve(dtype) not in _STORES for t in signature.outputs):
        return ()
    context = Context(signature, dtype)
    writer = _Writer(context, plan)
    struct = writer.write()
    sizes = renamed_sizes(sizes)
    rows = prod(evaluate_dimension(bound.extent, sizes) for bound in plan.rows)
    narrow = writer.pairs() and rows > _FEW
    schedules = {"attention": _tunables(rows, machine, narrow)}
    if has_matrix_unit(machine) and not writer.pairs() and rows >= _LEAST_ROWS:
        schedules = {PARTS: _parts_tunables(machine), **schedules}
    if narrow and has_matrix_unit(machine):
        schedules = {MATRIX_UNIT: _matrix_unit_tunables(machine), **schedules}
    return tuple(
        Family(name, "cpp", entry, _source(context, name, tunables, struct, entry),
               Lineage("recipe", note=name), tunables.defaults())
        for name, tunables in schedules.items()
    )  # fmt: skip


def _source(context: Context, name: str, tunables: Tunables, struct: list[str], entry: str) -> str:
    signature = context.signature
    tensors = [t.name for t in signature.tensors]
    numbers = [*signature.dimensions, *(s.name for s in signature.scalars)]
    nothing = ["nullptr"] * len(tensors)
    fixed: list[str] = []
    pairs: list[str] = []
    if on_unit(name):
        fixed, pairs = [*tile_definitions(name), ""], unit_blocks(name)
    elif "DOT" in tunables.choices:
        pairs = ["#if DOT", block_file(CONTRACTION_PAIRS), "", block_file(CONTRACTION_DOT),
                 "#endif", ""]  # fmt: skip
    return "\n".join([
        f"// {name}: {', '.join(t.name for t in signature.outputs)}, {context.dtype} workloads.",
        tunables.declarations(), "", *fixed, INCLUDES, "", paste(context.blocks), "",
        block_file(SHUFFLE), "", block_file(CONTRACTION_TILE), "", *pairs,
        block_file(ATTENTION_STEP), "",
        block_file(Path(__file__).parent / "attention.hpp"), "", *struct, "",
        f'extern "C" {signature.workspace_prototype(entry)} {{',
        f"    const Problem problem{{{', '.join([*nothing, *numbers])}}};",
        "    return attention::Plan<Problem>(problem).bytes(problem);", "}", "",
        f'extern "C" {signature.prototype(entry, context.dtype)} {{',
        "    (void)prepared, (void)stream;",
        f"    const Problem problem{{{', '.join([*tensors, *numbers])}}};",
        "    return attention::run(problem, workspace, workspace_bytes);", "}", "",
    ])  # fmt: skip


class _Writer:
    """Emits `struct Problem` of the block `attention`."""

    def __init__(self, context: Context, plan: AttentionPlan) -> None:
        self.context, self.plan = context, plan
        integers = Integers(plan.axes)

        def flat(term: Node) -> Node:
            return flat_loads(term, context.signature, integers)

        self.queries, self.keys, self.values = map(flat, (plan.queries, plan.keys, plan.values))
        self.score = flat(without_division(plan.score, plan.key.axis))
        self.end = None if plan.end is None else flat(plan.end)
        self.bodies = [flat(r.body) for r in plan.results]
        self.targets = [
            flat(Load(r.tensor, indices))
            for r, indices in zip(plan.results, plan.targets, strict=True)
        ]
        context.taken |= _NAMES
        hints = [(plan.key, "t"), (plan.depth, "d"), (plan.column, "e")]
        hints += [*((b, "b") for b in plan.batch), *((b, "i") for b in plan.rows)]
        for bound, hint in hints:
            context.axis_names[bound.axis] = context.fresh(hint)
        context.count_uses([self.queries, self.keys, self.values, self.score, *self.bodies])
        context.blocks |= {"load_floats", "store_floats", "exp", *_LOADS.values()} - {"load_f16"}

    @property
    def _lines(self) -> tuple[tuple[Node, str], ...]:
        """Operands with the axis along which they are read."""
        depth, column = self.plan.depth.axis, self.plan.column.axis
        return (self.queries, depth), (self.keys, depth), (self.values, column)

    def _plain(self, term: Node, axis: str) -> bool:
        """Whether lines of an operand lie in memory as they are."""
        if not isinstance(term, Load) or self.context.dtypes[term.tensor] not in _LOADS:
            return False
        return stride_of(self.context.integers.polynomial(term.indices[0]), axis) == ONE

    def pairs(self) -> bool:
        """Whether all operands are plain bfloat16."""
        return all(
            self._plain(term, axis)
            and isinstance(term, Load)
            and self.context.dtypes[term.tensor] is Dtype.BF16
            for term, axis in self._lines
        )

    def write(self) -> list[str]:
        """The lines of the struct."""
        plan, signature, dtype = self.plan, self.context.signature, self.context.dtype
        fields = [f"const {t.resolve(dtype).c_type}* {t.name};" for t in signature.inputs]
        fields += [f"{t.resolve(dtype).c_type}* {t.name};" for t in signature.outputs]
        fields += [f"int64_t {name};" for name in signature.dimensions]
        fields += [f"{s.c_type} {s.name};" for s in signature.scalars]
        counts = (("batch", plan.batch), ("row", plan.rows), ("key", (plan.key,)),
                  ("depth", (plan.depth,)), ("column", (plan.column,)))  # fmt: skip
        for name, bounds in counts:
            extents = " * ".join(f"({dimension_to_c(b.extent)})" for b in bounds)
            fields.append(f"int64_t {name}_count = {extents or '1'};")
        plain = all(self._plain(term, axis) for term, axis in self._lines)
        fields.append(f"static constexpr bool plain = {str(plain).lower()};")
        (queries, depth), (keys, _), (values, column) = self._lines
        key = (plan.key,)
        methods = [
            "// Lines of queries and keys along their depth, and of values.",
            *self._operand("queries", queries, plan.rows, depth, "depth_count"),
            *self._operand("keys", keys, key, depth, "depth_count"),
            *self._operand("values", values, key, column, "column_count"),
            "// How many keys a row sees at most.", *self._ends(),
            "// Scores of the keys from `$first` on, from products.", *self._scores(),
            "// A finished row: sums of weighted values, the greatest score, the sum of weights.",
            *self._store(),
        ]  # fmt: skip
        lines = ["struct Problem {", *indent([*fields, "", *methods]), "};"]
        return name_locals(lines, self.context.fresh)

    def _opened(self, parent: Scope | None, bounds: Sequence[Bound], index: str) -> Scope:
        """A scope in which some axes have the values of a flat index."""
        scope = Scope(self.context, parent, [b.axis for b in bounds])
        for number, bound in reversed(list(enumerate(bounds))):
            name, extent = self.context.axis_names[bound.axis], f"({dimension_to_c(bound.extent)})"
            text = f"({index}) % {extent}" if number else index
            scope.lines.append(f"const int64_t {name} = {text}; (void){name};")
            index = f"({index}) / {extent}"
        if not bounds:
            scope.lines.append(f"(void){index};")
        return scope

    def _batch(self) -> tuple[Scope, Scope]:
        top = Scope(self.context, None, [])
        return top, self._opened(top, self.plan.batch, "$batch")

    @staticmethod
    def _nested(top: Scope, batch: Scope, inner: list[str], head: str) -> list[str]:
        """The body of a method that returns a function."""
        return [*top.lines, *batch.lines, f"return [=, *this]{head} {{", *indent(inner), "};"]

    def _operand(
        self, name: str, term: Node, bounds: Sequence[Bound], axis: str, count: str
    ) -> list[str]:
        top, batch = self._batch()
        line = self._opened(batch, bounds, "$index")
        if self._plain(term, axis):
            assert isinstance(term, Load)
            start = Scope(self.context, line, [axis])
            start.lines.append(f"constexpr int64_t {self.context.axis_names[axis]} = 0;")
            address = start.address(term.tensor, start.offset(term.indices[0]))
            inner = ["(void)$scratch;", *line.lines, *start.lines, f"return {address};"]
        else:
            vector = Scope(self.context, line, [axis], axis)
            vector.lines.append(f"const int64_t {self.context.axis_names[axis]} = $at;")
            value = vector.spread(vector.as_float(vector.value(term))).text
            store = f"simd::store($scratch + $at, {value}, simd::all_lanes{{}});"
            head = f"simd::sweep<1>(0, {count}, [&](int64_t $at, auto lanes, auto) INLINED {{"
            sweep = [head, *indent(["(void)lanes;", *vector.lines, store]), "});"]
            inner = [*line.lines, *sweep, "return (const float*)$scratch;"]
        body = self._nested(top, batch, inner, "(int64_t $index, float* $scratch)")
        return [f"auto {name}(int64_t $batch) const {{", *indent(["(void)$batch;", *body]), "}"]

    def _ends(self) -> list[str]:
        top, batch = self._batch()
        row = self._opened(batch, self.plan.rows, "$index")
        text = "key_count"
        if self.end is not None:
            text = row.as_int(row.value(self.end), 64).text
        inner = [*row.lines, f"return (int64_t)({text});"]
        body = self._nested(top, batch, inner, "(int64_t $index)")
        return ["auto ends(int64_t $batch) const {", *indent(["(void)$batch;", *body]), "}"]

    def _scores(self) -> list[str]:
        axis = self.plan.key.axis
        top, batch = self._batch()
        row = self._opened(batch, self.plan.rows, "$index")
        vector = Scope(self.context, row, [axis], axis)
        name = self.context.axis_names[axis]
        vector.lines.append(f"const int64_t {name} = $first; (void){name};")
        for scope in (top, batch, row, vector):
            scope.known[DOT] = Value("$dots", "float", True)
        value = vector.spread(vector.as_float(vector.value(self.score))).text
        head = "return [=](int64_t $first, simd::floats $dots, auto lanes) INLINED {"
        scored = ["(void)lanes, (void)$first;", *vector.lines, f"return {value};"]
        inner = [*row.lines, head, *indent(scored), "};"]
        body = self._nested(top, batch, inner, "(int64_t $index)")
        return ["auto scores(int64_t $batch) const {", *indent(["(void)$batch;", *body]), "}"]

    def _store(self) -> list[str]:
        axis = self.plan.column.axis
        top, batch = self._batch()
        row = self._opened(batch, self.plan.rows, "$index")
        vector = Scope(self.context, row, [axis], axis)
        vector.lines.append(f"const int64_t {self.context.axis_names[axis]} = $at;")
        sums = "simd::load($mixed + attention::place($at), simd::all_lanes{})"
        for scope in (top, batch, row, vector):
            scope.known[self.plan.stands_for(GREATEST)] = Value("$greatest", "float")
            scope.known[self.plan.stands_for(TOTAL)] = Value("$total", "float")
            scope.known[self.plan.stands_for(MIXED)] = Value(f"({sums})", "float", True)
        ones: list[str] = []
        many: list[str] = []
        for result, target, body in zip(self.plan.results, self.targets, self.bodies, strict=True):
            along = axis in result.axes
            scope, lines = (vector, many) if along else (row, ones)
            address = scope.address(result.tensor, scope.offset(target.children[0]))
            value = scope.as_float(scope.value(body))
            if along:
                self.context.blocks.add(_STORES[self.context.dtypes[result.tensor]])
                lines.append(f"simd::store({address}, {scope.spread(value).text}, lanes);")
            else:
                scope.need("scalars")
                lines.append(f"simd::put({address}, {value.text});")
        head = "simd::sweep<1>(0, column_count, [&](int64_t $at, auto lanes, auto) INLINED {"
        sweep = [head, *indent(["(void)lanes;", *vector.lines, *many]), "});"]
        return [
            "void store(int64_t $batch, int64_t $index, const float* $mixed, float $greatest, "
            "float $total) const {",
            *indent(["(void)$greatest, (void)$total;", *top.lines, *batch.lines, *row.lines]),
            *indent([*ones, *(sweep if many else [])]), "}",
        ]  # fmt: skip


def without_division(score: Node, key: str) -> Node:
    """Divisions by what is the same for all keys as products with its reciprocal."""

    def change(node: Node) -> Node:
        if isinstance(node, Apply) and node.op == "div":
            divisor = node.args[1]
            if key not in free_axes(divisor) and not _holds(divisor, DOT):
                return Apply("mul", (node.args[0], Apply("reciprocal", (divisor,))))
        return node

    return transform(score, change)


def _holds(term: Node, part: Node) -> bool:
    return term is part or any(_holds(child, part) for child in term.children)


def _matrix_unit_tunables(machine: Machine) -> Tunables:
    choices: dict[str, tuple[int | str, ...]] = {
        "KEYS": (256, 128, 64, 512, 1024), "PANELS": (2, 1, 4, 8), "SPLIT": (256, 512, 1024),
    }  # fmt: skip
    departures: tuple[dict[str, int | str], ...] = (
        {"KEYS": 512}, {"KEYS": 128}, {"PANELS": 4}, {"PANELS": 1},
    )  # fmt: skip
    return Tunables(choices | toolchain_choices(machine), (), departures)


def _parts_tunables(machine: Machine) -> Tunables:
    choices: dict[str, tuple[int | str, ...]] = {
        "KEYS": (128, 256, 512, 64), "PANELS": (4, 2, 1, 8), "SPLIT": (256, 512, 1024),
    }  # fmt: skip
    departures: tuple[dict[str, int | str], ...] = ({"PANELS": 2}, {"KEYS": 256}, {"KEYS": 512})
    return Tunables(choices | toolchain_choices(machine), (), departures)


def _tunables(rows: int, machine: Machine, pairs: bool) -> Tunables:
    """Tiles for so many rows (queries that share keys)."""
    wide = "avx512f" in machine.isa
    tiles = (14, 12, 6, 8, 4) if wide else (6, 4, 3, 8)
    if rows <= _FEW:
        tiles = (4, 8, 6) if rows <= 4 else (8, 4, 6)
    vectors = (2, 4, 1) if wide and rows > _FEW else (4, 2, 1) if wide else (2, 1)
    choices: dict[str, tuple[int | str, ...]] = {
        "LANES": lane_choices(machine), "MR": tiles, "NV": vectors, "UNROLL_K": (1, 2, 4, 8, 16),
        "PREFETCH": (0, 4, 8), "KEYS": (256, 128, 64, 512),
        "PANELS": (1,) if rows <= _FEW else (4, 2, 8, 16, 1), "SPLIT": (256, 512, 1024),
    }  # fmt: skip
    constraints = (f"MR * NV + NV + 1 <= {32 if wide else 16}",)
    departures: tuple[dict[str, int | str], ...] = (
        {"MR": 6, "NV": 4}, {"MR": 12, "NV": 2}, {"KEYS": 128}, {"KEYS": 64}, {"UNROLL_K": 4},
    )  # fmt: skip
    if pairs and "avx512_bf16" in machine.isa:
        choices["DOT"] = (0, 1)
        constraints = (*constraints, "DOT != 1 or LANES == 16",
                       "DOT == 0 or (UNROLL_K == 1 and PREFETCH == 0)")  # fmt: skip
        departures = (*departures, {"DOT": 1})
    return Tunables(choices | toolchain_choices(machine), constraints, departures)
