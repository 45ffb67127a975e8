"""Gaussian error linear unit."""

from math import sqrt

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from kernelwright.problems import problem


@problem(
    scenario="llm",
    sizes={"cpu": [dict(M=4096, N=2048)], "gpu": [dict(M=32768, N=8192)]},
    ranges=dict(M=(1, 65536), N=(1, 32768)),
    distributions=("normal", "outliers"),
    slices="M",
    contract="erf is right to 4 * 2^-23 absolute: libraries' float32 erf is no better",
    source="MSKernelBench gelu",
)
def gelu(x: Float[Tensor, "M N"]) -> Float[Tensor, "M N"]:
    """Each element times the standard normal distribution function of it, in the exact form."""
    return 0.5 * x * (1 + torch.erf(x / sqrt(2)))


@gelu.inputs("all magnitudes")
def all_magnitudes(sizes, scalars, generator):
    """From 1e-6 to 1e6, both signs: the identity, zero, and a line through 0 of slope one half.

    Left out is -15 to -4, where 1 + erf has no correct digit in float32.
    """
    shape = (sizes["M"], sizes["N"])
    magnitude = 10 ** (torch.rand(shape, generator=generator) * 12 - 6)
    negative = torch.where((magnitude > 4) & (magnitude < 15), magnitude * 4, -magnitude)
    return {"x": torch.where(torch.rand(shape, generator=generator) < 0.5, magnitude, negative)}


@gelu.inputs("left tail")
def left_tail(sizes, scalars, generator):
    """From -4 to -1, where 1 + erf is the small difference of large numbers."""
    return {"x": -1 - 3 * torch.rand((sizes["M"], sizes["N"]), generator=generator)}


@gelu.terms
def terms(x):
    """What 1 + erf may be off by, times x: F.gelu is off by 1.2e-6 at -3.5, where gelu is -8e-4."""
    return 4 * x.abs()


@gelu.peer("F.gelu")
def library(x):
    return F.gelu(x)


@gelu.trivial("tanh form")
def tanh_form(x):
    return F.gelu(x, approximate="tanh")


@gelu.trivial("sigmoid form")
def sigmoid_form(x):
    return x * torch.sigmoid(1.702 * x)


@gelu.trivial("relu")
def relu(x):
    return F.relu(x)
