"""Pointwise and rowwise kernels in CUDA C++: a whole source with its tunables from a plan."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from kernelwright.codegen.assemble import Tunables
from kernelwright.codegen.cuda.assemble import Region, Source, arguments_of, parameters_of
from kernelwright.codegen.cuda.nests import PART_BYTES, PARTS, NestWriter
from kernelwright.codegen.dialects import CUDA
from kernelwright.codegen.emit import Context
from kernelwright.codegen.naming import RESERVED, renamed_sizes, without_reserved
from kernelwright.codegen.rowwise import planned
from kernelwright.expr.nodes import Program
from kernelwright.expr.pretty import pretty
from kernelwright.expr.rowwise import RowwisePlan
from kernelwright.expr.staging import Staged
from kernelwright.model import Dtype, Family, Lineage, TunableValue, evaluate_dimension
from kernelwright.model.dimensions import dimension_to_c

_NAMES = frozenset({
    "WIDTH", "WORD", "KEEP", "KEPT", "RESIDENT", "TERMS", "SLOTS", "SPAN", "THREADS", "UNROLL",
    "STREAM", "ROWS", "simt", "slot", "v", "at", "row", "own", "active", "count", "group",
    "exchange", "parts", "known_parts", "first", "last", "begin", "longest", "wide", "whole",
    "total", "failed", "rows", "parts_of_row", "term", "bytes", "next", "threadIdx", "blockIdx",
    "blockDim", "gridDim", "warpSize", "dim3",
})  # fmt: skip


def families(
    program: Program, dtype: Dtype, sizes: Mapping[str, int], entry: str
) -> tuple[Family, ...]:
    """The pointwise or rowwise family of a program; empty when it is neither."""
    program = without_reserved(program, entry, _NAMES)
    staged, plan = planned(program)
    if plan is None or dtype is Dtype.F64:
        return ()
    context = Context(staged.program.signature, dtype, CUDA)
    context.taken |= _NAMES | RESERVED
    regions = _regions(plan, staged)
    parameters = parameters_of(program.signature, context, regions)
    arguments = arguments_of(program.signature, regions)
    writers: list[NestWriter] = []
    body: list[str] = []
    slots = 0
    for number, nest in enumerate(plan.nests):
        context.count_uses([work.body for work in (*nest.reductions, *nest.stores)])
        prefix = f"{entry}_{number}" if len(plan.nests) > 1 else entry
        writer = NestWriter(context, nest, prefix, parameters, arguments, slots)
        body += writer.write()
        writers.append(writer)
        slots += len(nest.reductions)
    tunables = _tunables(plan, writers, program, dtype, renamed_sizes(sizes))
    name = "pointwise" if plan.pointwise else "rowwise"
    source = Source(program.signature, context, tunables, entry, f"A {name} kernel")
    kernels = [line for writer in writers for line in writer.kernels]
    text = source.text(pretty(program), kernels, body, regions)
    return (Family(name, "cuda", entry, text, Lineage("recipe", note=name), tunables.defaults()),)


def _regions(plan: RowwisePlan, staged: Staged) -> list[Region]:
    """Results of parts of rows, and what rows are reduced to on the way."""
    slots = sum(len(nest.reductions) for nest in plan.nests)
    regions: list[Region] = []
    for tensor in staged.kept:
        count = " * ".join(f"({dimension_to_c(dim)})" for dim in tensor.dims) or "1"
        regions.append(Region(tensor.name, "float", f"{count} * 4"))
    if slots:
        regions.append(Region("parts", "char", str(slots * PARTS * PART_BYTES)))
    return regions


# -- tunables ----------------------------------------------------------------------------------


def _tunables(
    plan: RowwisePlan,
    writers: list[NestWriter],
    program: Program,
    dtype: Dtype,
    sizes: Mapping[str, int],
) -> Tunables:
    """Tunables that have an effect on this plan, and assignments to try first."""
    signature = program.signature
    itemsize = min((t.resolve(dtype).itemsize for t in signature.tensors), default=4)
    full = max(16 // max(itemsize, 2), 2)
    widths = (full, full // 2, full * 2) if full < 8 else (full, full // 2)
    choices: dict[str, tuple[TunableValue, ...]] = {"WIDTH": widths}
    if plan.pointwise:
        choices |= {"THREADS": (256, 128, 512), "UNROLL": (2, 4, 1, 8), "STREAM": (0, 1)}
        departures = ({"UNROLL": 4}, {"STREAM": 1}, {"UNROLL": 1}, {"THREADS": 512},
                      {"WIDTH": widths[1], "UNROLL": 4})  # fmt: skip
        return Tunables(choices, (), departures)
    keeps = any(writer.keeps for writer in writers)
    span, keep = _shape(plan, sizes, full, keeps)
    threads = max(span, 256)
    choices |= {
        "THREADS": _first(threads, (128, 256, 512, 1024)),
        "ROWS": _first(threads // span, (1, 2, 4, 8)),
        "UNROLL": (4, 2, 8, 1),
        "STREAM": (0, 1),
    }
    constraints = ("THREADS >= 32 * ROWS",)
    if not keeps:
        departures = (
            {"THREADS": 512, "ROWS": 1}, {"STREAM": 1}, {"UNROLL": 8},
            {"THREADS": 512, "ROWS": 1, "UNROLL": 8}, {"THREADS": 128, "ROWS": 1},
            {"THREADS": 1024, "ROWS": 1}, {"UNROLL": 2},
        )  # fmt: skip
        return Tunables(choices, constraints, departures)
    choices["KEEP"] = _first(keep, (4, 2, 1, 8, 16, 0))
    choices["RESIDENT"] = _first(1024 // threads, (1, 2, 3, 4, 6, 8))
    less = {"THREADS": max(threads // 2, 128), "ROWS": 1, "KEEP": min(keep * 2, 16)}
    more = {"THREADS": min(2 * threads, 1024), "KEEP": max(keep // 2, 1)}
    departures = [
        {**less, "RESIDENT": 1024 // less["THREADS"]}, {"RESIDENT": max(512 // threads, 1)},
        {**more, "RESIDENT": max(1024 // more["THREADS"], 1)}, {"STREAM": 1},
        {"RESIDENT": max(1536 // threads, 1)}, {"WIDTH": widths[1], "KEEP": min(2 * keep, 16)},
        {"THREADS": 128, "ROWS": 1, "KEEP": min(keep * threads // 128, 16), "RESIDENT": 4},
        {"KEEP": 0},
    ]  # fmt: skip
    if any(writer.terms for writer in writers):
        choices["TERMS"] = (0, 1) if full == 8 else (1, 0)
        departures.insert(0, {"TERMS": choices["TERMS"][1]})
    constraints += ("THREADS * RESIDENT <= 2048",)
    return Tunables(choices, constraints, tuple(departures))


def _shape(plan: RowwisePlan, sizes: Mapping[str, int], width: int, keeps: bool) -> tuple[int, int]:
    """Threads for a row, and the words that each of them keeps."""
    longest = 1
    for nest in plan.nests:
        for work in (*nest.reductions, *nest.stores):
            longest = max(longest, prod(evaluate_dimension(b.extent, sizes) for b in work.columns))
    words = -(-longest // width)
    wanted = 4 if keeps else 8
    span = 32
    most = 256 if not keeps else 512 if width == 8 else 1024
    while span < most and span * wanted < words:
        span *= 2
    keep = 1
    while keep < 16 and keep * span < words:
        keep *= 2
    return span, keep


def _first(chosen: int, others: tuple[int, ...]) -> tuple[int, ...]:
    return (chosen, *(n for n in others if n != chosen))
