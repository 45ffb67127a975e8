"""Histograms on a GPU: copies of the counters in shared memory, one launch more to add them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kernelwright.codegen.assemble import Tunables
from kernelwright.codegen.contraction_lower import flat_loads
from kernelwright.codegen.cuda.assemble import Region, Source
from kernelwright.codegen.cuda.problem import COMMON, ProblemStruct
from kernelwright.codegen.emit import Scope, Value
from kernelwright.codegen.naming import renamed_sizes, without_reserved
from kernelwright.expr.integers import Integers
from kernelwright.expr.nodes import Axis, Load, Program, transform
from kernelwright.expr.pretty import pretty
from kernelwright.expr.scatter import Counting, match
from kernelwright.model import Dtype, Family, Lineage, evaluate_dimension
from kernelwright.model.dimensions import dimension_to_c

_NAMES = frozenset({
    "Key", "Element", "PLAIN", "BYTES", "counted", "COPIES", "key_count", "bin_count", "key",
    "elements", "store", "histogram", "partial",
})  # fmt: skip
_COUNT = Axis("count of a bin")


def families(
    program: Program, dtype: Dtype, sizes: Mapping[str, int], entry: str
) -> tuple[Family, ...]:
    """The histogram family; empty when the program counts nothing by integer keys."""
    program = without_reserved(program, entry, _NAMES | COMMON)
    plan = match(program)
    if plan is None:
        return ()
    struct = _struct(program, plan, dtype)
    is_bytes = "static constexpr bool BYTES = true;" in struct.methods
    known = {**{name: 1 for name in program.signature.dimensions}, **renamed_sizes(sizes)}
    known |= {s.name: 1 for s in program.signature.scalars if s.name not in known}
    tunables = _tunables(is_bytes or evaluate_dimension(plan.bins.extent, known) <= 1024)
    source = Source(program.signature, struct.context, tunables, entry, "A histogram")
    struct.context.blocks |= {"wide", "sweep", "launch", "shared_memory"}
    region = Region(
        "partial", "char", f"histogram::workspace_bytes({dimension_to_c(plan.bins.extent)})"
    )
    body = [
        struct.instance(),
        "if (const int failed = histogram::run(problem, partial, stream)) return failed;",
    ]
    file = Path(__file__).parent / "histogram.cu"
    text = source.text(pretty(program), struct.lines(), body, [region], [file])
    lineage = Lineage("recipe", note="histogram")
    return (Family("histogram", "cuda", entry, text, lineage, tunables.defaults()),)


def _struct(program: Program, plan: Counting, dtype: Dtype) -> ProblemStruct:
    signature = program.signature
    struct = ProblemStruct(signature, dtype, _NAMES)
    context, integers = struct.context, Integers({b.axis: b.extent for b in (plan.bins, plan.keys)})
    context.axis_names |= {plan.bins.axis: "$bin", plan.keys.axis: "$at"}
    counted = transform(plan.body, lambda node: _COUNT if node is plan.count else node)
    key = flat_loads(plan.key, signature, integers)
    body = flat_loads(counted, signature, integers)
    context.count_uses([key, body])
    struct.count("key_count", [plan.keys])
    struct.count("bin_count", [plan.bins])
    plain = isinstance(plan.key, Load) and plan.key.indices == (Axis(plan.keys.axis),)
    struct.methods.append(f"static constexpr bool PLAIN = {str(plain).lower()};")
    at = Scope(context, None, [plan.keys.axis])
    value = at.as_int(at.value(key), 64).text
    narrow = is_bytes = False
    if plain and isinstance(plan.key, Load):
        element = context.dtypes[plan.key.tensor]
        narrow, is_bytes = element.itemsize <= 4, element in (Dtype.U8, Dtype.BOOL)
        struct.methods.append(f"using Element = {element.c_type};")
        struct.method(f"const {element.c_type}* elements()", [f"return {plan.key.tensor};"])
    struct.methods.append(f"static constexpr bool BYTES = {str(is_bytes).lower()};")
    # a negative key of 32 bits is a large one of 32 bits without a sign
    kind = "uint32_t" if narrow else "int64_t"
    struct.methods.append(f"using Key = {kind};")
    struct.method("Key key(int64_t $at)", [*at.lines, f"return (Key)({value});"])
    scope = Scope(context, None, [plan.bins.axis])
    scope.known[_COUNT] = Value("$count", "int", width=64)
    stored = struct.put(scope, plan.tensor, Axis(plan.bins.axis), body)
    struct.method("void store(int64_t $bin, int64_t $count)", [*scope.lines, stored])
    return struct


def _tunables(few: bool) -> Tunables:
    choices: dict[str, tuple[int | str, ...]] = {
        "THREADS": (512, 256, 1024) if few else (1024, 512, 256),
        "COPIES": (32, 16, 8, 4, 1) if few else (8, 4, 2, 1),
        "UNROLL": (4, 2, 1), "GRID": (528, 264, 132, 1056) if few else (132, 264, 528),
    }  # fmt: skip
    departures: tuple[dict[str, int | str], ...] = (
        {"COPIES": 16 if few else 4}, {"UNROLL": 2}, {"THREADS": 256}, {"COPIES": 8 if few else 2},
        {"GRID": 264}, {"UNROLL": 1}, {"COPIES": 1},
    )  # fmt: skip
    return Tunables(choices, (), departures)
