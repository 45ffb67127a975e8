"""Gated activation of feed-forward layers."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from kernelwright.problems import problem


@problem(
    scenario="llm",
    sizes={"cpu": [dict(M=2048, N=2048)], "gpu": [dict(M=16384, N=14336)]},
    ranges=dict(M=(1, 65536), N=(1, 32768)),
    distributions=("normal", "huge", "tiny", "outliers"),
    scalar_choices={"beta": (1.0, 1.702)},
    slices="M",
    source="MSKernelBench SwiGLU; Liger Kernel",
)
def swiglu(
    g: Float[Tensor, "M N"], v: Float[Tensor, "M N"], beta: float = 1.0
) -> Float[Tensor, "M N"]:
    """Swish of the gate g times the value v."""
    return g * torch.sigmoid(beta * g) * v


@swiglu.inputs("saturated")
def saturated(sizes, scalars, generator):
    """Gates from -80 to 80: results as small as 1e-33 must keep their relative accuracy."""
    shape = (sizes["M"], sizes["N"])
    g = torch.rand(shape, generator=generator) * 160 - 80
    return {"g": g}


@swiglu.peer("F.silu")
def library(g, v, beta):
    if beta == 1.0:
        return F.silu(g) * v
    return g * torch.sigmoid(beta * g) * v


@swiglu.trivial("without the gate's sigmoid")
def product(g, v, beta):
    return g * v


@swiglu.trivial("gate alone")
def gate(g, v, beta):
    return g * torch.sigmoid(beta * g)
