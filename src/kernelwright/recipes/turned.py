"""Transpositions, and pointwise work along with them: tiles turned in registers."""

from __future__ import annotations

from collections.abc import Mapping
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
from kernelwright.codegen.blocks import SHUFFLE
from kernelwright.codegen.emit import Context, Scope, Value
from kernelwright.codegen.library import paste
from kernelwright.codegen.naming import without_reserved
from kernelwright.expr.nodes import Program
from kernelwright.expr.turned import Turned, match
from kernelwright.model import Dtype, Family, Lineage, Machine
from kernelwright.model.dimensions import dimension_to_c

_STORED = {Dtype.F32: "write_floats", Dtype.BF16: "write_bf16", Dtype.F16: "write_f16"}
_NAMES = frozenset({
    "Problem", "CROSSED", "BYTES", "PAIRS", "outer_count", "across_count", "column_count",
    "crossed", "store", "prefetch", "place", "target", "pairs", "shorts", "lanes", "Lanes",
    "turned", "shuffle", "simd", "LANES", "SPAN", "STRIP", "PART", "STREAM", "STREAMED",
    "PREFETCH",
})  # fmt: skip
_MOST_CROSSED = 3


def families(
    program: Program, dtype: Dtype, machine: Machine, sizes: Mapping[str, int], entry: str
) -> tuple[Family, ...]:
    """The family of turned tiles; empty when the program reads nothing across its rows."""
    program = without_reserved(program, entry, _NAMES)
    plan = match(program)
    signature = program.signature
    if plan is None or signature.outputs[0].resolve(dtype) not in _STORED:
        return ()
    context = Context(signature, dtype)
    if len(plan.crossed) > _MOST_CROSSED or any(
        context.dtypes[load.tensor] is Dtype.F64 for load in plan.crossed
    ):
        return ()
    struct = _Writer(context, plan).write()
    tunables = _tunables(machine, signature.outputs[0].resolve(dtype).itemsize == 2)
    tensors = [t.name for t in signature.tensors]
    numbers = [*signature.dimensions, *(s.name for s in signature.scalars)]
    source = "\n".join([
        f"// turned tiles: {plan.tensor}, {dtype} workloads.", tunables.declarations(), "",
        INCLUDES, "", paste(context.blocks), "", block_file(SHUFFLE), "",
        block_file(Path(__file__).parent / "turned.hpp"), "", *struct, "",
        f'extern "C" {signature.prototype(entry, dtype)} {{',
        "    (void)prepared, (void)workspace, (void)workspace_bytes, (void)stream;",
        f"    return turned::run(Problem{{{', '.join([*tensors, *numbers])}}});", "}", "",
    ])  # fmt: skip
    lineage = Lineage("recipe", note="turned tiles")
    return (Family("turned", "cpp", entry, source, lineage, tunables.defaults()),)


class _Writer:
    """Emits `struct Problem` of the block `turned`."""

    def __init__(self, context: Context, plan: Turned) -> None:
        self.context, self.plan = context, plan
        context.taken |= _NAMES
        context.axis_names |= {b.axis: context.fresh("i") for b in plan.outer}
        context.axis_names |= {plan.across.axis: "$n", plan.column.axis: "$m"}
        context.blocks |= {_STORED[context.dtypes[plan.tensor]], "parallel"}
        context.count_uses([plan.body])

    def write(self) -> list[str]:
        """The lines of the struct."""
        signature, dtype, plan = self.context.signature, self.context.dtype, self.plan
        output = signature.outputs[0].resolve(dtype)
        fields = [f"const {t.resolve(dtype).c_type}* {t.name};" for t in signature.inputs]
        fields += [f"{t.resolve(dtype).c_type}* {t.name};" for t in signature.outputs]
        fields += [f"int64_t {name};" for name in signature.dimensions]
        fields += [f"{s.c_type} {s.name};" for s in signature.scalars]
        outer = " * ".join(f"({dimension_to_c(b.extent)})" for b in plan.outer) or "1"
        fields += [f"int64_t outer_count = {outer};",
                   f"int64_t across_count = {dimension_to_c(plan.across.extent)};",
                   f"int64_t column_count = {dimension_to_c(plan.column.extent)};"]  # fmt: skip
        loads, fetches = self._crossed()
        methods = [
            f"static constexpr int CROSSED = {len(plan.crossed)}, BYTES = {output.itemsize};",
            *self._moved(),
            "// What a load that is contiguous along `$n` gives for `$m`.",
            "template <int LOAD, class Lanes>",
            "INLINED simd::floats crossed(std::integral_constant<int, LOAD>, int64_t $outer, "
            "int64_t $n, int64_t $m, Lanes lanes) const {",
            *indent([*self._outer(), *loads]), "}",
            "INLINED void prefetch(int64_t $outer, int64_t $n, int64_t $m) const {",
            *indent([*self._outer(), *fetches]), "}",
            "// Writes `$m` and the lanes after it.",
            "template <bool STREAMED, class Lanes>",
            "INLINED void store(int64_t $outer, int64_t $n, int64_t $m, const simd::floats* $own, "
            "Lanes lanes) const {",
            *indent([*self._outer(), *self._store()]), "}",
        ]  # fmt: skip
        lines = ["struct Problem {", *indent([*fields, "", *methods]), "};"]
        return name_locals(lines, self.context.fresh)

    def _moved(self) -> list[str]:
        """Addresses of elements of 16 bits that go from one tensor to another as they are."""
        plan, context = self.plan, self.context
        load = plan.crossed[0]
        target = context.dtypes[plan.tensor]
        pairs = load is plan.body and target is context.dtypes[load.tensor] and target.itemsize == 2
        lines = [f"static constexpr bool PAIRS = {str(pairs).lower()};"]
        scope = self._scope(plan.across.axis)
        for name, pointer, tensor, offset in (
            ("place", "const uint16_t*", load.tensor, load.indices[0]),
            ("target", "uint16_t*", plan.tensor, plan.offset),
        ):
            if pairs:
                address = scope.address(tensor, scope.offset(offset))
                lines += [
                    f"INLINED {pointer} {name}(int64_t $outer, int64_t $n, int64_t $m) const {{",
                    *indent([*self._outer(), f"return ({pointer})({address});"]), "}",
                ]  # fmt: skip
        return lines

    def _outer(self) -> list[str]:
        lines, index = ["(void)$outer;"], "$outer"
        for number, bound in reversed(list(enumerate(self.plan.outer))):
            name, extent = self.context.axis_names[bound.axis], dimension_to_c(bound.extent)
            text = f"({index}) % ({extent})" if number else index
            lines += [f"const int64_t {name} = {text};", f"(void){name};"]
            index = f"({index}) / ({extent})"
        return lines

    def _scope(self, vector: str) -> Scope:
        plan = self.plan
        axes = [b.axis for b in (*plan.outer, plan.across, plan.column)]
        return Scope(self.context, Scope(self.context, None, []), axes, vector)

    def _crossed(self) -> tuple[list[str], list[str]]:
        loads: list[str] = []
        fetches: list[str] = []
        for number, load in enumerate(self.plan.crossed):
            scope = self._scope(self.plan.across.axis)
            value = scope.value(load).text
            loads += [f"if constexpr (LOAD == {number}) {{",
                      *indent([*scope.lines, f"return {value};"]), "}"]  # fmt: skip
            fetches += [f"__builtin_prefetch({address});" for _, address in scope.loads]
            scope.close()
        return loads, fetches

    def _store(self) -> list[str]:
        plan, scope = self.plan, self._scope(self.plan.column.axis)
        for number, load in enumerate(plan.crossed):
            scope.known[load] = Value(f"$own[{number}]", "float", True)
        value = scope.spread(scope.as_float(scope.value(plan.body))).text
        place = scope.address(plan.tensor, scope.offset(plan.offset))
        parent = scope.parent.lines if scope.parent else []
        return [
            *parent, *scope.lines,
            f"if constexpr (STREAMED) simd::write({place}, {value}, lanes);",
            f"else simd::store({place}, {value}, lanes);",
        ]  # fmt: skip


def _tunables(machine: Machine, narrow: bool) -> Tunables:
    choices: dict[str, tuple[int | str, ...]] = {
        "LANES": lane_choices(machine), "SPAN": (2, 4, 1) if narrow else (2, 1),
        "STRIP": (32, 64, 128), "PART": (1024, 256, 4096), "STREAM": (1, 0),
        "PREFETCH": (0, 64, 32, 16),
    }  # fmt: skip
    departures: tuple[dict[str, int | str], ...] = (
        {"STRIP": 64}, {"PREFETCH": 64}, {"STREAM": 0}, {"STRIP": 128}, {"PART": 256},
        {"SPAN": 4, "STRIP": 64} if narrow else {"SPAN": 1},
    )  # fmt: skip
    constraints = ("STRIP % (SPAN * LANES) == 0",)
    return Tunables(choices | toolchain_choices(machine), constraints, departures)
