"""The nearest of many centres on a GPU's tensor cores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kernelwright.codegen.assemble import Tunables
from kernelwright.codegen.contraction_lower import flat_loads
from kernelwright.codegen.cuda.assemble import Region, Source
from kernelwright.codegen.cuda.problem import COMMON, ProblemStruct
from kernelwright.codegen.cuda.wide import Alignment
from kernelwright.codegen.emit import Scope, Value
from kernelwright.codegen.naming import without_reserved
from kernelwright.expr.integers import Integers
from kernelwright.expr.nodes import Axis, Load, Node, Program
from kernelwright.expr.pairwise import PairwisePlan, match
from kernelwright.expr.polynomial import ONE
from kernelwright.expr.pretty import pretty
from kernelwright.expr.rowwise import stride_of
from kernelwright.model import Dtype, Family, Lineage
from kernelwright.model.dimensions import dimension_to_c

_NAMES = frozenset({
    "point_count", "centre_count", "depth_count", "point", "points", "centre", "centres", "store",
    "nearest", "found", "CENTRES", "POINTS", "TILES", "ROWS", "WARPS", "PAD", "MOST_STEPS", "norms",
    "aligned",
})  # fmt: skip


def families(
    program: Program, dtype: Dtype, sizes: Mapping[str, int], entry: str
) -> tuple[Family, ...]:
    """The nearest-centre family; empty when the program is no such search in bfloat16."""
    del sizes
    program = without_reserved(program, entry, _NAMES | COMMON)
    plan = match(program)
    if plan is None or dtype is Dtype.F64:
        return ()
    struct = ProblemStruct(program.signature, dtype, _NAMES)
    if not _fill(struct, plan):
        return ()
    struct.context.blocks |= {
        "mma", "copies", "launch", "shared_memory", "scalars", "winner", "division",
    }  # fmt: skip
    tunables = _tunables()
    source = Source(program.signature, struct.context, tunables, entry, "The nearest centre")
    body = [
        struct.instance(),
        "if (const int failed = nearest::run(problem, found, stream)) return failed;",
    ]
    region = Region("found", "char", f"({dimension_to_c(plan.candidate.extent)}) * 4")
    file = Path(__file__).parent / "nearest.cu"
    text = source.text(pretty(program), struct.lines(), body, [region], [file])
    lineage = Lineage("recipe", note="nearest centre")
    return (Family("nearest", "cuda", entry, text, lineage, tunables.defaults()),)


def _fill(struct: ProblemStruct, plan: PairwisePlan) -> bool:
    """Emit operands and results; whether both operands are bfloat16 as they lie."""
    context, signature = struct.context, struct.signature
    integers = Integers(plan.axes)

    def flat(node: Node) -> Node:
        return flat_loads(node, signature, integers)

    point, centre = flat(plan.point), flat(plan.centre)
    bodies = [flat(result.body) for result in plan.results]
    targets = [flat(Load(r.tensor, tuple(map(Axis, r.axes)))) for r in plan.results]
    context.axis_names |= {plan.candidate.axis: "$centre", plan.depth.axis: "$d"}
    context.count_uses([point, centre, *bodies])
    struct.count("point_count", plan.rows)
    struct.count("centre_count", [plan.candidate])
    struct.count("depth_count", [plan.depth])
    rows = struct.name_axes(plan.rows, "$point")
    outer = [b.axis for b in plan.rows]
    alignment = Alignment(context)
    aligned = True
    for name, term, lines, axes in (
        ("point", point, rows, outer), ("centre", centre, [], [plan.candidate.axis]),
    ):  # fmt: skip
        if not isinstance(term, Load) or context.dtypes[term.tensor] is not Dtype.BF16:
            return False
        offset = context.integers.polynomial(term.indices[0])
        if stride_of(offset, plan.depth.axis) != ONE:
            return False
        aligned = alignment.admits(term.indices[0], plan.depth.axis) and aligned
        scope = Scope(context, None, [*axes, plan.depth.axis])
        address = scope.address(term.tensor, scope.offset(term.indices[0]))
        struct.method(f"const bf16* {name}s(int64_t ${name}, int64_t $d)",
                      [*lines, f"return {address};"])  # fmt: skip
        struct.method(f"float {name}(int64_t ${name}, int64_t $d)",
                      [f"return to_float(*{name}s(${name}, $d));"])  # fmt: skip
    conditions = " && ".join(f"({e}) % 8 == 0" for e in alignment.extents) or "true"
    struct.methods.append(
        f"bool aligned() const {{ return {conditions if aligned else 'false'}; }}"
    )
    scope = Scope(context, None, outer)
    scope.known[plan.label] = Value("$centre", "int", width=64)
    scope.known[plan.distance] = Value("$least", "float")
    stores = [
        struct.put(scope, result.tensor, target.children[0], body)
        for result, target, body in zip(plan.results, targets, bodies, strict=True)
    ]
    struct.method("void store(int64_t $point, int64_t $centre, float $least)",
                  [*rows, "(void)$centre, (void)$least;", *scope.lines, *stores])  # fmt: skip
    return True


def _tunables() -> Tunables:
    choices: dict[str, tuple[int | str, ...]] = {
        "THREADS": (256, 128), "TILES": (2, 4), "CENTRES": (128, 64, 32),
    }  # fmt: skip
    departures: tuple[dict[str, int | str], ...] = (
        {"THREADS": 128, "TILES": 4, "CENTRES": 64}, {"THREADS": 128, "TILES": 4},
        {"CENTRES": 64}, {"THREADS": 128, "CENTRES": 64}, {"THREADS": 128},
    )  # fmt: skip
    # what does not fit in shared memory
    return Tunables(choices, ("THREADS * TILES <= 512",), departures)
