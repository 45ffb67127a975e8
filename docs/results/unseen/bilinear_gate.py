"""A gated activation that no library has: an arctan of a softplus on one half of the features."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from kernelwright.problems import problem


@problem(
    sizes={"cpu": [dict(T=2048, D=768)]},
    distributions=("normal",),
    scalar_choices={"sharpness": (1.0, 0.5)},
    static=("bias", "scale"),
    slices="T",
)
def bilinear_gate(
    x: Float[Tensor, "T 2*D"],
    bias: Float[Tensor, "D"],
    residual: Float[Tensor, "T D"],
    scale: Float[Tensor, "D"],
    sharpness: float = 1.0,
) -> Float[Tensor, "T D"]:
    """Gate the right half by the left, add a bias and a residual scaled per feature."""
    left, right = x.chunk(2, dim=-1)
    gate = torch.atan(F.softplus(sharpness * left)) * (2 / math.pi)
    return gate * right + bias + residual * scale


@bilinear_gate.inputs("gate nearly shut")
def nearly_shut(sizes, scalars, generator):
    """Gates down to 1e-6 on values so large that the product still counts: log(1 + exp) fails."""
    shape = (sizes["T"], sizes["D"])
    exponent = -4 - 10 * torch.rand(shape, generator=generator)
    right = torch.randn(shape, generator=generator) * torch.exp(-exponent)
    return {"x": torch.cat([exponent / scalars["sharpness"], right], dim=-1)}


@bilinear_gate.trivial("halves swapped")
def swapped(x, bias, residual, scale, sharpness):
    right, left = x.chunk(2, dim=-1)
    gate = torch.atan(F.softplus(sharpness * left)) * (2 / math.pi)
    return gate * right + bias + residual * scale


@bilinear_gate.trivial("sigmoid for the gate")
def sigmoid_gate(x, bias, residual, scale, sharpness):
    left, right = x.chunk(2, dim=-1)
    return torch.sigmoid(sharpness * left) * right + bias + residual * scale


@bilinear_gate.trivial("residual not scaled")
def not_scaled(x, bias, residual, scale, sharpness):
    left, right = x.chunk(2, dim=-1)
    gate = torch.atan(F.softplus(sharpness * left)) * (2 / math.pi)
    return gate * right + bias + residual
