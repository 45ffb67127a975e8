"""Kernels over all pairs in CUDA C++: rows in registers, the others in shared memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

from kernelwright.codegen.assemble import Tunables, indent
from kernelwright.codegen.blocks import PAIRS_CUDA
from kernelwright.codegen.cuda.assemble import Region, Source
from kernelwright.codegen.cuda.problem import COMMON, ProblemStruct
from kernelwright.codegen.emit import Scope, Value
from kernelwright.codegen.functions import float_text
from kernelwright.codegen.naming import renamed_sizes, without_reserved
from kernelwright.codegen.pair_terms import PairTerms
from kernelwright.expr.nodes import Node, Program
from kernelwright.expr.pairs import OTHER, ROW, PairReduction, PairsPlan, match
from kernelwright.expr.pretty import pretty
from kernelwright.model import Dtype, Family, FrozenMap, Lineage, evaluate_dimension

_NAMES = frozenset({
    "Row", "Totals", "Other", "OTHER_TERMS", "row_count", "other_count", "batch_count",
    "pack_row", "pack_other", "meet", "store", "pairs", "found", "STEPS", "ROWS", "TILE", "SPLIT",
    "FAST",
})  # fmt: skip
_PROCESSORS = 132


def families(
    program: Program, dtype: Dtype, sizes: Mapping[str, int], entry: str
) -> tuple[Family, ...]:
    """The family over all pairs; empty when the program has another form."""
    program = without_reserved(program, entry, _NAMES | COMMON)
    plan = match(program)
    if plan is None or dtype is Dtype.F64:
        return ()
    struct = ProblemStruct(program.signature, dtype, _NAMES)
    calls = {**struct.context.dialect.calls, "rsqrt": "pairs::inverse_root({0})"}
    struct.context.dialect = replace(struct.context.dialect, calls=FrozenMap(calls))
    _fill(struct, plan)
    struct.context.blocks |= {"launch", "division"}
    rooted = any("inverse_root" in line for line in struct.methods)
    tunables = _tunables(plan, renamed_sizes(sizes), rooted)
    counts = [struct.extents["batch_count"], struct.extents["row_count"]]
    totals = " * ".join(f"({c})" for c in counts) + " * (int64_t)sizeof(Problem::Totals)"
    size = f"(SPLIT > 1 ? {totals} * SPLIT : 0)"
    source = Source(program.signature, struct.context, tunables, entry, "All pairs")
    body = [
        struct.instance(),
        "if (const int failed = pairs::run(problem, found, stream)) return failed;",
    ]
    fast = [] if rooted else ["#define FAST 0", ""]
    text = source.text(
        pretty(program), struct.lines(), body, [Region("found", "char", size)], [PAIRS_CUDA], fast
    )
    lineage = Lineage("recipe", note="all pairs")
    return (Family("pairs", "cuda", entry, text, lineage, tunables.defaults()),)


def _fill(struct: ProblemStruct, plan: PairsPlan) -> None:
    context, terms = struct.context, PairTerms(struct.context, plan)
    context.axis_names |= {ROW: "$i", OTHER: "$j"}
    context.count_uses([*terms.bodies, *terms.results])
    struct.count("batch_count", plan.batch)
    struct.count("row_count", [plan.row])
    struct.count("other_count", [plan.other])
    batch = struct.name_axes(plan.batch, "$batch")
    struct.methods += [
        f"static constexpr int OTHER_TERMS = {max(1, len(terms.of_other))};",
        f"struct Row {{ float of[{max(1, len(terms.of_row))}]; }};",
        *_totals(plan, struct),
    ]
    outer = [b.axis for b in plan.batch]
    for name, axis, own in (("pack_row", ROW, terms.of_row), ("pack_other", OTHER, terms.of_other)):
        scope = Scope(context, None, [*outer, axis])
        place = "$to.of" if axis == ROW else "$to"
        texts = [scope.as_float(scope.value(term)).text for term in own]
        stores = [f"{place}[{n}] = {text};" for n, text in enumerate(texts)]
        index, kind = ("$i", "Row& $to") if axis == ROW else ("$j", "float* $to")
        struct.method(f"void {name}(int64_t $batch, int64_t {index}, {kind})",
                      [*batch, f"(void){index};", *scope.lines, *stores])  # fmt: skip
    pair = Scope(context, None, [*outer, ROW, OTHER])
    for number, term in enumerate(terms.of_row):
        pair.known[term] = Value(f"$own.of[{number}]", "float")
    for number, term in enumerate(terms.of_other):
        pair.known[term] = Value(f"$other[{number}]", "float")
    offers = [
        _offer(pair, reduction, number, body)
        for number, (reduction, body) in enumerate(zip(plan.reductions, terms.bodies, strict=True))
    ]
    struct.method(
        "void meet(const Row& $own, const float* $other, int64_t $i, int64_t $j, Totals& $totals)",
        ["(void)$i, (void)$j, (void)$own, (void)$other;", *pair.lines, *offers],
    )
    _fill_store(struct, plan, terms, batch)


def _fill_store(struct: ProblemStruct, plan: PairsPlan, terms: PairTerms, batch: list[str]) -> None:
    scope = Scope(struct.context, None, [*(b.axis for b in plan.batch), ROW])
    for number, reduction in enumerate(plan.reductions):
        text = f"$totals.of{number}"
        if reduction.op in ("argmax", "argmin"):
            text += ".index"
        scope.known[reduction.value] = Value(text, reduction.kind, width=64)
    stores = [
        struct.put(scope, result.tensor, offset, body)
        for result, offset, body in zip(plan.results, terms.offsets, terms.results, strict=True)
    ]
    struct.method("void store(int64_t $batch, int64_t $i, const Totals& $totals)",
                  [*batch, "(void)$i;", *scope.lines, *stores])  # fmt: skip


def _totals(plan: PairsPlan, struct: ProblemStruct) -> list[str]:
    """What a thread has found for a row, and how two such findings become one."""
    fields: list[str] = []
    combine: list[str] = []
    for number, reduction in enumerate(plan.reductions):
        fields.append(f"{_type(reduction)} of{number} = {_start(reduction)};")
        other = f"$other.of{number}"
        combine.append(_combined(f"of{number}", other, reduction, struct))
    return [
        "struct Totals {", *indent(fields),
        "    __device__ __forceinline__ void add(const Totals& $other) {",
        *indent(combine, 2), "    }", "};",
    ]  # fmt: skip


def _type(reduction: PairReduction) -> str:
    if reduction.op in ("argmax", "argmin"):
        return "simt::Winner"
    return "float" if reduction.kind == "float" else "int64_t"


def _start(reduction: PairReduction) -> str:
    if reduction.op in ("argmax", "argmin"):
        return f"{{{'-' if reduction.op == 'argmax' else ''}INFINITY, INT64_MAX}}"
    if reduction.kind != "float":
        return "0"
    values = {"sum": 0.0, "prod": 1.0, "max": float("-inf"), "min": float("inf")}
    return float_text(values[reduction.op])


def _combined(own: str, other: str, reduction: PairReduction, struct: ProblemStruct) -> str:
    op, blocks = reduction.op, struct.context.blocks
    if op in ("sum", "prod"):
        return f"{own} {'+' if op == 'sum' else '*'}= {other};"
    if op in ("max", "min"):
        blocks.add("extremes")
        return f"{own} = simt::{op}imum({other}, {own});"
    blocks.add("winner")
    return f"{own} = simt::winner_of<{1 if op == 'argmax' else -1}>{{}}({own}, {other});"


def _offer(scope: Scope, reduction: PairReduction, number: int, body: Node) -> str:
    place = f"$totals.of{number}"
    if scope.context.kinds.of(body) != "float":
        truth = scope.as_bool(scope.value(body.children[0])).text
        return f"{place} += (int)({truth});"
    text = scope.as_float(scope.value(body)).text
    if reduction.op in ("sum", "prod"):
        return f"{place} {'+' if reduction.op == 'sum' else '*'}= {text};"
    if reduction.op in ("max", "min"):
        return f"{place} = simt::{reduction.op}imum({text}, {place});"
    sign = 1 if reduction.op == "argmax" else -1
    return f"{place} = simt::winner_of<{sign}>{{}}({place}, simt::Winner{{{text}, $j}});"


def _tunables(plan: PairsPlan, sizes: Mapping[str, int], rooted: bool) -> Tunables:
    known = {**dict.fromkeys(sizes, 1), **sizes}
    rows = evaluate_dimension(plan.row.extent, known)
    batches = prod(evaluate_dimension(b.extent, known) for b in plan.batch)
    of_thread = 4 if rows * batches >= 1 << 16 else 2
    blocks = max(1, -(-rows // (256 * of_thread)) * batches)
    split = next((n for n in (1, 2, 4, 8, 16) if n * blocks >= 3 * _PROCESSORS), 32)
    choices: dict[str, tuple[int | str, ...]] = {
        "THREADS": (256, 128, 512),
        "ROWS": (of_thread, *(n for n in (1, 2, 4, 8) if n != of_thread)),
        "UNROLL": (8, 4, 2, 1), "TILE": (512, 256, 1024),
        "SPLIT": (split, *(n for n in (1, 2, 4, 8, 16, 32) if n != split)),
    }  # fmt: skip
    if rooted:
        choices["FAST"] = (1, 0)
    departures: list[dict[str, int | str]] = [
        {"ROWS": 2, "SPLIT": max(split // 2, 1)}, {"THREADS": 128}, {"UNROLL": 4},
        {"ROWS": 8, "SPLIT": min(split * 2, 32)}, {"SPLIT": min(split * 2, 32)},
        {"THREADS": 512, "SPLIT": min(split * 2, 32)},
    ]  # fmt: skip
    if rooted:
        departures.append({"FAST": 0})
    return Tunables(choices, (), tuple(departures))
