"""Products with weights of 4 bits in groups on a GPU's tensor cores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kernelwright.codegen.assemble import Tunables
from kernelwright.codegen.cuda.assemble import Source
from kernelwright.codegen.cuda.problem import COMMON
from kernelwright.codegen.dialects import CUDA
from kernelwright.codegen.emit import Context
from kernelwright.codegen.naming import without_reserved
from kernelwright.expr.nodes import Program
from kernelwright.expr.pretty import pretty
from kernelwright.model import Dtype, Family, Lineage
from kernelwright.model.dimensions import dimension_to_c
from kernelwright.recipes.nibbles import recognise

_NAMES = frozenset({
    "Problem", "nibbles", "Input", "input", "codes", "scales", "zeros", "output", "row_count",
    "column_count", "depth_count", "GROUP", "STEPS", "TILES", "TILE_ROWS", "AHEAD", "MANY", "WARPS",
    "Codes",
})  # fmt: skip
_STEPS = 128
"""Steps that the kernel takes at once; groups are whole multiples of them."""


def families(
    program: Program, dtype: Dtype, sizes: Mapping[str, int], entry: str
) -> tuple[Family, ...]:
    """The family of such a product; empty when the program is none, or not of 16 bits."""
    del sizes
    if dtype not in (Dtype.BF16, Dtype.F16):
        return ()
    program = without_reserved(program, entry, _NAMES | COMMON)
    weights = recognise(program)
    if weights is None or weights.group % _STEPS:
        return ()
    signature, kind = program.signature, dtype.c_type
    context = Context(signature, dtype, CUDA)
    context.blocks |= {"mma", "launch", "shared_memory", "scalars"}
    if dtype is Dtype.F16:
        context.blocks.add("scalars_f16")
    counts = ", ".join(map(dimension_to_c, (weights.rows, weights.columns, weights.depth)))
    struct = [
        "namespace {", "", "struct Problem {",
        f"    using Input = {kind};",
        f"    const {kind}* input;", "    const uint8_t* codes;", f"    const {kind}* scales;",
        "    const uint8_t* zeros;", f"    {kind}* output;",
        "    int64_t row_count, column_count, depth_count;", "};", "", "}  // namespace", "",
    ]  # fmt: skip
    body = [
        f"const Problem problem{{{weights.input}, {weights.codes}, {weights.scales}, "
        f"{weights.zeros}, {signature.outputs[0].name}, {counts}}};",
        "if (const int failed = nibbles::run(problem, stream)) return failed;",
    ]
    tunables = _tunables()
    source = Source(signature, context, tunables, entry, "A product with weights of 4 bits")
    file = Path(__file__).parent / "nibbles.cu"
    fixed = [f"#define GROUP {weights.group}", ""]
    text = source.text(pretty(program), struct, body, (), [file], fixed)
    lineage = Lineage("recipe", note="nibbles")
    return (Family("nibbles", "cuda", entry, text, lineage, tunables.defaults()),)


def _tunables() -> Tunables:
    choices: dict[str, tuple[int | str, ...]] = {
        "THREADS": (128, 256), "TILES": (2, 1, 4), "AHEAD": (1, 2, 4),
    }  # fmt: skip
    departures: tuple[dict[str, int | str], ...] = (
        {"TILES": 1, "AHEAD": 2}, {"AHEAD": 2}, {"TILES": 1, "AHEAD": 4}, {"TILES": 1},
        {"THREADS": 256, "TILES": 1, "AHEAD": 2}, {"TILES": 4},
    )  # fmt: skip
    return Tunables(choices, (), departures)
