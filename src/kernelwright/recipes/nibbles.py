"""Products with weights of 4 bits in groups, packed beforehand; AVX-512."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernelwright.codegen.assemble import INCLUDES, Tunables, block_file, toolchain_choices
from kernelwright.codegen.naming import without_reserved
from kernelwright.expr.contraction import ContractionPlan, match, product_value
from kernelwright.expr.evaluate import evaluate
from kernelwright.expr.nodes import Axis, Load, Node, Output, Program, walk
from kernelwright.model import (
    Dtype,
    Family,
    Lineage,
    Machine,
    Signature,
    TensorArgument,
    evaluate_dimension,
)
from kernelwright.model.dimensions import dimension_to_c

_NEEDED = frozenset({"avx512f", "avx512bw", "avx512vl"})
_NAMES = frozenset({
    "Problem", "nibbles", "Input", "Scale", "input", "codes", "scales", "zeros", "output",
    "row_count", "column_count", "depth_count", "GROUP", "DOT", "NV", "MR", "AHEAD",
})  # fmt: skip
_LEAST_GROUP = 16
"""Steps that are summed before a scale is applied: whole vectors of them."""
_STORED = (Dtype.F32, Dtype.BF16, Dtype.F16)


@dataclass(frozen=True, slots=True)
class Weights:
    """A product x Wᵀ with W = scales (codes - zeros), two codes in a byte, even ones in low halves.

    Names of tensors: `input` [rows, depth], `codes` [columns, depth / 2], `scales` and `zeros`
    [columns, depth / group].
    """

    input: str
    codes: str
    scales: str
    zeros: str
    group: int
    rows: str
    columns: str
    depth: str


def families(
    program: Program, dtype: Dtype, machine: Machine, sizes: Mapping[str, int], entry: str
) -> tuple[Family, ...]:
    """The family of such a product; empty when the program is none or its weights not static."""
    del sizes
    if dtype not in _STORED or not set(machine.isa) >= _NEEDED:
        return ()
    program = without_reserved(program, entry, _NAMES)
    weights = recognise(program)
    if weights is None:
        return ()
    tunables = _tunables(machine, dtype)
    dot = "DOT" in tunables.choices
    source = "\n".join([
        f"// product with weights of 4 bits: {weights.codes}, {dtype} workloads.",
        tunables.declarations(), "",
        *([] if dot else ["#define DOT 0"]), f"#define GROUP {weights.group}", "",
        INCLUDES, "#include <type_traits>", "",
        *_problem(program.signature, weights, dtype), "",
        block_file(Path(__file__).parent / "nibbles.hpp"), "",
        *_entry_points(program.signature, weights, dtype, entry), "",
    ])  # fmt: skip
    lineage = Lineage("recipe", note="nibbles")
    return (Family("nibbles", "cpp", entry, source, lineage, tunables.defaults()),)


def recognise(program: Program) -> Weights | None:
    """The weights of a program that is nothing but such a product.

    Which tensor is what is told by shapes; that the program computes with them what this recipe
    does is believed after evaluating the right operand on random contents.
    """
    plan = match(program)
    plain = plan is not None and plan.results[0].body == product_value(0)
    if plan is None or not plain or len(plan.products) != 1 or len(plan.results) != 1:
        return None
    if plan.batch or any(len(part) != 1 for part in (plan.rows, plan.columns, plan.depth)):
        return None
    left, right = plan.products[0].left, plan.products[0].right
    row, step = plan.rows[0].axis, plan.depth[0].axis
    if not isinstance(left, Load) or left.indices != (Axis(row), Axis(step)):
        return None
    signature = program.signature
    inputs = {tensor.name: tensor for tensor in signature.inputs}
    names = {node.tensor for node in walk(right) if isinstance(node, Load)}
    loaded = [inputs[name] for name in names]
    bytes_ = [t for t in loaded if t.dtype is Dtype.U8]
    floats = [t for t in loaded if t.dtype is None]
    every = len(loaded) == 3 and len(bytes_) == 2 and len(floats) == 1
    if not every or signature.scalars or not all(t.static and len(t.dims) == 2 for t in loaded):
        return None
    if inputs[left.tensor].dtype is not None or signature.outputs[0].dtype is not None:
        return None
    zeros = next((t for t in bytes_ if t.dims == floats[0].dims), None)
    codes = next((t for t in bytes_ if t is not zeros), None)
    if zeros is None or codes is None:
        return None
    tensors = (codes, floats[0], zeros)
    groups = {_group(plan, right, signature, tensors, size) for size in (2, 3)}
    group = groups.pop()
    if groups or group is None:
        return None
    return Weights(
        left.tensor, codes.name, floats[0].name, zeros.name, group, plan.rows[0].extent,
        plan.columns[0].extent, plan.depth[0].extent,
    )  # fmt: skip


def _group(
    plan: ContractionPlan,
    right: Node,
    signature: Signature,
    tensors: tuple[TensorArgument, TensorArgument, TensorArgument],
    size: int,
) -> int | None:
    """Steps in a group when every dimension has this size; None: not the weights meant here."""
    sizes = dict.fromkeys(signature.dimensions, size)
    column, step = plan.columns[0], plan.depth[0]
    n, k = (evaluate_dimension(bound.extent, sizes) for bound in (column, step))
    codes, scales, zeros = tensors
    groups = scales.shape(sizes)[1]
    group = k // groups
    if group % _LEAST_GROUP or k != group * groups or codes.shape(sizes) != (n, k // 2):
        return None
    draw = np.random.default_rng(size)
    contents: dict[str, NDArray[Any]] = {
        codes.name: draw.integers(0, 256, (n, k // 2), np.uint8),
        zeros.name: draw.integers(0, 256, (n, groups), np.uint8),
        scales.name: draw.standard_normal((n, groups)),
    }
    dims = (column.extent, step.extent)
    output = Output("weights", (column.axis, step.axis), dims, right)
    inputs = tuple(t for t in signature.inputs if t.name in contents)
    alone = Program(Signature(inputs, (TensorArgument("weights", dims),)), (output,))
    found = evaluate(alone, contents, {}, sizes)["weights"]
    packed = contents[codes.name].astype(np.float64)
    code = np.stack((packed % 16, packed // 16), -1).reshape(n, groups, group)
    wanted = (code - contents[zeros.name][..., None]) * contents[scales.name][..., None]
    return group if np.allclose(found, wanted.reshape(n, k), rtol=1e-12, atol=0) else None


def _problem(signature: Signature, weights: Weights, dtype: Dtype) -> list[str]:
    """The types and the struct that `nibbles.hpp` works with."""
    kind = dtype.c_type
    return [
        f"typedef {kind} Input;",
        f"typedef {kind} Scale;",
        "struct Problem {",
        "    const Input* input;",
        "    const uint8_t* codes;",
        "    const Scale* scales;",
        "    const uint8_t* zeros;",
        f"    {signature.outputs[0].resolve(dtype).c_type}* output;",
        "    int64_t row_count, column_count, depth_count;",
        "};",
    ]


def _entry_points(signature: Signature, weights: Weights, dtype: Dtype, entry: str) -> list[str]:
    counts = ", ".join(map(dimension_to_c, (weights.rows, weights.columns, weights.depth)))
    static = f"{weights.codes}, {weights.scales}, {weights.zeros}"
    prepared, prepare = signature.prepare_prototypes(entry, dtype)
    sized = f"const Problem problem{{nullptr, nullptr, nullptr, nullptr, nullptr, {counts}}};"
    others = [t.name for t in signature.static_inputs if t.name not in static.split(", ")]
    return [
        f'extern "C" {signature.workspace_prototype(entry)} {{',
        f"    {sized}", "    return nibbles::workspace(problem);", "}", "",
        f'extern "C" {prepared} {{',
        f"    {sized}", "    return nibbles::Layout(problem).bytes();", "}", "",
        f'extern "C" {prepare} {{',
        *(f"    (void){name};" for name in ("stream", *others)),
        f"    const Problem problem{{nullptr, {static}, nullptr, {counts}}};",
        "    return nibbles::prepare(problem, prepared);", "}", "",
        f'extern "C" {signature.prototype(entry, dtype)} {{',
        *(f"    (void){name};" for name in ("stream", *others)),
        f"    const Problem problem{{{weights.input}, {static}, {signature.outputs[0].name}, "
        f"{counts}}};",
        "    return nibbles::run(problem, prepared, workspace, workspace_bytes);", "}",
    ]  # fmt: skip


def _tunables(machine: Machine, dtype: Dtype) -> Tunables:
    choices: dict[str, tuple[int | str, ...]] = {
        "NV": (4, 2, 8, 1), "MR": (4, 6, 8, 2, 12), "AHEAD": (2048, 0, 1024, 4096, 8192),
    }  # fmt: skip
    clang = next((t.name for t in reversed(machine.toolchains) if "clang" in t.name), "")
    departures: tuple[dict[str, int | str], ...] = (
        {"CXX": clang}, {"NV": 2, "MR": 8}, {"AHEAD": 4096}, {"AHEAD": 0}, {"NV": 2, "MR": 12},
        {"NV": 8, "MR": 2}, {"CXX": clang, "NV": 2, "MR": 8}, {"NV": 1, "MR": 12},
    )  # fmt: skip
    if dtype is Dtype.BF16 and "avx512_bf16" in machine.isa:
        choices = {"DOT": (1, 0), **choices}
    # accumulators and codes in 32 registers, the table in one
    constraints = ("MR * NV + NV <= 30",)
    return Tunables(choices | toolchain_choices(machine), constraints, departures)
