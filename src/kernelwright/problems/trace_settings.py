"""Sizes, scalars and inputs that references are traced and checked with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from kernelwright.errors import Unsupported
from kernelwright.model import Dtype, Scalar, ScalarArgument, Signature, TensorArgument
from kernelwright.problems.trace_unify import Setting

RUNS = 4
"""Three to trace, and one to check with."""
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
    settings: list[Setting] = []
    for run in range(RUNS):
        sizes: dict[str, int] = {}
        for position, name in enumerate(names):
            taken = {s.sizes[name] for s in settings} | set(sizes.values())
            low, high = ranges.get(name, (1, 2**31))
            sizes[name] = _size(low, high, multiple, taken, position + run * len(names))
        values = {
            name: sizes[name] if name in sizes else _scalar(scalar, run, flags)
            for name, scalar in scalars.items()
        }
        settings.append(Setting(sizes, values))
    return settings


def _is_dimension(signature: Signature, name: str) -> bool:
    from kernelwright.model import dimension_names

    return any(name in dimension_names(dim) for t in signature.tensors for dim in t.dims)


def _size(low: int, high: int, multiple: int, taken: set[int], start: int) -> int:
    low = max(low, min(2, high))

    def usable() -> Iterator[int]:
        for prime in _PRIMES[start % 12 :] + _PRIMES[: start % 12]:
            yield prime * multiple
        yield from range(low, min(high, low + 64) + 1)

    fallback = low
    for size in usable():
        if low <= size <= high:
            if size not in taken:
                return size
            fallback = size
    return fallback


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


def draw_inputs(
    signature: Signature, setting: Setting, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """Distinct small random inputs, the same for the same sizes; floats positive and negative."""
    generator = torch.Generator().manual_seed(7)
    return {t.name: _draw(t, setting, dtype, generator) for t in signature.inputs}


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
