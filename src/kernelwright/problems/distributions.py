"""Standard input distributions for floating tensors, by name.

Each takes a shape and a generator and returns float64 values. A problem names those that suit it
(`distributions=("normal", "outliers")`) and writes its own for what is special to it.
"""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

Draw = Callable[[tuple[int, ...], Generator], Tensor]


def normal(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Independent standard normal values."""
    # Drawn in float32: twice as fast, and no workload dtype but f64 could tell.
    return torch.randn(shape, generator=generator, dtype=torch.float32).double()


def huge(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Normal values times 1e4: overflow of unguarded exponentials and squares in f16."""
    return normal(shape, generator) * 1e4


def tiny(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Normal values times 1e-3: what is added as a guard (epsilons) now matters."""
    return normal(shape, generator) * 1e-3


def outliers(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Normal values with one in a hundred, and at least one, times 1e3."""
    values = normal(shape, generator)
    planted = torch.rand(shape, generator=generator) < 0.01
    if planted.numel():
        planted.view(-1)[torch.randint(planted.numel(), (1,), generator=generator)] = True
    return torch.where(planted, values * 1e3, values)


def mixed_rows(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Normal values, each line along the last axis with its own scale from 1e-4 to 1e4."""
    lines = (*shape[:-1], 1) if len(shape) > 1 else shape
    scale = 10 ** (torch.rand(lines, generator=generator, dtype=torch.float64) * 8 - 4)
    return normal(shape, generator) * scale


def offset(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Normal values plus 100: mean much greater than spread."""
    return normal(shape, generator) + 100


def cancelling(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Values of size 100 that nearly cancel in pairs along the last axis, pairs far apart."""
    values = normal(shape, generator)
    if not shape:
        return values
    half = shape[-1] // 2
    partner = torch.randperm(half, generator=generator)
    large = normal((*shape[:-1], half), generator) * 100
    values[..., :half] += large
    values[..., half : 2 * half] -= large[..., partner]
    return values


def positive(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Absolute values of normal values, never zero: for roots and logarithms."""
    return normal(shape, generator).abs() + 1e-3


def unit(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Uniform between 0 and 1."""
    return torch.rand(shape, generator=generator, dtype=torch.float64)


STANDARD: dict[str, Draw] = {
    "normal": normal,
    "huge": huge,
    "tiny": tiny,
    "outliers": outliers,
    "mixed_rows": mixed_rows,
    "offset": offset,
    "cancelling": cancelling,
    "positive": positive,
    "unit": unit,
}
