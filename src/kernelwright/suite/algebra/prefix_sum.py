"""Inclusive prefix sum."""

import torch
from jaxtyping import Float
from torch import Tensor

from kernelwright.problems import problem


@problem(
    scenario="algebra",
    sizes={"cpu": [dict(N=2**23)], "gpu": [dict(N=2**28)]},
    ranges=dict(N=(1, 2**28)),
    distributions=("normal", "cancelling"),
    source="MSKernelBench prefix_sum",
)
def prefix_sum(x: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
    """Sum of all elements up to and including each."""
    return x.cumsum(-1)


@prefix_sum.inputs("outliers")
def outliers(sizes, scalars, generator):
    """Rare elements a thousand times larger: skipping any one of them spoils all that follow."""
    N = sizes["N"]
    x = torch.randn(N, generator=generator)
    planted = torch.rand(N, generator=generator) < 1e-3
    planted[torch.randint((N + 1) // 2, (1,), generator=generator)] = True
    return {"x": torch.where(planted, x * 1000, x)}


@prefix_sum.terms
def terms(x):
    return x.abs().cumsum(-1)


@prefix_sum.peer("torch.cumsum")
def library(x):
    return torch.cumsum(x, dim=0)


@prefix_sum.trivial("exclusive")
def exclusive(x):
    return x.cumsum(-1) - x


@prefix_sum.trivial("carry lost between blocks of 1024")
def no_carry(x):
    padded = torch.nn.functional.pad(x, (0, -x.shape[0] % 1024))
    return padded.view(-1, 1024).cumsum(-1).view(-1)[: x.shape[0]]


@prefix_sum.trivial("one element skipped")
def skips_one(x):
    # The largest of the first half: a careless sampler would most likely miss it.
    position = x[: (x.shape[0] + 1) // 2].abs().argmax()
    return x.index_fill(0, position, 0.0).cumsum(-1)
