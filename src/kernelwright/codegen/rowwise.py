"""Pointwise and rowwise kernels: a whole source with its tunables from a plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod

from kernelwright.codegen.assemble import INCLUDES, Tunables, Values, indent
from kernelwright.codegen.emit import Context, Scope
from kernelwright.codegen.functions import HEAVY
from kernelwright.codegen.library import paste
from kernelwright.codegen.naming import RESERVED, without_reserved
from kernelwright.codegen.nests import NestWriter, kept_row_text
from kernelwright.codegen.sweeps import sweeps
from kernelwright.expr.integers import Integers
from kernelwright.expr.nodes import Apply, Load, Node, Program, free_axes, walk
from kernelwright.expr.pretty import pretty
from kernelwright.expr.rowwise import RowwisePlan, match, stride_of
from kernelwright.expr.staging import Staged, stage
from kernelwright.model import (
    Dtype,
    Family,
    Lineage,
    Machine,
    Signature,
    TensorArgument,
    TunableValue,
    evaluate_dimension,
)
from kernelwright.model.dimensions import dimension_to_c


def families(
    program: Program, dtype: Dtype, machine: Machine, sizes: Mapping[str, int], entry: str
) -> tuple[Family, ...]:
    """The pointwise or rowwise family of a program; empty when it is neither."""
    program = without_reserved(program, entry)
    staged, plan = planned(program)
    if plan is None or dtype is Dtype.F64:
        return ()
    context = Context(staged.program.signature, dtype)
    writers, call, body = _kernel_body(context, plan)
    features = set[str]().union(*(w.features for w in writers))
    tunables = plan_tunables(plan, program, features, dtype, machine, sizes)
    name = "pointwise" if plan.pointwise else "rowwise"
    text = _Text(program.signature, staged.kept, name, pretty(program))
    source = _source(text, context, tunables, writers, [*call.lines, *body], entry)
    return (Family(name, "cpp", entry, source, Lineage("recipe", note=name), tunables.defaults()),)


@lru_cache(maxsize=8)
def planned(program: Program) -> tuple[Staged, RowwisePlan | None]:
    """The plan of a program, of one with kept row values where it has none as it is."""
    plan = match(program)
    staged = stage(program, RESERVED) if plan is None else None
    if staged is None:
        return Staged(program, ()), plan
    return staged, match(staged.program)


def reuses_nothing(program: Program, sizes: Mapping[str, int]) -> bool:
    """Whether a row-by-row kernel is a sound choice for something that is also a contraction.

    It is when memory is read along the columns, and some operand is (nearly) as large as the
    whole work, so that blocking for reuse has nothing to gain: a matrix times a vector.
    """
    plan = match(program)
    if plan is None:
        return False
    integers = Integers({})
    for nest in plan.nests:
        extents = {b.axis: evaluate_dimension(b.extent, sizes) for b in nest.rows}
        for reduction in nest.reductions:
            loads = [n for n in walk(reduction.body) if isinstance(n, Load)]
            reuse: list[int] = []
            for load in loads:
                offset = integers.polynomial(load.indices[0])
                step = stride_of(offset, reduction.columns[-1].axis)
                if step is None or step.as_constant not in (0, 1):
                    return False
                reuse.append(prod(n for axis, n in extents.items() if axis not in free_axes(load)))
            if min(reuse, default=1) > 8:
                return False
    return True


def _kernel_body(context: Context, plan: RowwisePlan) -> tuple[list[NestWriter], Scope, list[str]]:
    call = Scope(context, None, [])
    writers: list[NestWriter] = []
    lines: list[str] = []
    teams = sum(1 for nest in plan.nests if nest.reductions)
    for nest in plan.nests:
        works = (*nest.reductions, *nest.stores)
        context.count_uses([work.body for work in works])
        writer = NestWriter(context, nest)
        written = writer.write(call)
        # several teams have names of their own
        lines += ["", *(["{", *indent(written), "}"] if teams > 1 else written)]
        writers.append(writer)
    return writers, call, lines


@dataclass(frozen=True)
class _Text:
    """What a source says about itself, and what it keeps beside its outputs."""

    signature: Signature
    kept: tuple[TensorArgument, ...]
    name: str
    formula: str

    def kept_bytes(self) -> str:
        """Bytes of the kept values in C."""
        sizes = [" * ".join(dimension_to_c(dim) for dim in t.dims) for t in self.kept]
        return " + ".join(f"({size} + 15) / 16 * 64" for size in sizes)

    def pointers(self) -> list[str]:
        """Where they are, at the end of the workspace."""
        lines: list[str] = []
        for number, tensor in enumerate(self.kept):
            later = replace(self, kept=self.kept[number:]).kept_bytes()
            lines.append(
                f"    float* {tensor.name} = "
                f"(float*)((char*)workspace + workspace_bytes / 64 * 64 - ({later}));"
            )
        return lines


def _source(
    text: _Text,
    context: Context,
    tunables: Tunables,
    writers: list[NestWriter],
    body: list[str],
    entry: str,
) -> str:
    signature = text.signature
    parts = [f"// A {text.name} kernel, {context.dtype} workloads:", "//"]
    parts += [f"//     {line}" for line in text.formula.splitlines()]
    parts += ["//", tunables.declarations(), "", INCLUDES, "", paste(context.blocks), ""]
    helpers, used = _workspace(text, writers, entry)
    parts += helpers
    parts += [
        f'extern "C" {signature.prototype(entry, context.dtype)} {{',
        "    (void)prepared, (void)stream;",
        *used,
        *("    " + line if line and not line.startswith("#") else line for line in body),
        "    return 0;",
        "}",
    ]
    return "\n".join(parts) + "\n"


def _workspace(text: _Text, writers: list[NestWriter], entry: str) -> tuple[list[str], list[str]]:
    """Functions that say how large the workspace is, and how a kernel begins."""
    scratch, kept = kept_row_text(writers), text.kept_bytes()
    if not scratch and not kept:
        return [], ["    (void)workspace, (void)workspace_bytes;"]
    signature = text.signature
    numbers = [*signature.dimensions, *(s.name for s in signature.scalars)]
    names = ", ".join(numbers)
    arguments = [f"int64_t {d}" for d in signature.dimensions]
    arguments += [f"{s.c_type} {s.name}" for s in signature.scalars]
    unused = [f"    (void){n};" for n in numbers]
    parts: list[str] = []
    if scratch:
        parts += [
            "// Floats in the scratch row of a thread.",
            f"static int64_t kept_row({', '.join(arguments)}) {{", *unused,
            f"    return ({scratch} + 15) / 16 * 16;", "}", "",
        ]  # fmt: skip
    parts += [f'extern "C" {signature.workspace_prototype(entry)} {{', *unused]
    terms = [kept] if kept else []
    if scratch:
        slots = max(len(w.kept) for w in writers)
        parts.append(
            f"    const int64_t floats = {slots} * kept_row({names}) * omp_get_max_threads();"
        )
        terms.append("(CACHE_ROW ? floats * (int64_t)sizeof(float) : 0)")
    parts += [f"    return {' + '.join(terms)};", "}", ""]
    check = f"    if (workspace_bytes < {entry}_workspace({names})) return 1;"
    return parts, [check, *text.pointers()]


# -- tunables ----------------------------------------------------------------------------------

_TAKEN_APART = 4.0
"""How much slower g++ is with vectors of two registers: 2 to 10 times were seen."""
_LONG = 64
"""Instructions per vector from which elementary functions, not memory, are what takes the time."""


def plan_tunables(
    plan: RowwisePlan,
    program: Program,
    features: set[str],
    dtype: Dtype,
    machine: Machine,
    sizes: Mapping[str, int],
) -> Tunables:
    """Tunables that have an effect on this plan, and assignments to try first."""
    native = max(4, machine.vector_bits // 32)
    lanes = [n for n in (native, native * 2, native // 2) if 4 <= n <= 32]
    compilers = sorted((t.name for t in machine.toolchains), key=lambda n: ("clang" not in n, n))
    if plan.pointwise and "clang" in "".join(compilers[:1]) and _weight(plan) > _LONG:
        lanes[:2] = lanes[1::-1]  # long chains of operations: two at a time hide their latency
    unroll = (2, 4, 1, 8) if plan.pointwise else (4, 2, 1, 8)
    choices: dict[str, tuple[TunableValue, ...]] = {"LANES": tuple(lanes), "UNROLL": unroll}
    if "STREAM" in features:
        choices["STREAM"] = (1, 0) if _leaves_cache(program, dtype, machine, sizes) else (0, 1)
    if "CACHE_ROW" in features:
        choices["CACHE_ROW"] = (1, 0)
    if "ROWS" in features:
        choices["ROWS"] = (4, 2, 1, 8)
    if "AHEAD" in features:
        choices["AHEAD"] = (1, 0)
    if "PREFETCH" in features:
        first = 1024 if plan.pointwise or "ROWS" in features else 4096
        others = (n for n in (0, 1024, 512, 2048, 4096) if n != first)
        choices["PREFETCH"] = (first, *others)
    if any(isinstance(node, Apply) and node.op == "erf" for node in _computed(plan)):
        choices["RATIONAL_ERF"] = (1, 0)
    if compilers:
        choices["CXX"] = tuple(compilers)
    wide = " -mprefer-vector-width=512" if machine.vector_bits == 512 else ""
    choices["FLAGS"] = (f"-O3 -march=native{wide}",)
    return Tunables(choices, departures=_departures(choices))


def _weight(plan: RowwisePlan) -> int:
    """Rough instructions per vector of all elementary functions."""
    return sum(HEAVY.get(node.op, 0) for node in _computed(plan) if isinstance(node, Apply))


def _computed(plan: RowwisePlan) -> Iterator[Node]:
    """All that is computed."""
    for nest in plan.nests:
        for sweep in sweeps(nest):
            yield from walk(*sweep.roots)


def _departures(choices: Mapping[str, tuple[TunableValue, ...]]) -> tuple[Values, ...]:
    """Departures from the declared defaults, most promising first."""
    found: list[Values] = []
    if "AHEAD" in choices:
        found += [{"AHEAD": 0, "PREFETCH": 1024}]
    if "PREFETCH" in choices:
        found += [{"PREFETCH": choices["PREFETCH"][1]}, {"PREFETCH": 2048, "UNROLL": 1}]
    if "ROWS" in choices:
        found += [{"ROWS": 2}, {"ROWS": 8, "UNROLL": 2}]
    found += [{"UNROLL": choices["UNROLL"][1]}, {"LANES": choices["LANES"][1]}]
    if "STREAM" in choices:
        found += [{"STREAM": choices["STREAM"][1]}]
    if "RATIONAL_ERF" in choices:
        found += [{"RATIONAL_ERF": 0}]
    if "CXX" in choices:
        found += [{"CXX": choices["CXX"][-1]}]
    return tuple(found)


def _leaves_cache(
    program: Program, dtype: Dtype, machine: Machine, sizes: Mapping[str, int]
) -> bool:
    """Whether a line of the outputs is not in a cache when it is written.

    Calls are judged with cold caches, where a line that is not streamed is read before it is
    written: an RMSNorm with outputs of 2, 4 and 8 MB was 1.3, 1.5 and 1.9 times as fast with
    streaming.
    Below the private cache of a core the next reader gains more than the writer loses.
    """
    written = sum(t.nbytes(sizes, dtype) for t in program.signature.outputs)
    return written >= machine.l2_bytes


# -- prediction --------------------------------------------------------------------------------


def predicted_us(
    values: Values, program: Program, sizes: Mapping[str, int], dtype: Dtype, machine: Machine
) -> float:
    """Time of a schedule: bytes against memory, instructions against the cores.

    The memory part counts a line that is written without streaming twice, since it is read first.
    The compute part counts rough instructions per vector and, for reductions, the latency of a
    chain of accumulators. The greater of the two is the time, plus a part of the lesser that
    depends on how well the two overlap.
    """
    _, plan = planned(program)
    if plan is None:
        return float("inf")
    signature = program.signature
    read = sum(t.nbytes(sizes, dtype) for t in signature.inputs)
    written = sum(t.nbytes(sizes, dtype) for t in signature.outputs)
    stream = values.get("STREAM", 0) == 1
    traffic = read + written * (
        1 if stream or not _leaves_cache(program, dtype, machine, sizes) else 2
    )
    bandwidth = (machine.copy_gbs or 10.0 * machine.cores) * 1e3
    ahead = values.get("PREFETCH", 0)
    memory = traffic / bandwidth * (0.97 if ahead in (512, 1024, 2048, 4096) else 1.0)
    compute = _compute_us(values, plan, sizes, machine)
    # a row in several sweeps leaves memory idle in between, unless the next row is on its way
    apart = not plan.pointwise and values.get("AHEAD", 1) == 0
    return max(memory, compute) + (0.5 if apart else 0.2) * min(memory, compute)


def _compute_us(
    values: Values, plan: RowwisePlan, sizes: Mapping[str, int], machine: Machine
) -> float:
    lanes, unroll = int(values.get("LANES", 8)), int(values.get("UNROLL", 1))
    native = max(4, machine.vector_bits // 32)
    cycles = 0.0
    for nest in plan.nests:
        rows = 1.0
        for bound in nest.rows:
            rows *= evaluate_dimension(bound.extent, sizes)
        before: set[object] = set()
        for sweep in sweeps(nest):
            elements = rows
            for bound in sweep.columns:
                elements *= evaluate_dimension(bound.extent, sizes)
            instructions = 2.0
            for node in walk(*sweep.roots):
                known = node in before and values.get("CACHE_ROW", 0) == 1
                cost = HEAVY.get(node.op, 1) if isinstance(node, Apply) else isinstance(node, Load)
                instructions += 0 if known else cost
            before |= set(walk(*sweep.roots))
            passes = max(1.0, lanes / native)
            steps = instructions * passes / 2.0 + 1.0 / unroll
            if lanes > native and str(values.get("CXX")).startswith("g++"):
                steps *= _TAKEN_APART
            if sweep.reductions:
                chains = unroll * passes * int(values.get("ROWS", 1))
                steps = max(steps, 4.0 * passes / chains)
            cycles += elements / lanes * steps
    return cycles / (2.5e3 * machine.cores)
