"""A linear layer with an epilogue that no library fuses."""

import torch
from jaxtyping import Float
from torch import Tensor

from kernelwright.problems import problem


@problem(
    sizes={"cpu": [dict(M=2048, K=256, N=768)]},
    distributions=("normal",),
    scalar_choices={"limit": (16.0, 4.0)},
    static=("w", "b"),
    slices="M",
)
def odd_linear(
    x: Float[Tensor, "M K"],
    w: Float[Tensor, "N K"],
    b: Float[Tensor, "N"],
    slope: Float[Tensor, "M"],
    gate: Float[Tensor, "M"],
    residual: Float[Tensor, "M N"],
    limit: float = 16.0,
) -> Float[Tensor, "M N"]:
    """Clamped linear layer; squared relu less a slope per row, gated per row, plus a residual."""
    h = (x @ w.t() + b).clamp(-limit, limit)
    y = torch.relu(h).square() - slope[:, None] * h
    return y * torch.sigmoid(gate)[:, None] + residual


@odd_linear.inputs("at the edge of the clamp")
def at_the_edge(sizes, scalars, generator):
    """Every feature straddles the limit, above or below."""
    x = torch.randn((sizes["M"], sizes["K"]), generator=generator) * sizes["K"] ** -0.5
    sign = torch.randint(0, 2, (sizes["N"],), generator=generator) * 2 - 1
    return {"x": x, "b": sign * scalars["limit"]}


@odd_linear.trivial("without the clamp")
def without_clamp(x, w, b, slope, gate, residual, limit):
    h = x @ w.t() + b
    y = torch.relu(h).square() - slope[:, None] * h
    return y * torch.sigmoid(gate)[:, None] + residual


@odd_linear.trivial("relu not squared")
def not_squared(x, w, b, slope, gate, residual, limit):
    h = (x @ w.t() + b).clamp(-limit, limit)
    y = torch.relu(h) - slope[:, None] * h
    return y * torch.sigmoid(gate)[:, None] + residual


@odd_linear.trivial("without the bias")
def without_bias(x, w, b, slope, gate, residual, limit):
    h = (x @ w.t()).clamp(-limit, limit)
    y = torch.relu(h).square() - slope[:, None] * h
    return y * torch.sigmoid(gate)[:, None] + residual
