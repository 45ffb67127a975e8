"""What the families on the matrix unit (AMX) have in common: names, register tile, blocks."""

from __future__ import annotations

from kernelwright.codegen.assemble import block_file
from kernelwright.codegen.blocks import (
    CONTRACTION_AMX,
    CONTRACTION_PAIRS,
    CONTRACTION_PARTS,
    MATRIX_UNIT,
)
from kernelwright.model import Machine

ON_MATRIX_UNIT = "on the matrix unit"
"""How the names of families end that multiply bfloat16 on the unit."""
IN_PARTS = f"{ON_MATRIX_UNIT}, in three parts"
"""How the names of families end that take float32 apart into three bfloat16 for the unit."""
TILE = {"LANES": 16, "MR": 32, "NV": 2, "UNROLL_K": 1, "PREFETCH": 0}
"""The register tile that the unit has; the rest is what vectors would take."""


def has_matrix_unit(machine: Machine) -> bool:
    """Whether the machine lends its matrix unit."""
    return "amx_bf16" in machine.isa


def on_unit(name: str) -> bool:
    """Whether a family of this name uses the unit."""
    return name.endswith((ON_MATRIX_UNIT, IN_PARTS))


def tile_definitions(name: str) -> list[str]:
    """For a family of this name, definitions of what is a tunable where vectors do the work."""
    values = {"DOT": 3 if name.endswith(IN_PARTS) else 2, **TILE}
    return [f"#define {macro} {value}" for macro, value in values.items()]


def unit_blocks(name: str) -> list[str]:
    """The blocks that pack and multiply for a family of this name; they follow the tile's."""
    packing = (
        [CONTRACTION_PARTS] if name.endswith(IN_PARTS) else [CONTRACTION_PAIRS, CONTRACTION_AMX]
    )
    return [line for block in (MATRIX_UNIT, *packing) for line in (block_file(block), "")]
