"""The largest elements of each row."""

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from kernelwright.problems import Trial, problem


@problem(
    scenario="retrieval",
    sizes={"cpu": [dict(T=256, N=4096, k=32)], "gpu": [dict(T=16384, N=16384, k=64)]},
    ranges=dict(T=(1, 65536), N=(64, 131072), k=(1, 64)),
    distributions=("normal", "outliers"),
    outputs=("values", "indices"),
    slices="T",
    work="T*N",
    source="GemFilter; LouisKV; Locret",
)
def topk_rows(x: Float[Tensor, "T N"], k: int) -> tuple[Float[Tensor, "T k"], Int32[Tensor, "T k"]]:
    """The k largest of each row in descending order, and where they are; equal ones by index."""
    values, indices = torch.sort(x, dim=-1, descending=True, stable=True)
    return values[:, :k].clone(), indices[:, :k].clone()


@topk_rows.inputs("nearly equal")
def nearly_equal(sizes, scalars, generator):
    """Steps of 2^-12 from somewhere between -2 and 2: to bf16 up to 32 neighbours are the same."""
    T, N = sizes["T"], sizes["N"]
    order = torch.rand((T, N), generator=generator).argsort(-1)
    return {"x": 4 * torch.rand((T, 1), generator=generator) - 2 + order * 2.0**-12}


@topk_rows.inputs("ascending")
def ascending(sizes, scalars, generator):
    """Sorted, from a random place on: nearly every element enters a selection from the left."""
    x = torch.randn((sizes["T"], sizes["N"]), generator=generator).sort(-1).values
    return {"x": x.roll(int(torch.randint(sizes["N"], (1,), generator=generator)), -1)}


@topk_rows.inputs("ties")
def ties(sizes, scalars, generator):
    """Nine different values: nearly everything is a tie, between the last chosen and others too."""
    return {"x": torch.randint(-4, 5, (sizes["T"], sizes["N"]), generator=generator).float()}


@topk_rows.inputs("infinities")
def infinities(sizes, scalars, generator):
    """All but one in ten is -inf, as after a mask; +inf occurs."""
    x = torch.randn((sizes["T"], sizes["N"]), generator=generator)
    kind = torch.rand(x.shape, generator=generator)
    x = x.masked_fill(kind < 0.9, -torch.inf)
    return {"x": x.masked_fill(kind > 0.995, torch.inf)}


@topk_rows.equivalent
def exactly(trial: Trial) -> dict[str, Tensor]:
    """Values and indices as in the reference: of equal elements the lower index comes first."""
    return {name: trial.actual[name] == trial.expected[name] for name in ("values", "indices")}


@topk_rows.peer("torch.topk")
def library(x, k):
    return torch.topk(x, k, dim=-1)


@topk_rows.trivial("of the first half of the row")
def half(x, k):
    chosen = x[:, : max((x.shape[1] + 1) // 2, k)]
    return topk_rows(chosen, k)


@topk_rows.trivial("smallest")
def smallest(x, k):
    return torch.topk(x, k, dim=-1, largest=False)


@topk_rows.trivial("largest magnitudes")
def magnitudes(x, k):
    indices = x.abs().topk(k, -1).indices
    return x.gather(1, indices), indices


@topk_rows.trivial("the largest, k times")
def one(x, k):
    values, indices = x.max(-1, keepdim=True)
    return values.expand(-1, k), indices.expand(-1, k)
