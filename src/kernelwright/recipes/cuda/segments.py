"""Sums over segments on a GPU: segment ends and elements merged, cut into equal pieces."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kernelwright.codegen.assemble import Tunables
from kernelwright.codegen.contraction_lower import flat_loads
from kernelwright.codegen.cuda.assemble import Region, Source
from kernelwright.codegen.cuda.problem import COMMON, ProblemStruct
from kernelwright.codegen.emit import Scope, Value
from kernelwright.codegen.naming import without_reserved
from kernelwright.expr.integers import Integers
from kernelwright.expr.nodes import Axis, Load, Node, Program, transform
from kernelwright.expr.polynomial import Polynomial
from kernelwright.expr.pretty import pretty
from kernelwright.expr.segments import SEGMENT, Segments, match
from kernelwright.model import Dtype, Family, Lineage
from kernelwright.model.dimensions import dimension_to_c

_NAMES = frozenset({
    "segment_count", "element_count", "start", "value", "store", "segments", "Path", "Open", "WAYS",
    "PIECE", "RESIDENT", "TILE", "WARPS", "cuts", "heads", "tails",
})  # fmt: skip
_TOTAL = Axis("sum of a segment")


def families(
    program: Program, dtype: Dtype, sizes: Mapping[str, int], entry: str
) -> tuple[Family, ...]:
    """The segments family; empty when the program sums no segments of floats."""
    program = without_reserved(program, entry, _NAMES | COMMON)
    plan = match(program)
    if plan is None or dtype is Dtype.F64:
        return ()
    struct = ProblemStruct(program.signature, dtype, _NAMES)
    _fill(struct, plan)
    struct.context.blocks |= {"launch", "shuffle"}
    tunables = _tunables()
    counts = [dimension_to_c(b.extent) for b in (plan.segments, plan.elements)]
    size = f"(segments::blocks_of({', '.join(counts)}) + 1) * 16"
    source = Source(program.signature, struct.context, tunables, entry, "Sums over segments")
    body = [
        struct.instance(),
        "if (const int failed = segments::run(problem, cuts, stream)) return failed;",
    ]
    file = Path(__file__).parent / "segments.cu"
    region = Region("cuts", "char", size)
    text = source.text(pretty(program), struct.lines(), body, [region], [file])
    lineage = Lineage("recipe", note="segments")
    return (Family("segments", "cuda", entry, text, lineage, tunables.defaults()),)


def _fill(struct: ProblemStruct, plan: Segments) -> None:
    """Where segments begin, what is summed, and what is stored."""
    context, signature = struct.context, struct.signature
    known = {plan.segments.axis: plan.segments.extent, plan.elements.axis: plan.elements.extent}
    known[SEGMENT] = f"({plan.segments.extent})+1"
    integers = Integers(known)
    context.axis_names |= {
        SEGMENT: "$segment", plan.elements.axis: "$at", plan.segments.axis: "$segment",
    }  # fmt: skip
    start = flat_loads(plan.start, signature, integers)
    value = flat_loads(plan.value, signature, integers)
    summed = transform(plan.body, lambda node: _TOTAL if node is plan.total else node)
    body = flat_loads(summed, signature, integers)
    context.count_uses([start, value, body])
    struct.count("segment_count", [plan.segments])
    struct.count("element_count", [plan.elements])
    scope = Scope(context, None, [SEGMENT])
    text = scope.as_int(scope.value(start), 64).text
    struct.method("int64_t start(int64_t $segment)", [*scope.lines, f"return {text};"])
    scope = Scope(context, None, [plan.elements.axis])
    value = _streamed(scope, value, plan.elements.axis)
    text = scope.as_float(scope.value(value)).text
    struct.method("float value(int64_t $at)", [*scope.lines, f"return {text};"])
    scope = Scope(context, None, [plan.segments.axis])
    scope.known[_TOTAL] = Value("$sum", "float")
    stored = struct.put(scope, plan.tensor, Axis(plan.segments.axis), body)
    struct.method("void store(int64_t $segment, float $sum)", [*scope.lines, stored])


def _streamed(scope: Scope, value: Node, axis: str) -> Node:
    """The value with loads of consecutive elements made first, past what is gathered."""
    kinds, dtypes = scope.context.kinds, scope.context.dtypes

    def change(node: Node) -> Node:
        if not isinstance(node, Load) or (kind := kinds.of(node)) == "bool":
            return node
        offset = scope.offset(node.indices[0])
        if offset != Polynomial.atom(Axis(axis)):
            return node
        stands = Axis(f"{node.tensor} streamed")
        if stands.name not in scope.context.axis_names:
            name = scope.local(f"{node.tensor}_at")
            read = f"simt::once({scope.address(node.tensor, offset)})"
            if kind == "float":
                half = dtypes[node.tensor] is Dtype.F16
                scope.context.blocks |= {"scalars_f16" if half else "scalars"}
                read = f"simt::value({read})"
            scope.context.blocks |= {"once"}
            scope.lines.append(f"const {scope.type_of(Value(name, kind))} {name} = {read};")
            scope.context.axis_names[stands.name] = name
            scope.known[stands] = Value(name, kind)
        return stands

    return transform(value, change)


def _tunables() -> Tunables:
    choices: dict[str, tuple[int | str, ...]] = {
        "THREADS": (512, 256, 128), "PIECE": (9, 11, 15, 13, 7), "RESIDENT": (3, 6, 4, 2),
    }  # fmt: skip
    departures: tuple[dict[str, int | str], ...] = (
        {"PIECE": 11}, {"THREADS": 256, "RESIDENT": 6}, {"PIECE": 15}, {"PIECE": 13},
        {"PIECE": 7, "RESIDENT": 4},
    )  # fmt: skip
    return Tunables(choices, ("THREADS * RESIDENT <= 2048",), departures)
