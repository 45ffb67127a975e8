"""Sizes, scalars and inputs that references are traced and checked with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random
from typing import TYPE_CHECKING, Any

import torch

from kernelwright.errors import Unsupported
from kernelwright.model import (
    Dtype,
    FrozenMap,
    Scalar,
    ScalarArgument,
    Signature,
    TensorArgument,
    dimension_names,
)
from kernelwright.problems.trace_unify import Setting

if TYPE_CHECKING:
    from kernelwright.problems.declaration import InputMaker

RUNS = 4
"""Three to trace, and one to check with."""
_DRAWS = 50
_PRIMES = (5, 7, 11, 13, 17, 19, 23, 3, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83,
           89, 97, 101, 103, 107, 109, 113, 127, 131, 137, 139, 149)  # fmt: skip
_TORCH = {
    Dtype.F64: torch.float64, Dtype.F32: torch.float32, Dtype.F16: torch.float16,
    Dtype.BF16: torch.bfloat16, Dtype.I64: torch.int64, Dtype.I32: torch.int32,
    Dtype.I16: torch.int16, Dtype.I8: torch.int8, Dtype.U8: torch.uint8, Dtype.BOOL: torch.bool,
}  # fmt: skip


def settings_for(
    signature: Signature,
    ranges: Mapping[str, tuple[int, int]],
    multiple: int,
    flags: Mapping[str, bool],
) -> list[Setting]:
    """Settings with sizes as distinct as their ranges allow, multiples of `multiple`."""
    scalars = {scalar.name: scalar for scalar in signature.scalars}
    names = list(signature.dimensions)
    names += [s for s in scalars if s not in names and _is_dimension(signature, s)]
    table = _sizes(names, ranges, multiple)
    settings: list[Setting] = []
    for run, sizes in enumerate(table):
        values = {
            name: sizes[name] if name in sizes else _scalar(scalar, run, flags)
            for name, scalar in scalars.items()
        }
        settings.append(Setting(sizes, values))
    return settings


def _sizes(
    names: Sequence[str], ranges: Mapping[str, tuple[int, int]], multiple: int
) -> list[dict[str, int]]:
    """Sizes for each run, redrawn until no two dimensions move in step."""
    generator = Random(0)
    best: list[dict[str, int]] = []
    for _ in range(_DRAWS):
        table: list[dict[str, int]] = []
        for _ in range(RUNS):
            sizes: dict[str, int] = {}
            for name in names:
                taken = {row[name] for row in table} | set(sizes.values())
                low, high = ranges.get(name, (1, 2**31))
                sizes[name] = _size(low, high, multiple, taken, generator)
            table.append(sizes)
        # the interpreter checks the last one, and it is slow
        table[-1] = {
            name: _small(ranges.get(name, (1, 2**31)), multiple, generator) for name in names
        }
        best = best or table
        if _independent(table[: RUNS - 1]):
            return table
    return best


def _independent(table: Sequence[Mapping[str, int]]) -> bool:
    """Whether no sum or difference of two dimensions is the same in all rows."""
    for first, second in combinations(table[0], 2):
        pairs = [(row[first], row[second]) for row in table]
        if any(len({a + sign * b for a, b in pairs}) == 1 for sign in (1, -1)):
            return False
    return True


def _is_dimension(signature: Signature, name: str) -> bool:
    return any(name in dimension_names(dim) for t in signature.tensors for dim in t.dims)


def _size(low: int, high: int, multiple: int, taken: set[int], generator: Random) -> int:
    low = max(low, min(2, high))
    near = range(low, min(high, low + 64) + 1)
    fitting = [p * multiple for p in _PRIMES if low <= p * multiple <= high]
    for choices in (fitting[:14], fitting, near):
        fresh = [size for size in choices if size not in taken]
        if fresh:
            return generator.choice(fresh)
    return generator.choice(fitting or near)


def _small(bounds: tuple[int, int], multiple: int, generator: Random) -> int:
    fitting = [n * multiple for n in range(2, 9) if bounds[0] <= n * multiple <= bounds[1]]
    return generator.choice(fitting) if fitting else bounds[0]


def _scalar(scalar: ScalarArgument, run: int, flags: Mapping[str, bool]) -> Scalar:
    if scalar.kind == "bool":
        return flags[scalar.name]
    default = scalar.default
    if scalar.kind == "int":
        return int(default if default is not None else 3) + run
    # near the default, which is the one value known to make sense
    start = 0.37 if default is None else float(default)
    factor = (1.0, 1.3718281, 0.7853982, 1.1931472)[run]
    return start * factor if start else (0.0, 0.2318281, 0.1353982, 0.0931472)[run]


@dataclass(frozen=True)
class Drawn:
    """A reference, and how its inputs are drawn."""

    function: Callable[..., Any]
    signature: Signature
    maker: InputMaker | None = None
    """Makes the integers that the reference may meet; without it they are zeros and ones."""

    def inputs(self, setting: Setting, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """Small distinct inputs, the same for the same sizes; floats positive and negative."""
        generator = torch.Generator().manual_seed(7)
        made: Mapping[str, torch.Tensor] = {}
        if self.maker is not None and any(_is_integer(t) for t in self.signature.inputs):
            made = self.maker(FrozenMap(setting.sizes), FrozenMap(setting.scalars), generator)
        return {
            t.name: made[t.name].to(_TORCH[t.dtype])
            if t.dtype is not None and _is_integer(t) and t.name in made
            else _draw(t, setting, dtype, generator)
            for t in self.signature.inputs
        }


def _is_integer(tensor: TensorArgument) -> bool:
    return not (tensor.dtype is None or tensor.dtype.is_float or tensor.dtype is Dtype.BOOL)


def _draw(
    tensor: TensorArgument, setting: Setting, dtype: torch.dtype, generator: torch.Generator
) -> torch.Tensor:
    shape = tensor.shape(setting.sizes)
    if any(size > 2**20 for size in shape):
        raise Unsupported(f"the input '{tensor.name}' is too large to trace")
    fixed = tensor.dtype
    if fixed is None or fixed.is_float:
        return torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype)
    if fixed is Dtype.BOOL:
        return torch.rand(shape, generator=generator) < 0.5
    # small, so that they may serve as indices
    return torch.randint(0, 2, shape, generator=generator).to(_TORCH[fixed])
