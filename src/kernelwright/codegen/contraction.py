"""Contraction kernels: a blocked matrix product with any epilogue, from a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from math import ceil, prod

from kernelwright.codegen.assemble import (
    INCLUDES,
    Tunables,
    Values,
    block_file,
    indent,
    lane_choices,
    toolchain_choices,
)
from kernelwright.codegen.blocks import (
    CONTRACTION,
    CONTRACTION_DOT,
    CONTRACTION_PAIRS,
    CONTRACTION_TILE,
    SHUFFLE,
)
from kernelwright.codegen.contraction_lower import FlatContraction, lower
from kernelwright.codegen.contraction_writer import MEMBERS, ContractionWriter
from kernelwright.codegen.emit import Context
from kernelwright.codegen.library import paste
from kernelwright.codegen.matrix_unit import (
    IN_PARTS,
    ON_MATRIX_UNIT,
    TILE,
    has_matrix_unit,
    on_unit,
    tile_definitions,
    unit_blocks,
)
from kernelwright.codegen.naming import renamed_sizes, without_reserved
from kernelwright.expr.contraction import match
from kernelwright.expr.nodes import Program
from kernelwright.expr.rowwise import Bound
from kernelwright.model import Dtype, Family, Lineage, Machine, Signature, evaluate_dimension

MATRIX_UNIT = f"contraction {ON_MATRIX_UNIT}"
PARTS = f"contraction {IN_PARTS}"
NAMES = ("contraction", MATRIX_UNIT, PARTS)
"""Of all families here."""
_LEAST_TILE = 16
"""With fewer rows, columns or steps than this, taking operands apart costs more than it saves."""
_TUNABLE_NAMES = frozenset({
    "LANES", "MR", "NV", "KC", "MC", "NC", "PARTITION", "ORDER", "UNROLL_K", "PREFETCH", "PACK_B",
    "AHEAD", "DOT",
})  # fmt: skip


def families(
    program: Program, dtype: Dtype, machine: Machine, sizes: Mapping[str, int], entry: str
) -> tuple[Family, ...]:
    """The contraction families of a program, the fastest unit first; empty when it is none.

    Not covered, although they match: float64 workloads, and several column axes that do not move
    together.
    """
    program = without_reserved(program, entry, MEMBERS | _TUNABLE_NAMES)
    sizes = renamed_sizes(sizes)
    plan = match(program)
    if plan is None or dtype is Dtype.F64:
        return ()
    flat = lower(plan, program.signature)
    signature = program.signature
    if len(flat.columns) != 1:
        return ()
    context = Context(signature, dtype)
    writer = ContractionWriter(context, flat)
    struct = writer.write()
    dots = dot_choices(machine) if writer.pairs() else ()
    in_vectors = plan_tunables(flat, machine, sizes, writer.in_place(), dots)
    schedules = {"contraction": in_vectors}
    if has_matrix_unit(machine):
        if writer.pairs():
            schedules = {MATRIX_UNIT: matrix_unit_tunables(flat, machine, sizes), **schedules}
        elif all(_size(b, sizes) >= _LEAST_TILE for b in (flat.rows, flat.columns, flat.depth)):
            schedules = {PARTS: parts_tunables(flat, machine, sizes), **schedules}
    if writer.right_is_static():
        schedules = {name: _packed_before(tunables) for name, tunables in schedules.items()}
    return tuple(
        Family(name, "cpp", entry, _source(context, name, tunables, struct, entry),
               Lineage("recipe", note=name), tunables.defaults())
        for name, tunables in schedules.items()
    )  # fmt: skip


def _packed_before(tunables: Tunables) -> Tunables:
    """The same with right operands that are packed before the call, by default."""
    first = {"PACK_B": (3, *tunables.choices["PACK_B"])}
    return replace(tunables, choices={**tunables.choices, **first})


def _source(context: Context, name: str, tunables: Tunables, struct: list[str], entry: str) -> str:
    signature = context.signature
    outputs, inputs = signature.outputs, signature.inputs
    title = f"{', '.join(t.name for t in outputs)} from {', '.join(t.name for t in inputs)}"
    fixed, pairs = [], []
    if on_unit(name):
        fixed, pairs = [*tile_definitions(name), ""], unit_blocks(name)
    elif "DOT" in tunables.choices:
        pairs = ["#if DOT", block_file(CONTRACTION_PAIRS), "", block_file(CONTRACTION_DOT),
                 "#endif", ""]  # fmt: skip
    parts = [
        f"// {name}: {title}, {context.dtype} workloads.",
        tunables.declarations(), "", *fixed, INCLUDES, "", "#include <atomic>",
        "#include <thread>", "", paste(context.blocks), "", block_file(SHUFFLE), "",
        block_file(CONTRACTION_TILE), "", *pairs, block_file(CONTRACTION), "",
        *struct, "", *_entry_points(signature, context.dtype, entry),
    ]  # fmt: skip
    return "\n".join(parts) + "\n"


def _entry_points(signature: Signature, dtype: Dtype, entry: str) -> list[str]:
    tensors = [t.name for t in signature.tensors]
    numbers = [*signature.dimensions, *(s.name for s in signature.scalars)]
    nothing = ["nullptr"] * len(tensors)
    unknown = f"const Problem problem{{{', '.join([*nothing, *numbers])}}};"
    return [
        f'extern "C" {signature.workspace_prototype(entry)} {{',
        *indent([unknown, "return contraction::Plan<Problem>(problem).bytes();"]),
        "}", "",
        *_packing_points(signature, dtype, entry, unknown),
        f'extern "C" {signature.prototype(entry, dtype)} {{',
        *indent(["(void)stream;",
                 f"const Problem problem{{{', '.join([*tensors, *numbers])}}};",
                 "return contraction::run(problem, prepared, workspace, workspace_bytes);"]),
        "}",
    ]  # fmt: skip


def _packing_points(signature: Signature, dtype: Dtype, entry: str, unknown: str) -> list[str]:
    """The functions that pack before the call, where the schedule does."""
    if not signature.static_inputs:
        return []
    prepared, prepare = signature.prepare_prototypes(entry, dtype)
    static = [t.name if t.static else "nullptr" for t in signature.tensors]
    numbers = [*signature.dimensions, *(s.name for s in signature.scalars)]
    return [
        "#if PACK_B == 3",
        f'extern "C" {prepared} {{',
        *indent([unknown, "return contraction::Prepared<Problem>(problem).bytes(problem);"]),
        "}", "",
        f'extern "C" {prepare} {{',
        *indent(["(void)stream;", f"const Problem problem{{{', '.join([*static, *numbers])}}};",
                 "return contraction::prepare(problem, prepared);"]),
        "}", "#endif", "",
    ]  # fmt: skip


# -- tunables ------------------------------------------------------------------------------------


def _size(bounds: Sequence[Bound], sizes: Mapping[str, int]) -> int:
    return prod(evaluate_dimension(bound.extent, sizes) for bound in bounds)


def dot_choices(machine: Machine) -> tuple[int, ...]:
    """How bfloat16 may be multiplied: 0 as floats, 1 in pairs, which not all do faster."""
    return (0, 1) if "avx512_bf16" in machine.isa else ()


def plan_tunables(
    flat: FlatContraction,
    machine: Machine,
    sizes: Mapping[str, int],
    in_place: bool,
    dots: tuple[int, ...] = (),
) -> Tunables:
    """Register tiles that fit the machine, cache blocks, partition; good assignments first."""
    m, n = _size(flat.rows, sizes), _size(flat.columns, sizes)
    batch, k = _size(flat.batch, sizes), _size(flat.depth, sizes)
    wide = "avx512f" in machine.isa
    tiles = (6, 14, 12, 8, 4, 24) if wide else (6, 4, 3, 8, 12)
    tiles = tuple(t for t in tiles if t <= max(4, m)) or (4,)
    vectors = (4, 2, 3, 1) if wide else (2, 1, 3)
    lanes = lane_choices(machine)
    partition = (2, 0, 1) if batch >= 2 * machine.cores else (0, 1, 2) if m >= n // 4 else (1, 0, 2)
    if not flat.batch:
        partition = tuple(p for p in partition if p != 2)
    depths, widths = (256, 512, 384, 1024), (4096, 2048, 1024, 512, 256)
    if not in_place:  # the columns inside: their whole block stays in L2, packed once for all
        room = machine.l2_bytes / 2 / (4 * len(flat.lefts) * min(depths[0], k))
        widths = tuple(sorted(widths, key=lambda w: (w > room, -w)))
    choices: dict[str, tuple[int | str, ...]] = {
        "LANES": lanes, "MR": tiles, "NV": vectors,
        "KC": depths, "MC": (384, 96, 192, 768), "NC": widths, "PARTITION": partition,
        "ORDER": (0, 1) if in_place else (1, 0), "UNROLL_K": (2, 1, 4, 8, 16),
        "PREFETCH": (8, 0, 4, 16), "PACK_B": (2, 1, 0) if in_place else (1, 2), "AHEAD": (1, 0),
    }  # fmt: skip
    registers = 32 if wide else 16
    fits = f"MR * NV + NV + 1 <= {registers}"
    constraints = (fits, "PACK_B != 2 or ORDER == 0")
    clang = next((t.name for t in reversed(machine.toolchains) if "clang" in t.name), "")
    departures: tuple[dict[str, int | str], ...] = (
        {"CXX": clang, "UNROLL_K": 4}, {"MR": 14, "NV": 2, "UNROLL_K": 1},
        {"KC": 512}, {"MR": 8, "NV": 3}, {"CXX": clang, "MR": 12, "NV": 2, "UNROLL_K": 4},
        {"PARTITION": partition[1]}, {"PACK_B": 1, "ORDER": 0, "PREFETCH": 0},
        {"PACK_B": 1, "ORDER": 1, "PREFETCH": 0}, {"PACK_B": 2, "ORDER": 0, "UNROLL_K": 16},
        {"MR": 4, "NV": 3}, {"MR": 4, "NV": 2},
    )  # fmt: skip
    choices |= toolchain_choices(machine)
    if dots:
        choices["DOT"] = dots
        constraints = (*constraints, "DOT != 1 or LANES == 16",
                       "DOT == 0 or (UNROLL_K == 2 and PREFETCH == 8)")  # fmt: skip
        departures = (*departures, {"DOT": 1}, {"DOT": 1, "MR": 14, "NV": 2})
    return Tunables(choices, constraints, departures)


def matrix_unit_tunables(
    flat: FlatContraction, machine: Machine, sizes: Mapping[str, int]
) -> Tunables:
    """Cache blocks and partition for the matrix unit, whose register tile is fixed."""
    m, n = _size(flat.rows, sizes), _size(flat.columns, sizes)
    batched = _size(flat.batch, sizes) >= 2 * machine.cores
    partition = (2, 0, 1) if batched else (0, 1, 2) if m >= n // 4 else (1, 0, 2)
    if not flat.batch:
        partition = tuple(p for p in partition if p != 2)
    choices: dict[str, tuple[int | str, ...]] = {
        "KC": (256, 1024, 512, 2048), "MC": (96, 384, 192, 768), "NC": (1024, 512, 2048, 256, 4096),
        "PARTITION": partition, "ORDER": (1, 0), "PACK_B": (1, 2), "AHEAD": (1, 0),
        **toolchain_choices(machine),
    }  # fmt: skip
    clang = next((t.name for t in reversed(machine.toolchains) if "clang" in t.name), "")
    departures: tuple[dict[str, int | str], ...] = (
        {"KC": 1024, "MC": 384, "ORDER": 0, "PACK_B": 2}, {"CXX": clang},
        {"PARTITION": partition[1]}, {"KC": 512}, {"AHEAD": 0}, {"NC": 256}, {"ORDER": 0},
    )  # fmt: skip
    return Tunables(choices, ("PACK_B != 2 or ORDER == 0",), departures)


def parts_tunables(flat: FlatContraction, machine: Machine, sizes: Mapping[str, int]) -> Tunables:
    """As `matrix_unit_tunables`, for panels of three parts: a panel of A stays in L1."""
    pairs = matrix_unit_tunables(flat, machine, sizes)
    choices = {**pairs.choices, "KC": (128, 256, 96, 64, 512), "NC": (1024, 512, 2048, 256)}
    partition = pairs.choices["PARTITION"]
    clang = next((t.name for t in reversed(machine.toolchains) if "clang" in t.name), "")
    departures: tuple[dict[str, int | str], ...] = (
        {"KC": 256}, {"CXX": clang}, {"PARTITION": partition[1]}, {"NC": 512}, {"AHEAD": 0},
        {"ORDER": 0, "PACK_B": 2, "MC": 384},
    )  # fmt: skip
    return replace(pairs, choices=choices, departures=departures)


@lru_cache(maxsize=8)
def _flattened(program: Program) -> FlatContraction | None:
    plan = match(program)
    return None if plan is None else lower(plan, program.signature)


def predicted_us(
    values: Values, program: Program, sizes: Mapping[str, int], dtype: Dtype, machine: Machine
) -> float:
    """Time of a schedule: multiply-adds on padded tiles, loads per step, packing, memory.

    A register tile of MR x NV vectors does MR * NV multiply-adds and MR + NV loads per step of k,
    two of each per cycle; tiles at the edges are computed whole, and the slowest thread counts.
    """
    flat = _flattened(program)
    if flat is None:
        return float("inf")
    m, n = _size(flat.rows, sizes), _size(flat.columns, sizes)
    k, batch = _size(flat.depth, sizes), _size(flat.batch, sizes)
    in_tiles = "MR" not in values
    writer = ContractionWriter(Context(program.signature, dtype), flat)
    parts = 1 if writer.pairs() or not in_tiles else 3
    tile_values = TILE if in_tiles else values
    mr, nv, lanes = (int(tile_values[name]) for name in ("MR", "NV", "LANES"))
    row_tiles, column_tiles, threads = ceil(m / mr), ceil(n / (nv * lanes)), machine.cores
    match values["PARTITION"]:
        case 0:
            row_tiles = ceil(row_tiles / threads)
        case 1:
            column_tiles = ceil(column_tiles / threads)
        case _:
            batch = ceil(batch / threads)
    native = max(4, machine.vector_bits // 32)
    passes = max(1.0, lanes / native)
    step = max(mr * nv * passes, mr + nv * passes) / 2 + 0.1 / int(tile_values["UNROLL_K"])
    # short chains of dependent multiply-adds leave the units idle: four cycles each
    step = max(step, 4.0)
    if values.get("DOT") == 1:  # at half the rate of multiply-adds where it is slowest
        step *= 2.0
    if in_tiles:  # 32 steps take 64 cycles of multiplying and half as many of loading tiles
        step = 3.0 if parts == 1 else 16.0 if int(values["KC"]) <= 160 else 21.0
    kc, nc = min(k, int(values["KC"])), min(n, int(values["NC"]))
    tile = k * step + ceil(k / kc) * mr * nv * 2.0 + 40.0
    cycles = batch * row_tiles * column_tiles * tile * len(flat.lefts)
    if int(values["ORDER"]) == 1 and 4 * kc * nc * len(flat.lefts) > 0.75 * machine.l2_bytes:
        cycles *= 1.15  # a block of B that every row of tiles fetches from beyond L2
    # each block of columns packs the rows again; panels packed on demand are packed by each thread
    by_each = 0.3 if writer.in_place() and not in_tiles else float(threads)
    right = {0: 0.1, 1: 1.0, 2: by_each, 3: 0.0}[int(values["PACK_B"])]
    packed = batch * (m * k * ceil(n / nc) + k * n * right) / threads / native * 3.0 * parts
    signature = program.signature
    moved = sum(t.nbytes(sizes, dtype) for t in signature.tensors)
    memory = moved / ((machine.copy_gbs or 10.0 * machine.cores) * 1e3)
    if not int(values["AHEAD"]):
        memory *= 1.4  # the epilogue waits for its lines
    peak = machine.fma_gflops / (4.0 * native * machine.cores) if machine.fma_gflops else 2.5
    return (cycles + packed) / (peak * 1e3) + memory
