"""Nearest centre: the register tile of a contraction with an arg-min on top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from kernelwright.codegen.blocks import CONTRACTION_TILE, SHUFFLE
from kernelwright.codegen.contraction_lower import flat_loads
from kernelwright.codegen.emit import Context, Scope, Value
from kernelwright.codegen.library import paste
from kernelwright.codegen.matrix_unit import (
    ON_MATRIX_UNIT,
    has_matrix_unit,
    on_unit,
    tile_definitions,
    unit_blocks,
)
from kernelwright.codegen.naming import without_reserved
from kernelwright.expr.integers import Integers
from kernelwright.expr.nodes import Axis, Load, Node, Program
from kernelwright.expr.pairwise import PairwisePlan, match
from kernelwright.expr.rowwise import Bound
from kernelwright.model import Dtype, Family, Lineage, Machine
from kernelwright.model.dimensions import dimension_to_c

_BLOCK = Path(__file__).parent / "pairwise.hpp"
_NAMES = frozenset({
    "Problem", "row_count", "centre_count", "depth_count", "pack_points", "pack_centres",
    "distance", "store", "lanes", "nearest", "contraction", "shuffle", "simd",
    "LANES", "MR", "NV", "UNROLL_K", "PREFETCH", "DOT",
})  # fmt: skip


def families(
    program: Program, dtype: Dtype, machine: Machine, sizes: Mapping[str, int], entry: str
) -> tuple[Family, ...]:
    """The nearest-centre family; empty when the program is no such search."""
    program = without_reserved(program, entry, _NAMES)
    plan = match(program)
    signature = program.signature
    if plan is None or dtype is Dtype.F64:
        return ()
    context = Context(signature, dtype)
    writer = _Writer(context, plan)
    struct = writer.write()
    schedules = {"pairwise": _tunables(machine)}
    if writer.narrow() and has_matrix_unit(machine):
        fixed = Tunables(toolchain_choices(machine))
        schedules = {f"pairwise {ON_MATRIX_UNIT}": fixed, **schedules}
    return tuple(
        Family(name, "cpp", entry, _source(context, name, tunables, struct, entry),
               Lineage("recipe", note=f"nearest centre, {name}"), tunables.defaults())
        for name, tunables in schedules.items()
    )  # fmt: skip


def _source(context: Context, name: str, tunables: Tunables, struct: list[str], entry: str) -> str:
    signature = context.signature
    tensors = [t.name for t in signature.tensors]
    numbers = [*signature.dimensions, *(s.name for s in signature.scalars)]
    nothing = ["nullptr"] * len(tensors)
    outputs = ", ".join(t.name for t in signature.outputs)
    unit = on_unit(name)
    return "\n".join([
        f"// nearest centre: {outputs}, {context.dtype} workloads.", tunables.declarations(), "",
        *([*tile_definitions(name), ""] if unit else []),
        INCLUDES, "", paste(context.blocks), "", block_file(SHUFFLE), "",
        block_file(CONTRACTION_TILE), "", *(unit_blocks(name) if unit else []),
        block_file(_BLOCK), "", *struct, "",
        f'extern "C" {signature.workspace_prototype(entry)} {{',
        f"    const Problem problem{{{', '.join([*nothing, *numbers])}}};",
        "    return nearest::Sizes(problem).bytes();", "}", "",
        f'extern "C" {signature.prototype(entry, context.dtype)} {{',
        "    (void)prepared, (void)stream;",
        f"    const Problem problem{{{', '.join([*tensors, *numbers])}}};",
        "    return nearest::run(problem, workspace, workspace_bytes);", "}", "",
    ])  # fmt: skip


class _Writer:
    """Emits `struct Problem` of the block `nearest`."""

    def __init__(self, context: Context, plan: PairwisePlan) -> None:
        self.context, self.plan = context, plan
        integers = Integers(plan.axes)
        self.point = flat_loads(plan.point, context.signature, integers)
        self.centre = flat_loads(plan.centre, context.signature, integers)
        self.bodies = [flat_loads(r.body, context.signature, integers) for r in plan.results]
        self.targets = [
            flat_loads(Load(r.tensor, tuple(Axis(a) for a in r.axes)), context.signature, integers)
            for r in plan.results
        ]
        context.taken |= _NAMES
        hints = ((plan.candidate, "j"), (plan.depth, "k"), *((b, "i") for b in plan.rows))
        for bound, hint in hints:
            context.axis_names[bound.axis] = context.fresh(hint)
        context.count_uses([self.point, self.centre, *self.bodies])
        context.blocks |= {"load_floats", "store_floats"}

    def narrow(self) -> bool:
        """Whether points and centres are bfloat16 as they lie."""
        dtypes = self.context.dtypes
        both = (self.point, self.centre)
        return all(isinstance(t, Load) and dtypes[t.tensor] is Dtype.BF16 for t in both)

    def write(self) -> list[str]:
        """The lines of the struct."""
        signature, dtype = self.context.signature, self.context.dtype
        fields = [f"const {t.resolve(dtype).c_type}* {t.name};" for t in signature.inputs]
        fields += [f"{t.resolve(dtype).c_type}* {t.name};" for t in signature.outputs]
        fields += [f"int64_t {name};" for name in signature.dimensions]
        fields += [f"{s.c_type} {s.name};" for s in signature.scalars]
        extents = [dimension_to_c(b.extent) for b in self.plan.rows]
        fields += [f"int64_t row_count = {' * '.join(extents) or '1'};",
                   f"int64_t centre_count = {dimension_to_c(self.plan.candidate.extent)};",
                   f"int64_t depth_count = {dimension_to_c(self.plan.depth.extent)};"]  # fmt: skip
        methods = [
            "// `$count` points as rows of a panel of A.",
            "void pack_points(int64_t $first, int $count, float* $to) const {",
            *indent(self._pack_points()), "}", "",
            "// `$count` centres as columns of a panel of B.",
            "void pack_centres(int64_t $first, int $count, float* $to) const {",
            *indent(self._pack_centres()), "}", "",
            "// The squared distance of a point and a centre, as a plain sum.",
            "float distance(int64_t $row, int64_t $centre) const {",
            *indent(self._distance()), "}", "",
            "void store(int64_t $row, int64_t $label, float $least) const {",
            *indent(self._store()), "}",
        ]  # fmt: skip
        lines = ["struct Problem {", *indent([*fields, "", *methods]), "};"]
        return name_locals(lines, self.context.fresh)

    def _rows(self, parent: Scope | None, index: str) -> Scope:
        rows = self.plan.rows
        scope = Scope(self.context, parent, [b.axis for b in rows])
        for number, bound in reversed(list(enumerate(rows))):
            name, extent = self.context.axis_names[bound.axis], dimension_to_c(bound.extent)
            text = f"({index}) % {extent}" if number else index
            scope.lines.append(f"const int64_t {name} = {text};")
            index = f"({index}) / {extent}"
        return scope

    def _one(self, parent: Scope | None, bound: Bound, index: str) -> Scope:
        scope = Scope(self.context, parent, [bound.axis])
        scope.lines.append(f"const int64_t {self.context.axis_names[bound.axis]} = {index};")
        return scope

    def _along_depth(self, parent: Scope) -> Scope:
        axis = self.plan.depth.axis
        scope = Scope(self.context, parent, [axis], axis)
        scope.lines.append(f"const int64_t {self.context.axis_names[axis]} = $at;")
        return scope

    @staticmethod
    def _sweep(end: str, body: Sequence[str]) -> list[str]:
        head = f"simd::sweep<1>(0, {end}, [&](int64_t $at, auto lanes, auto) INLINED {{"
        return [head, *indent(["(void)lanes;", *body]), "});"]

    def _vector(self, scope: Scope, term: Node) -> str:
        return scope.spread(scope.as_float(scope.value(term))).text

    def _pack_points(self) -> list[str]:
        top = Scope(self.context, None, [])
        row = self._rows(top, "$first + $r")
        vector = self._along_depth(row)
        # zero beyond the depth: the norms of points are summed over whole blocks
        value = f"simd::keep({self._vector(vector, self.point)}, simd::floats{{}}, lanes)"
        store = f"simd::store($to + contraction::inner_k($r, $at), {value}, simd::all_lanes{{}});"
        loop = self._sweep("depth_count", [*vector.lines, store])
        return [
            *top.lines, "contraction::clear_rows($to, $count, depth_count);",
            "for (int $r = 0; $r < $count; ++$r) {", *indent([*row.lines, *loop]), "}",
        ]  # fmt: skip

    def _pack_centres(self) -> list[str]:
        top = Scope(self.context, None, [])
        centre = self._one(top, self.plan.candidate, "$first + $r")
        step = self._one(centre, self.plan.depth, "$at")
        value = step.as_float(step.value(self.centre)).text
        store = f"$to[$at * contraction::NR + $r] = {value};"
        return [
            *top.lines,
            "for (int64_t $at = 0; $at < depth_count * contraction::NR; ++$at) $to[$at] = 0.0f;",
            "for (int $r = 0; $r < $count; ++$r) {", *indent(centre.lines),
            "    for (int64_t $at = 0; $at < depth_count; ++$at) {",
            *indent([*step.lines, store], 2),
            "    }", "}",
        ]  # fmt: skip

    def _distance(self) -> list[str]:
        top = Scope(self.context, None, [])
        row = self._rows(top, "$row")
        both = self._one(row, self.plan.candidate, "$centre")
        vector = self._along_depth(both)
        point, centre = self._vector(vector, self.point), self._vector(vector, self.centre)
        name = self.context.fresh("difference")
        gap = f"simd::keep({point} - {centre}, simd::floats{{}}, lanes)"
        body = [f"const simd::floats {name} = {gap};", f"$total += {name} * {name};"]
        return [
            *top.lines, *row.lines, *both.lines, "simd::floats $total = {};",
            *self._sweep("depth_count", [*vector.lines, *body]), "return shuffle::sum($total)[0];",
        ]  # fmt: skip

    def _store(self) -> list[str]:
        row = self._rows(Scope(self.context, None, []), "$row")
        row.known[self.plan.label] = Value("$label", "int", width=64)
        row.known[self.plan.distance] = Value("$least", "float")
        stores: list[str] = []
        for result, target, body in zip(self.plan.results, self.targets, self.bodies, strict=True):
            dtype = self.context.dtypes[result.tensor]
            offset = row.offset_text(row.offset(target.children[0]))
            value = row.value(body)
            if dtype.is_float:
                row.need("scalars_f16" if dtype is Dtype.F16 else "scalars")
                stores.append(f"simd::put({result.tensor} + {offset}, {row.as_float(value).text});")
            else:
                text = row.as_int(value, 64).text
                stores.append(f"{result.tensor}[{offset}] = ({dtype.c_type})({text});")
        parent = row.parent.lines if row.parent else []
        return ["(void)$label, (void)$least;", *parent, *row.lines, *stores]


def _tunables(machine: Machine) -> Tunables:
    wide = "avx512f" in machine.isa
    choices: dict[str, tuple[int | str, ...]] = {
        "LANES": lane_choices(machine),
        "MR": (6, 12, 14, 8, 4) if wide else (6, 4, 3, 8),
        "NV": (4, 2, 3, 1) if wide else (2, 1, 3),
        "UNROLL_K": (4, 1, 2, 8, 16), "PREFETCH": (0, 4, 8),
    }  # fmt: skip
    constraints = (f"MR * NV + NV + 1 <= {32 if wide else 16}",)
    departures: tuple[dict[str, int | str], ...] = (
        {"UNROLL_K": 16}, {"MR": 14, "NV": 2, "UNROLL_K": 1}, {"MR": 12, "NV": 2},
        {"MR": 8, "NV": 3}, {"UNROLL_K": 1}, {"MR": 4, "NV": 2},
    )  # fmt: skip
    return Tunables(choices | toolchain_choices(machine), constraints, departures)
