"""Tensors and arrays of the oracle: where they lie, and comparisons by the problem's own errors."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from kernelwright.evaluation.layout import Place
from kernelwright.model import Dtype
from kernelwright.numerics import Comparison, compare
from kernelwright.problems import torch_dtype

Array = np.ndarray[Any, Any]


def places_of(data: Sequence[Mapping[str, Any]]) -> list[Place]:
    """Places from a request."""
    return [Place.from_json(one) for one in data]


def shared_bytes(arena: Array) -> torch.Tensor:
    """The bytes of shared pages as a tensor, not a copy."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # sealed pages are meant to be read only
        return from_numpy(arena)


def tensor_at(place: Place, memory: torch.Tensor) -> torch.Tensor:
    """A tensor over a part of an arena's bytes."""
    flat = memory[place.offset : place.offset + place.nbytes]
    return flat.view(torch_dtype(place.dtype)).reshape(place.shape)


def from_numpy(values: Array) -> torch.Tensor:
    """The same memory as a tensor."""
    return torch.from_numpy(values)  # pyright: ignore[reportUnknownMemberType]


def bytes_of(value: torch.Tensor) -> Array:
    """The bytes of a tensor, in row-major order."""
    return value.detach().contiguous().reshape(-1).view(torch.uint8).cpu().numpy()


def values_of(value: torch.Tensor) -> Array:
    """Values in a native numpy type: floats as float32 or float64, integers as int64."""
    value = value.detach().cpu()
    if value.dtype in (torch.bfloat16, torch.float16):
        value = value.float()
    return (value if value.is_floating_point() else value.to(torch.int64)).numpy()


def as_comparison(units: Array, actual: Array, expected: Array) -> Comparison:
    """The problem's own errors as a comparison, with a diagnosis where they exceed 1."""
    wrong = ~(units <= 1)
    if not wrong.any():
        return Comparison(True, float(np.max(units, initial=0.0)), total=units.size)
    # what the problem accepts counts as equal; the rest is diagnosed as usual
    oracle = np.where(wrong, expected, actual)
    found = compare(actual, oracle, np.zeros(oracle.shape), _dtype_of(actual))
    return replace(found, max_error=float(np.max(units)))


def _dtype_of(values: Array) -> Dtype:
    if values.dtype.kind == "f":
        return Dtype.F64 if values.dtype.itemsize == 8 else Dtype.F32
    return Dtype.I64
