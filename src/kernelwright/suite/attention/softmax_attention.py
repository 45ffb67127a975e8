"""Attention of one head, without a mask."""

from math import sqrt

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from kernelwright.problems import Cost, Trial, problem, rounded_operand_errors, softmax_terms


@problem(
    scenario="attention",
    sizes={
        "cpu": [dict(S=1536, D=64, L=1536, E=64)],
        "gpu": [dict(S=16384, D=128, L=16384, E=128)],
    },
    ranges=dict(S=(1, 32768), D=(1, 256), L=(1, 32768), E=(1, 256)),
    distributions=("normal", "outliers"),
    slices="S",
    work="S*L*(D+E)",
    contract="weights may be rounded to bf16 before they meet the values",
    source="MSKernelBench softmax_attention; Streaming SDPA",
)
def softmax_attention(
    q: Float[Tensor, "S D"], k: Float[Tensor, "L D"], v: Float[Tensor, "L E"]
) -> Float[Tensor, "S E"]:
    """Softmax of the scaled products of queries and keys, times the values."""
    return torch.softmax(q @ k.t() / sqrt(q.shape[1]), -1) @ v


@softmax_attention.cost
def cost(sizes, dtype):
    """Each tensor once; two products."""
    S, D, L, E = sizes["S"], sizes["D"], sizes["L"], sizes["E"]
    read = S * D + L * D + L * E
    return Cost(read * dtype.itemsize, S * E * dtype.itemsize, 2 * S * L * (D + E))


@softmax_attention.inputs("outliers")
def outliers(sizes, scalars, generator):
    """Rare values a thousand times larger; scores stay ordinary."""
    v = torch.randn((sizes["L"], sizes["E"]), generator=generator)
    planted = torch.rand(v.shape, generator=generator) < 0.01
    planted[torch.randint(sizes["L"], (1,), generator=generator)] = True
    return {"v": torch.where(planted, 1000 * v, v)}


@softmax_attention.inputs("sharp")
def sharp(sizes, scalars, generator):
    """Scores eight times larger: a few keys hold nearly all the weight of a row."""
    return {"q": 8 * torch.randn((sizes["S"], sizes["D"]), generator=generator)}


@softmax_attention.inputs("high scores")
def high_scores(sizes, scalars, generator):
    """All scores are near 120: exponentials overflow unless the maximum is subtracted."""
    S, D, L = sizes["S"], sizes["D"], sizes["L"]
    q = torch.randn((S, D), generator=generator)
    k = torch.randn((L, D), generator=generator)
    q[:, 0], k[:, 0] = 20, 6 * sqrt(D)
    return {"q": q, "k": k}


@softmax_attention.inputs("ascending")
def ascending(sizes, scalars, generator):
    """Scores grow along the keys: an online softmax must rescale at every step."""
    S, D, L = sizes["S"], sizes["D"], sizes["L"]
    q = torch.randn((S, D), generator=generator)
    k = torch.randn((L, D), generator=generator)
    q[:, 0], k[:, 0] = 8, torch.linspace(-4, 4, L) * sqrt(D)
    return {"q": q, "k": k}


@softmax_attention.terms
def terms(q, k, v):
    root = sqrt(q.shape[1])
    return softmax_terms(torch.softmax(q @ k.t() / root, -1), v, q.abs() @ k.abs().t() / root)


@softmax_attention.equivalent
def rounded_weights(trial: Trial) -> dict[str, Tensor]:
    """As matrix units want them: the weights in the dtype of the values."""

    def squares(q, k, v):
        return torch.softmax(q @ k.t() / sqrt(q.shape[1]), -1).square() @ v.square()

    return rounded_operand_errors(trial, "out", squares)


@softmax_attention.peer("F.scaled_dot_product_attention")
def library(q, k, v):
    return F.scaled_dot_product_attention(q[None, None], k[None, None], v[None, None])[0, 0]


@softmax_attention.trivial("all keys alike")
def uniform(q, k, v):
    return v.mean(0).expand(q.shape[0], -1)


@softmax_attention.trivial("first half of the keys")
def half(q, k, v):
    middle = (k.shape[0] + 1) // 2
    return softmax_attention(q, k[:middle], v[:middle])


@softmax_attention.trivial("scores not scaled")
def not_scaled(q, k, v):
    return torch.softmax(q @ k.t(), -1) @ v


@softmax_attention.trivial("causal")
def causal(q, k, v):
    return F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]
