"""Pointwise and rowwise kernels in Triton: a whole source with its tunables from a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from kernelwright.codegen.assemble import Tunables, indent
from kernelwright.codegen.naming import renamed_sizes, without_reserved
from kernelwright.codegen.rowwise import planned
from kernelwright.codegen.sweeps import Sweep, sweeps
from kernelwright.codegen.triton.emit import Emitter
from kernelwright.errors import Unsupported
from kernelwright.expr.nodes import Program
from kernelwright.expr.pretty import pretty
from kernelwright.expr.rowwise import Bound, Nest, Reduction, RowwisePlan, Store
from kernelwright.model import Dtype, Family, Lineage, Signature, TunableValue, evaluate_dimension

_NAMES = frozenset({
    "tl", "triton", "libdevice", "greater", "lesser", "product", "BLOCK", "WARPS", "WHOLE", "STEP",
    "row", "start", "at", "inside", "grid", "None", "True", "False", "lambda", "def", "is", "in",
    "import", "from", "pass", "with", "yield", "range", "min", "max", "len", "rows",
})  # fmt: skip
_FEWEST_ROWS = 32
_LONGEST_WHOLE = 32768
"""Columns of a row that one instance may hold at once."""
_TYPES = {Dtype.F32, Dtype.BF16, Dtype.F16, Dtype.I64, Dtype.I32, Dtype.I16, Dtype.I8, Dtype.U8,
          Dtype.BOOL}  # fmt: skip
_HELPERS = """\
@triton.jit
def greater(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def lesser(a, b):
    return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def product(a, b):
    return a * b
"""
_IDENTITY = {
    ("sum", "float"): "0.0", ("prod", "float"): "1.0", ("max", "float"): 'float("-inf")',
    ("min", "float"): 'float("inf")', ("sum", "int"): "0", ("prod", "int"): "1",
    ("max", "int"): "-9223372036854775808", ("min", "int"): "9223372036854775807",
    ("any", "bool"): "0", ("all", "bool"): "1",
}  # fmt: skip


def families(
    program: Program, dtype: Dtype, sizes: Mapping[str, int], entry: str
) -> tuple[Family, ...]:
    """The pointwise or rowwise family of a program; empty when it is neither."""
    signature, program = program.signature, without_reserved(program, entry, _NAMES)
    staged, plan = planned(program)
    sizes = renamed_sizes(sizes)
    if plan is None or staged.kept or dtype not in _TYPES:
        return ()
    if any(t.resolve(dtype) not in _TYPES for t in program.signature.tensors):
        return ()
    if any(nest.reductions and _rows(nest, sizes) < _FEWEST_ROWS for nest in plan.nests):
        return ()  # one row is one instance's work
    try:
        kernels = [
            _Writer(program.signature, dtype, nest, f"{entry}_{i}").write()
            for i, nest in enumerate(plan.nests)
        ]
    except Unsupported:
        return ()
    name = "pointwise" if plan.pointwise else "rowwise"
    tunables = _tunables(plan, sizes)
    text = _source(program, signature, entry, name, tunables, kernels)
    lineage = Lineage("recipe", note=name)
    return (Family(name, "triton", entry, text, lineage, tunables.defaults()),)


def _rows(nest: Nest, sizes: Mapping[str, int]) -> int:
    return prod(evaluate_dimension(bound.extent, sizes) for bound in nest.rows)


def _tunables(plan: RowwisePlan, sizes: Mapping[str, int]) -> Tunables:
    """Warps of an instance, the columns that it takes at once, and whether it keeps whole rows."""
    if plan.pointwise:
        choices: dict[str, tuple[TunableValue, ...]] = {
            "STEP": (1024, 2048, 512, 4096, 8192), "WARPS": (4, 8, 2, 16),
        }  # fmt: skip
        departures = ({"STEP": 2048}, {"STEP": 4096, "WARPS": 8}, {"STEP": 512, "WARPS": 2})
        return Tunables(choices, (), departures)
    longest = max(
        prod(evaluate_dimension(b.extent, sizes) for b in sweep.columns)
        for nest in plan.nests
        for sweep in sweeps(nest)
    )
    whole = longest <= _LONGEST_WHOLE
    warps = next((w for w in (1, 2, 4, 8) if longest <= 512 * w), 16)
    order = sorted((1, 2, 4, 8, 16, 32), key=lambda w: abs(w.bit_length() - warps.bit_length()))
    choices = {
        "WHOLE": (1, 0) if whole else (0, 1), "STEP": (2048, 1024, 4096, 8192),
        "WARPS": tuple(order),
    }  # fmt: skip
    departures = tuple({"WARPS": w} for w in order[1:3])
    return Tunables(choices, (), (*departures, {"WHOLE": 0 if whole else 1}, {"STEP": 4096}))


@dataclass
class _Writer:
    """One nest: the kernels in a form that keeps rows and one that loops, and their launch."""

    signature: Signature
    dtype: Dtype
    nest: Nest
    name: str

    def write(self) -> tuple[list[str], list[str]]:
        """Definitions, and the statements of the entry.

        Raises:
            Unsupported: some term has no form in Triton.
        """
        if not self.nest.reductions:
            return self._pointwise()
        lines = [*self._kernel("whole"), "", "", *self._kernel("loop")]
        longest = dict.fromkeys(_count(s.columns) for s in sweeps(self.nest))
        most = f"max({', '.join(longest)})" if len(longest) > 1 else next(iter(longest), "1")
        call = f"[({_count(self.nest.rows)},)]({self._arguments()}"
        launch = [
            f"if WHOLE and {most} <= {_LONGEST_WHOLE}:",
            f"    {self.name}_whole{call}, BLOCK=triton.next_power_of_2({most}), num_warps=WARPS)",
            "else:",
            f"    {self.name}_loop{call}, BLOCK=STEP, num_warps=WARPS)",
        ]
        return lines, launch

    def _arguments(self) -> str:
        return ", ".join(_passed(self.signature))

    def _head(self, form: str) -> list[str]:
        name = f"{self.name}_{form}"
        return ["@triton.jit", f"def {name}({self._arguments()}, BLOCK: tl.constexpr):"]

    def _axes(self, bounds: tuple[Bound, ...], index: str) -> tuple[dict[str, str], list[str]]:
        """Names of axes by a flat index over all of them."""
        names = {b.axis: f"{b.axis}_" for b in bounds}
        lines: list[str] = []
        rest = index
        for bound in reversed(bounds[1:]):
            lines.append(f"{names[bound.axis]} = {rest} % ({bound.extent})")
            lines.append(f"{names[bound.axis]}rest = {rest} // ({bound.extent})")
            rest = f"{names[bound.axis]}rest"
        if bounds:
            lines.append(f"{names[bounds[0].axis]} = {rest}")
        return names, lines

    def _pointwise(self) -> tuple[list[str], list[str]]:
        nest, columns = self.nest, self.nest.stores[0].columns
        count = _count(columns)
        names, lines = self._axes(nest.rows, "row")
        outer = Emitter(self.signature, self.dtype, names)
        outer.lines += [
            f"blocks = tl.cdiv({count}, BLOCK)", "number = tl.program_id(0).to(tl.int64)",
            "row = number // blocks", *lines,
            "at = (number % blocks) * BLOCK + tl.arange(0, BLOCK).to(tl.int64)",
            f"inside = at < {count}",
        ]  # fmt: skip
        own, lines = self._axes(columns, "at")
        outer.lines += lines
        block = Emitter(self.signature, self.dtype, {**names, **own}, "inside", outer)
        block.count(store.body for store in nest.stores)
        for store in nest.stores:
            self._store(block, store, "inside")
        body = [*outer.lines, *block.lines]
        blocks = f"{_count(nest.rows)} * triton.cdiv({count}, STEP)"
        launch = f"{self.name}_block[({blocks},)]({self._arguments()}, BLOCK=STEP, num_warps=WARPS)"
        return [*self._head("block"), *indent(body)], [launch]

    def _kernel(self, form: str) -> list[str]:
        names, lines = self._axes(self.nest.rows, "row")
        row = Emitter(self.signature, self.dtype, names)
        row.lines += ["row = tl.program_id(0).to(tl.int64)", *lines]
        work = (*self.nest.reductions, *self.nest.stores)
        row.count(w.body for w in work)
        blocks: dict[tuple[Bound, ...], Emitter] = {}
        for level in range(self.nest.levels):
            for store in self.nest.stores:
                if store.level == level and not store.columns:
                    self._store(row, store, None)
            for sweep in (s for s in sweeps(self.nest) if s.level == level):
                write = self._whole if form == "whole" else self._loop
                write(row, sweep, blocks)
        return [*self._head(form), *indent(row.lines)]

    def _whole(self, row: Emitter, sweep: Sweep, blocks: dict[tuple[Bound, ...], Emitter]) -> None:
        block = blocks.get(sweep.columns)
        if block is None:
            number = len(blocks)
            at, inside = f"at{number}", f"inside{number}"
            row.lines += [f"{at} = tl.arange(0, BLOCK).to(tl.int64)",
                          f"{inside} = {at} < {_count(sweep.columns)}"]  # fmt: skip
            own, lines = self._axes(sweep.columns, at)
            row.lines += lines
            axes = {**row.axes, **own}
            block = blocks[sweep.columns] = Emitter(self.signature, self.dtype, axes, inside, row)
            block.lines = row.lines  # straight-line code: one list
        inside = block.inside or ""
        for reduction in sweep.reductions:
            kind = _kind(row, reduction)
            value = self._neutral(block, reduction, kind, inside)
            row.lines.append(f"{reduction.value.name}_ = {_reduced(reduction, kind, value)}")
            row.row_values[reduction.value] = f"{reduction.value.name}_"
        for store in sweep.stores:
            self._store(block, store, inside)

    def _loop(self, row: Emitter, sweep: Sweep, blocks: dict[tuple[Bound, ...], Emitter]) -> None:
        own, lines = self._axes(sweep.columns, "at")
        block = Emitter(self.signature, self.dtype, {**row.axes, **own}, "inside", row)
        count = _count(sweep.columns)
        sums: list[str] = []
        for reduction in sweep.reductions:
            kind = _kind(row, reduction)
            name, held = f"{reduction.value.name}_", "tl.float32" if kind == "float" else "tl.int64"
            first = _IDENTITY[reduction.op, kind]
            row.lines.append(f"{name}parts = tl.full([BLOCK], {first}, {held})")
            value = self._neutral(block, reduction, kind, "inside")
            block.lines.append(f"{name}parts = {_combined(reduction, f'{name}parts', value)}")
            sums.append(f"{name} = {_reduced(reduction, kind, f'{name}parts')}")
        for store in sweep.stores:
            self._store(block, store, "inside")
        row.lines += [
            f"for start in range(0, {count}, BLOCK):",
            "    at = start + tl.arange(0, BLOCK).to(tl.int64)", f"    inside = at < {count}",
            *indent([*lines, *block.lines]), *sums,
        ]  # fmt: skip
        for reduction in sweep.reductions:
            row.row_values[reduction.value] = f"{reduction.value.name}_"

    def _neutral(self, block: Emitter, reduction: Reduction, kind: str, inside: str) -> str:
        """The body, and beyond the last column what changes nothing."""
        value = block.floating(reduction.body) if kind == "float" else block.value(reduction.body)
        if kind == "bool":
            value = f"{block.truth(reduction.body)}.to(tl.int64)"
        elif kind == "int" and block.kinds.of(reduction.body) == "bool":
            value = f"{value}.to(tl.int64)"
        return f"tl.where({inside}, {value}, {_IDENTITY[reduction.op, kind]})"

    def _store(self, block: Emitter, store: Store, inside: str | None) -> None:
        place = f"{store.tensor} + {block.value(store.offset)}"
        mask = f", mask={inside}" if inside else ""
        value = self._stored(block, store)
        block.lines.append(f"tl.store({place}, {value}{mask})")

    def _stored(self, block: Emitter, store: Store) -> str:
        text = block.value(store.body)
        name = block.fresh("value")
        if block.inside and store.columns:
            block.lines.append(f"{name} = tl.zeros([BLOCK], {_held(block, store)}) + {text}")
        else:
            block.lines.append(f"{name} = tl.zeros([], {_held(block, store)}) + {text}")
        return f"{name}.to({store.tensor}.dtype.element_ty)"


def _passed(signature: Signature) -> list[str]:
    names = [t.name for t in signature.tensors]
    return [*names, *signature.dimensions, *(s.name for s in signature.scalars)]


def _held(block: Emitter, store: Store) -> str:
    return "tl.float32" if block.kinds.of(store.body) == "float" else "tl.int64"


def _kind(row: Emitter, reduction: Reduction) -> str:
    kind = "bool" if reduction.op in ("any", "all") else row.kinds.of(reduction.value)
    if (reduction.op, kind) not in _IDENTITY:
        raise Unsupported(f"'{reduction.op}' of {kind} has no form in Triton here")
    return kind


def _combined(reduction: Reduction, a: str, b: str) -> str:
    forms = {"sum": "{0} + {1}", "prod": "{0} * {1}", "max": "greater({0}, {1})",
             "min": "lesser({0}, {1})", "any": "tl.maximum({0}, {1})",
             "all": "tl.minimum({0}, {1})"}  # fmt: skip
    return forms[reduction.op].format(a, b)


def _reduced(reduction: Reduction, kind: str, value: str) -> str:
    forms = {"sum": "tl.sum({0}, 0)", "prod": "tl.reduce({0}, 0, product)",
             "max": "tl.reduce({0}, 0, greater)", "min": "tl.reduce({0}, 0, lesser)",
             "any": "(tl.max({0}, 0) != 0)", "all": "(tl.min({0}, 0) != 0)"}  # fmt: skip
    form = forms[reduction.op]
    if kind == "int" and reduction.op in ("max", "min"):
        form = f"tl.{reduction.op}({{0}}, 0)"
    return form.format(value)


def _count(bounds: tuple[Bound, ...]) -> str:
    texts = [b.extent if b.extent.isidentifier() else f"({b.extent})" for b in bounds]
    return " * ".join(texts) or "1"


def _source(
    program: Program,
    signature: Signature,
    entry: str,
    name: str,
    tunables: Tunables,
    kernels: list[tuple[list[str], list[str]]],
) -> str:
    lines = [f"# A {name} kernel in Triton:", "#"]
    lines += [f"#     {line}" for line in pretty(program).splitlines()]
    lines += ["#", tunables.declarations().replace("// ", "# "), "", "import triton"]
    lines += ["import triton.language as tl", "from triton.language.extra import libdevice"]
    lines += ["", "", *_HELPERS.splitlines(), "", ""]
    for definitions, _ in kernels:
        lines += [*definitions, "", ""]
    own = [f", {choice}" for choice in tunables.choices]
    call = signature.python_call(entry)
    call = call[:-1] if ", *" in call else f"{call[:-1]}, *"
    lines.append(f"def {call}{''.join(own)}):")
    renamed = zip(_passed(program.signature), _passed(signature), strict=True)
    lines += [f"    {inside} = {outside}" for inside, outside in renamed if inside != outside]
    for _, launch in kernels:
        lines += indent(launch)
    return "\n".join(lines) + "\n"
