"""Histogram of integer keys."""

import torch
from jaxtyping import Int64, Integer
from torch import Tensor

from kernelwright.problems import problem


@problem(
    scenario="algebra",
    dtypes=("u8", "i32"),
    sizes={
        "cpu": [dict(N=2**24, bins=256), dict(N=2**24, bins=4096)],
        "gpu": [dict(N=2**28, bins=256), dict(N=2**28, bins=4096)],
    },
    ranges=dict(N=(1, 2**28), bins=(1, 4096)),
    distributions=("normal",),
    outputs=("counts",),
    work="N*bins//4",
    source="GPU practice",
)
def histogram(x: Integer[Tensor, "N"], bins: int) -> Int64[Tensor, "bins"]:
    """How often each of the keys 0 to bins - 1 occurs (8-bit keys: those that it can hold)."""
    return torch.bincount(x, minlength=bins)


@histogram.inputs("normal")
def uniform(sizes, scalars, generator):
    return {"x": torch.randint(sizes["bins"], (sizes["N"],), generator=generator)}


@histogram.inputs("nearly one value")
def nearly_one_value(sizes, scalars, generator):
    """Nine keys of ten are equal: nearly every update hits the same counter."""
    x = torch.randint(sizes["bins"], (sizes["N"],), generator=generator)
    same = torch.rand(sizes["N"], generator=generator) < 0.9
    return {"x": torch.where(same, torch.randint(sizes["bins"], (1,), generator=generator), x)}


@histogram.inputs("Zipf")
def zipf(sizes, scalars, generator):
    """The k-th most frequent key occurs in proportion to 1/k; frequent keys lie anywhere."""
    weights = 1 / torch.arange(1, sizes["bins"] + 1)
    drawn = torch.searchsorted(
        weights.cumsum(0) / weights.sum(), torch.rand(sizes["N"], generator=generator)
    ).clamp(max=sizes["bins"] - 1)
    return {"x": torch.randperm(sizes["bins"], generator=generator)[drawn]}


@histogram.inputs("sorted runs")
def sorted_runs(sizes, scalars, generator):
    """Ascending: each key's occurrences follow one another."""
    x = torch.randint(sizes["bins"], (sizes["N"],), generator=generator)
    return {"x": x.sort().values}


@histogram.peer("scatter_add_")
def scattered(x, bins):
    one = torch.ones(1, dtype=torch.int64, device=x.device)
    return torch.zeros(bins, dtype=torch.int64, device=x.device).scatter_add_(
        0, x.long(), one.expand(x.shape[0])
    )


@histogram.peer("torch.histc")
def histc(x, bins):
    # exact while no count passes 2^24, what float32 counts to
    if x.shape[0] > 2**24:
        raise NotImplementedError("torch.histc counts in float32: not exact beyond 2^24 keys")
    return torch.histc(x.float(), bins=bins, min=0, max=bins)


@histogram.trivial("first half of the keys, twice")
def half(x, bins):
    return 2 * torch.bincount(x[: x.shape[0] // 2], minlength=bins)


@histogram.trivial("last key left out")
def last_left_out(x, bins):
    return torch.bincount(x[:-1], minlength=bins)
