"""Attention of few rows that share their keys on a GPU: keys split over blocks."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path

from kernelwright.codegen.assemble import Tunables
from kernelwright.codegen.contraction_lower import flat_loads
from kernelwright.codegen.cuda.assemble import Region, Source
from kernelwright.codegen.cuda.problem import COMMON, ProblemStruct
from kernelwright.codegen.cuda.wide import Alignment
from kernelwright.codegen.emit import Scope, Value
from kernelwright.codegen.naming import renamed_sizes, without_reserved
from kernelwright.expr.attention import DOT, GREATEST, MIXED, TOTAL, AttentionPlan, match
from kernelwright.expr.integers import Integers
from kernelwright.expr.nodes import Load, Node, Program
from kernelwright.expr.polynomial import ONE
from kernelwright.expr.pretty import pretty
from kernelwright.expr.rowwise import stride_of
from kernelwright.model import Dtype, Family, Lineage, evaluate_dimension
from kernelwright.model.dimensions import dimension_to_c
from kernelwright.recipes.attention import without_division

_NAMES = frozenset({
    "Key", "Item", "batch_count", "row_count", "key_count", "depth_count", "column_count", "query",
    "keys", "values", "score", "end", "store", "aligned", "attention", "found", "partial", "join",
    "LANES", "GROUP", "GROUPS", "ROWS", "CHUNK", "WORDS", "MANY", "ALIGNED",
})  # fmt: skip
_STORED = (Dtype.F32, Dtype.BF16, Dtype.F16)
_FEW = 16
"""Up to so many rows share keys; more belong on the tensor cores."""


def families(
    program: Program, dtype: Dtype, sizes: Mapping[str, int], entry: str
) -> tuple[Family, ...]:
    """The decoding family; empty when there is no such attention, or many rows share keys."""
    program = without_reserved(program, entry, _NAMES | COMMON)
    plan = match(program)
    if plan is None or any(t.resolve(dtype) not in _STORED for t in program.signature.outputs):
        return ()
    known = {**dict.fromkeys(program.signature.dimensions, 1), **renamed_sizes(sizes)}
    rows = prod(evaluate_dimension(bound.extent, known) for bound in plan.rows)
    if rows > _FEW:
        return ()
    struct = ProblemStruct(program.signature, dtype, _NAMES)
    writer = _Writer(struct, plan)
    if not writer.write():
        return ()
    struct.context.blocks |= {
        "wide", "launch", "shuffle", "division", "extremes", "scalars", "shared_memory",
    }  # fmt: skip
    longest = max(evaluate_dimension(b.extent, known) for b in (plan.depth, plan.column))
    tunables = _tunables(rows, writer.width, longest)
    source = Source(program.signature, struct.context, tunables, entry, "Attention of few rows")
    counts = " * ".join(
        f"({dimension_to_c(b.extent)})" for b in (*plan.batch, *plan.rows)
    ) or "1"  # fmt: skip
    key, column = dimension_to_c(plan.key.extent), dimension_to_c(plan.column.extent)
    size = f"{counts} * attention::splits_of({key}) * attention::stride_of({column}) * 4"
    body = [
        struct.instance(),
        "if (const int failed = attention::run(problem, found, stream)) return failed;",
    ]
    file = Path(__file__).parent / "attention.cu"
    fixed = [f"#define WIDTH {writer.width}", ""]
    text = source.text(
        pretty(program), struct.lines(), body, [Region("found", "char", size)], [file], fixed
    )
    lineage = Lineage("recipe", note="attention")
    return (Family("attention", "cuda", entry, text, lineage, tunables.defaults()),)


class _Writer:
    """Emits `struct Problem` of the block `attention`."""

    def __init__(self, struct: ProblemStruct, plan: AttentionPlan) -> None:
        self.struct, self.plan, self.width = struct, plan, 4
        integers = Integers(plan.axes)

        def flat(term: Node) -> Node:
            return flat_loads(term, struct.signature, integers)

        self.queries, self.keys, self.values = map(flat, (plan.queries, plan.keys, plan.values))
        self.score = flat(without_division(plan.score, plan.key.axis))
        self.end = None if plan.end is None else flat(plan.end)
        self.bodies = [flat(r.body) for r in plan.results]
        self.targets = [
            flat(Load(r.tensor, indices))
            for r, indices in zip(plan.results, plan.targets, strict=True)
        ]
        context = struct.context
        context.axis_names |= {
            plan.key.axis: "$key", plan.depth.axis: "$at", plan.column.axis: "$at",
        }  # fmt: skip
        context.count_uses([self.queries, self.keys, self.values, self.score, *self.bodies])
        self.batch = struct.name_axes(plan.batch, "$batch")
        self.rows = struct.name_axes(plan.rows, "$row")
        self.outer = [b.axis for b in (*plan.batch, *plan.rows)]

    def write(self) -> bool:
        """Fill the struct; whether lines of keys and values lie in memory as they are."""
        struct, plan = self.struct, self.plan
        counts = (("batch", plan.batch), ("row", plan.rows), ("key", (plan.key,)),
                  ("depth", (plan.depth,)), ("column", (plan.column,)))  # fmt: skip
        for name, bounds in counts:
            struct.count(f"{name}_count", bounds)
        alignment = Alignment(struct.context)
        aligned, narrowest = True, 4
        for name, kind, term, axis in (
            ("keys", "Key", self.keys, plan.depth.axis),
            ("values", "Item", self.values, plan.column.axis),
        ):
            if not isinstance(term, Load) or struct.context.dtypes[term.tensor] not in _STORED:
                return False
            offset = struct.context.integers.polynomial(term.indices[0])
            if stride_of(offset, axis) != ONE:
                return False
            aligned = alignment.admits(term.indices[0], axis) and aligned
            dtype = struct.context.dtypes[term.tensor]
            narrowest = min(narrowest, dtype.itemsize)
            if dtype is Dtype.F16:
                struct.context.blocks.add("scalars_f16")
            self._line(name, kind, term, dtype.c_type)
        self.width = 16 // narrowest
        conditions = " && ".join(f"({e}) % WIDTH == 0" for e in alignment.extents) or "true"
        struct.methods.append(
            f"bool aligned() const {{ return {conditions if aligned else 'false'}; }}"
        )
        self._scalars()
        self._store()
        return True

    def _line(self, name: str, kind: str, term: Load, element: str) -> None:
        context = self.struct.context
        scope = Scope(context, None, [b.axis for b in (*self.plan.batch, self.plan.key)])
        address = scope.address(term.tensor, scope.offset(term.indices[0]))
        self.struct.methods.append(f"using {kind} = {element};")
        # the line begins where its axis is 0
        self.struct.method(
            f"const {element}* {name}(int64_t $batch, int64_t $key)",
            [*self.batch, "constexpr int64_t $at = 0;", *scope.lines, f"return {address};"],
        )

    def _scalars(self) -> None:
        struct, context, plan = self.struct, self.struct.context, self.plan
        scope = Scope(context, None, [*self.outer, plan.depth.axis])
        value = scope.as_float(scope.value(self.queries)).text
        struct.method("float query(int64_t $batch, int64_t $row, int64_t $at)",
                      [*self.batch, *self.rows, *scope.lines, f"return {value};"])  # fmt: skip
        scope = Scope(context, None, self.outer)
        text = "key_count"
        if self.end is not None:
            text = scope.as_int(scope.value(self.end), 64).text
        struct.method(
            "int64_t end(int64_t $batch, int64_t $row)",
            [*self.batch, *self.rows, *scope.lines, f"return (int64_t)({text});"],
        )
        scope = Scope(context, None, [*self.outer, plan.key.axis])
        scope.known[DOT] = Value("$dot", "float")
        value = scope.as_float(scope.value(self.score)).text
        struct.method(
            "float score(int64_t $batch, int64_t $row, int64_t $key, float $dot)",
            [*self.batch, *self.rows, "(void)$key;", *scope.lines, f"return {value};"],
        )

    def _store(self) -> None:
        struct, plan = self.struct, self.plan
        scope = Scope(struct.context, None, [*self.outer, plan.column.axis])
        names = ((MIXED, "$sum"), (GREATEST, "$greatest"), (TOTAL, "$total"))
        for what, name in names:
            scope.known[plan.stands_for(what)] = Value(name, "float")
        stores: list[str] = []
        for result, target, body in zip(plan.results, self.targets, self.bodies, strict=True):
            line = struct.put(scope, result.tensor, target.children[0], body)
            along = plan.column.axis in result.axes
            stores.append(line if along else f"if ($at == 0) {line}")
        struct.method(
            "void store(int64_t $batch, int64_t $row, int64_t $at, float $sum, float $greatest, "
            "float $total)",
            [*self.batch, *self.rows, "(void)$greatest, (void)$total;", *scope.lines, *stores],
        )


def _tunables(rows: int, width: int, longest: int) -> Tunables:
    many = next((n for n in (1, 2, 4, 8) if n >= rows), 8)
    lanes = next((n for n in (4, 8, 16, 32) if n * width >= longest), 32)
    choices: dict[str, tuple[int | str, ...]] = {
        "THREADS": (128, 256), "ROWS": (many, *(n for n in (1, 2, 4, 8) if n != many)),
        "LANES": (lanes, *(n for n in (4, 8, 16, 32) if n != lanes)),
        "UNROLL": (2, 4, 1, 8) if width == 8 else (4, 2, 1, 8),
        "CHUNK": (1024, 512, 2048, 4096, 256),
    }  # fmt: skip
    departures: tuple[dict[str, int | str], ...] = (
        {"UNROLL": choices["UNROLL"][1]}, {"CHUNK": 2048}, {"CHUNK": 512}, {"THREADS": 256},
        {"UNROLL": choices["UNROLL"][1], "CHUNK": 512}, {"UNROLL": 1},
    )  # fmt: skip
    return Tunables(choices, (), departures)
