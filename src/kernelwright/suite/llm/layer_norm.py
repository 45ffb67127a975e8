"""Layer normalisation."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from kernelwright.problems import problem


@problem(
    scenario="llm",
    sizes={"cpu": [dict(T=4096, H=1024)], "gpu": [dict(T=65536, H=8192)]},
    ranges=dict(T=(1, 65536), H=(1, 16384)),
    distributions=("normal", "tiny", "outliers", "mixed_rows"),
    scalar_choices={"eps": (1e-5, 1e-2)},
    slices="T",
    source="MSKernelBench layer_norm; Liger Kernel",
)
def layer_norm(
    x: Float[Tensor, "T H"], w: Float[Tensor, "H"], b: Float[Tensor, "H"], eps: float = 1e-5
) -> Float[Tensor, "T H"]:
    """Subtract the mean of each row, divide by its deviation, scale by w, shift by b."""
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return centred * torch.rsqrt(variance + eps) * w + b


@layer_norm.inputs("far from zero")
def far_from_zero(sizes, scalars, generator):
    """Row means a hundred times the deviation: mean of squares less squared mean is noise."""
    shape = (sizes["T"], sizes["H"])
    centre = 100 * (1 + torch.rand((sizes["T"], 1), generator=generator))
    sign = torch.where(torch.rand((sizes["T"], 1), generator=generator) < 0.5, -1.0, 1.0)
    return {"x": sign * centre + torch.randn(shape, generator=generator)}


@layer_norm.terms
def terms(x, w, b, eps):
    scale = torch.rsqrt(x.var(-1, correction=0, keepdim=True) + eps)
    return (x.abs() + x.abs().mean(-1, keepdim=True)) * scale * w.abs() + b.abs()


@layer_norm.peer("F.layer_norm")
def library(x, w, b, eps):
    return F.layer_norm(x, (x.shape[-1],), w, b, eps)


@layer_norm.trivial("not centred")
def not_centred(x, w, b, eps):
    return x * torch.rsqrt(x.var(-1, correction=0, keepdim=True) + eps) * w + b


@layer_norm.trivial("not shifted")
def not_shifted(x, w, b, eps):
    return F.layer_norm(x, (x.shape[-1],), w, None, eps)


@layer_norm.trivial("not scaled")
def not_scaled(x, w, b, eps):
    return F.layer_norm(x, (x.shape[-1],), None, b, eps)


@layer_norm.trivial("statistics of the first half of the row")
def half_of_the_row(x, w, b, eps):
    half = x[:, : (x.shape[1] + 1) // 2]
    centred = x - half.mean(-1, keepdim=True)
    return centred * torch.rsqrt(half.var(-1, correction=0, keepdim=True) + eps) * w + b
