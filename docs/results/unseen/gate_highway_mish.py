"""A highway gate around a Mish activation, as a position-wise block would apply it."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import mish, silu, softplus

from kernelwright.problems import problem


@problem(
    sizes={"cpu": [dict(T=1024, H=1536)]},
    distributions=("normal", "outliers"),
    scalar_choices={"beta": (1.25, 0.5)},
    static=("bias", "gate_bias"),
    slices="T",
)
def gate_highway_mish(
    x: Float[Tensor, "T H"],
    gate: Float[Tensor, "T H"],
    residual: Float[Tensor, "T H"],
    bias: Float[Tensor, "H"],
    gate_bias: Float[Tensor, "H"],
    beta: float = 1.25,
) -> Float[Tensor, "T H"]:
    """Blend Mish of the biased x with the residual, by a sigmoid gate of slope beta."""
    u = x + bias
    h = u * torch.tanh(softplus(u))
    t = torch.sigmoid(beta * gate + gate_bias)
    return t * h + (1 - t) * residual


@gate_highway_mish.inputs("gates nearly saturated")
def saturated(sizes, scalars, generator):
    shape = (sizes["T"], sizes["H"])
    side = torch.randint(0, 2, shape, generator=generator) * 2 - 1
    gate = side * (8 + 3 * torch.randn(shape, generator=generator))
    return {"gate": gate}


@gate_highway_mish.inputs("massive residual channels")
def massive_channels(sizes, scalars, generator):
    residual = torch.randn((sizes["T"], sizes["H"]), generator=generator)
    channels = torch.rand(sizes["H"], generator=generator) < 0.02
    return {"residual": torch.where(channels, residual * 500 + 1500, residual)}


@gate_highway_mish.inputs("deeply negative x")
def negative(sizes, scalars, generator):
    x = torch.randn((sizes["T"], sizes["H"]), generator=generator)
    return {"x": x * 6 - 10}


@gate_highway_mish.peer("F.mish, lerp")
def library(x, gate, residual, bias, gate_bias, beta):
    t = torch.sigmoid(torch.add(gate_bias, gate, alpha=beta))
    return torch.lerp(residual, mish(x + bias), t)


@gate_highway_mish.trivial("carry left open")
def carry_left_open(x, gate, residual, bias, gate_bias, beta):
    return torch.sigmoid(beta * gate + gate_bias) * mish(x + bias) + residual


@gate_highway_mish.trivial("without bias")
def without_bias(x, gate, residual, bias, gate_bias, beta):
    t = torch.sigmoid(beta * gate + gate_bias)
    return t * mish(x) + (1 - t) * residual


@gate_highway_mish.trivial("SiLU for Mish")
def silu_for_mish(x, gate, residual, bias, gate_bias, beta):
    t = torch.sigmoid(beta * gate + gate_bias)
    return t * silu(x + bias) + (1 - t) * residual
