"""Kernels over all pairs: rows in the lanes of a register block, the others broadcast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kernelwright.codegen.assemble import (
    INCLUDES,
    Tunables,
    block_file,
    indent,
    lane_choices,
    name_locals,
    toolchain_choices,
)
from kernelwright.codegen.blocks import PAIRS
from kernelwright.codegen.emit import Context, Scope, Value, bare
from kernelwright.codegen.library import paste
from kernelwright.codegen.naming import without_reserved
from kernelwright.codegen.pair_terms import PairTerms
from kernelwright.expr.nodes import Node, Program
from kernelwright.expr.pairs import OTHER, ROW, PairReduction, PairsPlan, match
from kernelwright.expr.pretty import pretty
from kernelwright.model import Dtype, Family, Lineage, Machine
from kernelwright.model.dimensions import dimension_to_c

_NAMES = frozenset({
    "Problem", "Rows", "Totals", "OTHER_TERMS", "row_count", "other_count", "batch_count",
    "pack_others", "pack_rows", "reduce", "store", "rows", "others", "totals", "pairs", "simd",
    "BLOCK", "LANES", "VECTORS", "TILE", "UNROLL",
})  # fmt: skip
_STATES = {
    "prod": "multiplied", "max": "extreme<1>", "min": "extreme<-1>", "argmax": "winner<1>",
    "argmin": "winner<-1>",
}  # fmt: skip


def families(
    program: Program, dtype: Dtype, machine: Machine, sizes: Mapping[str, int], entry: str
) -> tuple[Family, ...]:
    """The family over all pairs; empty when the program has another form."""
    program = without_reserved(program, entry, _NAMES)
    plan = match(program)
    signature = program.signature
    if plan is None or dtype is Dtype.F64:
        return ()
    context = Context(signature, dtype)
    struct = _Writer(context, plan).write()
    tunables = _tunables(machine)
    tensors = [t.name for t in signature.tensors]
    numbers = [*signature.dimensions, *(s.name for s in signature.scalars)]
    nothing = ["nullptr"] * len(tensors)
    source = "\n".join([
        f"// All pairs, {dtype} workloads:", "//",
        *(f"//     {line}" for line in pretty(program).splitlines()), "//",
        tunables.declarations(), "", INCLUDES, "", paste(context.blocks), "", block_file(PAIRS),
        "", *struct, "",
        f'extern "C" {signature.workspace_prototype(entry)} {{',
        f"    return pairs::workspace(Problem{{{', '.join([*nothing, *numbers])}}});", "}", "",
        f'extern "C" {signature.prototype(entry, dtype)} {{',
        "    (void)prepared, (void)stream;",
        f"    const Problem problem{{{', '.join([*tensors, *numbers])}}};",
        "    return pairs::run(problem, workspace, workspace_bytes);", "}", "",
    ])  # fmt: skip
    lineage = Lineage("recipe", note="all pairs")
    return (Family("pairs", "cpp", entry, source, lineage, tunables.defaults()),)


class _Writer:
    """Emits `struct Problem` of the block `pairs`."""

    def __init__(self, context: Context, plan: PairsPlan) -> None:
        self.context, self.plan = context, plan
        terms = PairTerms(context, plan)
        self.bodies, self.results, self.offsets = terms.bodies, terms.results, terms.offsets
        self.row_terms, self.other_terms = terms.of_row, terms.of_other
        context.taken |= _NAMES
        names = [(b.axis, "b") for b in plan.batch] + [(ROW, "i"), (OTHER, "j")]
        context.axis_names |= {axis: context.fresh(hint) for axis, hint in names}
        context.blocks |= {"parallel", "vector"}
        context.count_uses([*self.bodies, *self.results])

    def write(self) -> list[str]:
        """The lines of the struct."""
        signature, dtype, plan = self.context.signature, self.context.dtype, self.plan
        fields = [f"const {t.resolve(dtype).c_type}* {t.name};" for t in signature.inputs]
        fields += [f"{t.resolve(dtype).c_type}* {t.name};" for t in signature.outputs]
        fields += [f"int64_t {name};" for name in signature.dimensions]
        fields += [f"{s.c_type} {s.name};" for s in signature.scalars]
        batches = " * ".join(f"({dimension_to_c(b.extent)})" for b in plan.batch)
        fields += [f"int64_t batch_count = {batches or '1'};",
                   f"int64_t row_count = {dimension_to_c(plan.row.extent)};",
                   f"int64_t other_count = {dimension_to_c(plan.other.extent)};"]  # fmt: skip
        totals = [f"{'float' if r.kind == 'float' else 'int32_t'} of{n}[pairs::BLOCK];"
                  for n, r in enumerate(plan.reductions)]  # fmt: skip
        types = [
            f"static constexpr int OTHER_TERMS = {max(1, len(self.other_terms))};",
            "// What belongs to the rows of a block, and what is reduced for them.",
            f"struct Rows {{ float of[{max(1, len(self.row_terms))}][pairs::BLOCK]; }};",
            "struct Totals {", *indent(totals), "};",
        ]  # fmt: skip
        methods = [
            "void pack_others(int64_t $batch, int64_t $begin, int64_t $end, float* $to) const {",
            *indent(self._pack_others()), "}", "",
            "void pack_rows(int64_t $batch, int64_t $first, int $count, Rows& $to) const {",
            *indent(self._pack_rows()), "}", "",
            "void reduce(int64_t $first, const Rows& $rows, const float* $others, "
            "Totals& $totals) const {",
            *indent(self._reduce()), "}", "",
            "void store(int64_t $batch, int64_t $first, int $count, const Totals& $totals) const {",
            *indent(self._store()), "}",
        ]  # fmt: skip
        lines = ["struct Problem {", *indent([*types, "", *fields, "", *methods]), "};"]
        return name_locals(lines, self.context.fresh)

    def _batch(self) -> Scope:
        top = Scope(self.context, None, [])
        scope = Scope(self.context, top, [b.axis for b in self.plan.batch])
        index = "$batch"
        for number, bound in reversed(list(enumerate(self.plan.batch))):
            name, extent = self.context.axis_names[bound.axis], dimension_to_c(bound.extent)
            text = f"({index}) % ({extent})" if number else index
            scope.lines.append(f"const int64_t {name} = {text};")
            index = f"({index}) / ({extent})"
        return scope

    def _at(self, batch: Scope, axis: str, index: str) -> Scope:
        scope = Scope(self.context, batch, [axis])
        scope.lines.append(f"const int64_t {self.context.axis_names[axis]} = {index};")
        return scope

    def _looped(self, batch: Scope, head: str, inner: Sequence[str]) -> list[str]:
        top = batch.parent.lines if batch.parent else []
        return ["(void)$batch;", *top, *batch.lines, head, *indent(inner), "}"]

    def _pack_others(self) -> list[str]:
        batch = self._batch()
        scope = self._at(batch, OTHER, "$at")
        stores = [
            f"$to[$at * OTHER_TERMS + {n}] = {scope.as_float(scope.value(t)).text};"
            for n, t in enumerate(self.other_terms)
        ]
        name = self.context.axis_names[OTHER]
        head = "for (int64_t $at = $begin; $at < $end; ++$at) {"
        return self._looped(batch, head, [*scope.lines, f"(void){name};", *stores])

    def _pack_rows(self) -> list[str]:
        batch = self._batch()
        # beyond the last row the last one is repeated: its values are harmless
        scope = self._at(batch, ROW, "$first + std::min($r, $count - 1)")
        stores = [
            f"$to.of[{n}][$r] = {scope.as_float(scope.value(t)).text};"
            for n, t in enumerate(self.row_terms)
        ]
        name = self.context.axis_names[ROW]
        head = "for (int $r = 0; $r < pairs::BLOCK; ++$r) {"
        return self._looped(batch, head, [*scope.lines, f"(void){name};", *stores])

    def _reduce(self) -> list[str]:
        """The sweep over the others in tiles, with the whole block of rows in registers."""
        outer = Scope(self.context, None, [])
        pair = Scope(self.context, outer, [*(b.axis for b in self.plan.batch), ROW, OTHER], ROW)
        own = [f"own{n}" for n in range(len(self.row_terms))]
        for number, term in enumerate(self.row_terms):
            pair.known[term] = Value(f"$own{number}[$v]", "float", True)
        for number, term in enumerate(self.other_terms):
            pair.known[term] = Value(f"$other{number}", "float")
        offers: list[str] = []
        for number, body in enumerate(self.bodies):
            offers.append(f"$state{number}.offer($v, {self._operand(pair, number, body)}, $j);")
        states = [f"pairs::{_state(r)} $state{n};" for n, r in enumerate(self.plan.reductions)]
        loads = [
            line
            for n, _ in enumerate(own)
            for line in (
                f"simd::floats $own{n}[VECTORS];",
                f"std::memcpy($own{n}, $rows.of[{n}], sizeof $own{n});",
            )
        ]
        others = [
            f"const float $other{n} = $others[$j * OTHER_TERMS + {n}];"
            for n in range(len(self.other_terms))
        ]
        name, row = self.context.axis_names[OTHER], self.context.axis_names[ROW]
        step = [
            f"const int64_t {name} = $j;", f"(void){name};", *others,
            "simd::unrolled<VECTORS>([&](auto $v) INLINED {",
            *indent([f"const int64_t {row} = $first + $v * LANES;", f"(void){row};"]),
            *indent([*pair.lines, *offers]),
            "});",
        ]  # fmt: skip
        settles = [f"$state{n}.settle();" for n in range(len(states))]
        return [
            *outer.lines, *loads, *states,
            "const auto $step = [&](int64_t $j) INLINED {", *indent(step), "};",
            "for (int64_t $at = 0; $at < other_count; $at += TILE) {",
            "    const int64_t $end = std::min<int64_t>($at + TILE, other_count);",
            "    int64_t $j = $at;",
            "    for (; $j + UNROLL <= $end; $j += UNROLL)",
            "        simd::unrolled<UNROLL>([&](auto $u) INLINED { $step($j + $u); });",
            "    for (; $j < $end; ++$j) $step($j);", *indent(settles), "}",
            *(f"$state{n}.finish($totals.of{n});" for n in range(len(states))),
        ]  # fmt: skip

    def _operand(self, pair: Scope, number: int, body: Node) -> str:
        if self.context.kinds.of(body) == "float":
            return pair.spread(pair.as_float(pair.value(body))).text
        truth = pair.spread(pair.as_bool(pair.value(body.children[0])))
        return f"-{truth.text}"

    def _store(self) -> list[str]:
        batch = self._batch()
        scope = self._at(batch, ROW, "$first + $r")
        for number, reduction in enumerate(self.plan.reductions):
            text = f"$totals.of{number}[$r]"
            if reduction.kind != "float":
                text = f"(int64_t){text}"
            scope.known[reduction.value] = Value(text, reduction.kind, width=64)
        stores: list[str] = []
        for result, offset, body in zip(self.plan.results, self.offsets, self.results, strict=True):
            dtype = self.context.dtypes[result.tensor]
            place, value = scope.offset_text(scope.offset(offset)), scope.value(body)
            if dtype.is_float:
                scope.need("scalars_f16" if dtype is Dtype.F16 else "scalars")
                text = bare(scope.as_float(value).text)
                stores.append(f"simd::put({result.tensor} + {place}, {text});")
            else:
                value = scope.as_bool(value) if dtype is Dtype.BOOL else scope.as_int(value, 64)
                stores.append(f"{result.tensor}[{place}] = ({dtype.c_type})({value.text});")
        head = "for (int $r = 0; $r < $count; ++$r) {"
        return ["(void)$totals;", *self._looped(batch, head, [*scope.lines, *stores])]


def _state(reduction: PairReduction) -> str:
    if reduction.op == "sum":
        vector = "floats, float" if reduction.kind == "float" else "ints, int32_t"
        return f"summed<simd::{vector}>"
    return _STATES[reduction.op]


def _tunables(machine: Machine) -> Tunables:
    choices: dict[str, tuple[int | str, ...]] = {
        "LANES": lane_choices(machine), "VECTORS": (2, 4, 3, 1, 6), "UNROLL": (1, 2, 4),
        "TILE": (512, 128, 2048, 8192),
    }  # fmt: skip
    departures: tuple[dict[str, int | str], ...] = (
        {"VECTORS": 4}, {"UNROLL": 2}, {"VECTORS": 3},
        {"TILE": 2048}, {"VECTORS": 1, "UNROLL": 4}, {"VECTORS": 6},
    )  # fmt: skip
    return Tunables(choices | toolchain_choices(machine), (), departures)


__all__ = ["families"]
