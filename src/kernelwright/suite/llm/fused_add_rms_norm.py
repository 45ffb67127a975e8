"""Residual addition fused with root-mean-square normalisation."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from kernelwright.problems import problem, round_to


@problem(
    scenario="llm",
    dtypes=("bf16", "f32"),
    sizes={"cpu": [dict(T=4096, H=1024)], "gpu": [dict(T=65536, H=8192)]},
    ranges=dict(T=(1, 65536), H=(1, 16384)),
    distributions=("normal", "tiny", "outliers", "mixed_rows"),
    scalar_choices={"eps": (1e-6, 1e-3)},
    outputs=("y", "residual"),
    slices="T",
    source="vLLM and SGLang fused_add_rms_norm; Liger Kernel",
)
def fused_add_rms_norm(
    x: Float[Tensor, "T H"], r: Float[Tensor, "T H"], w: Float[Tensor, "H"], eps: float = 1e-6
) -> tuple[Float[Tensor, "T H"], Float[Tensor, "T H"]]:
    """Add x to the residual, round it as it is stored, normalise its rows, scale by w."""
    residual = round_to(r + x)
    y = residual * torch.rsqrt(residual.square().mean(-1, keepdim=True) + eps) * w
    return y, residual


@fused_add_rms_norm.inputs("cancelling")
def residual_nearly_cancels(sizes, scalars, generator):
    """R is close to -x, so that the sum is small beside both and its rounding matters."""
    shape = (sizes["T"], sizes["H"])
    x = torch.randn(shape, generator=generator)
    change = torch.randn(shape, generator=generator) * 0.05
    return {"x": x, "r": change - x}


@fused_add_rms_norm.peer("F.rms_norm")
def library(x, r, w, eps):
    residual = r + x
    return F.rms_norm(residual, (x.shape[-1],), w, eps), residual


@fused_add_rms_norm.trivial("without the residual")
def without_residual(x, r, w, eps):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * w, x


@fused_add_rms_norm.trivial("not scaled by w")
def unscaled(x, r, w, eps):
    residual = r + x
    return residual * torch.rsqrt(residual.square().mean(-1, keepdim=True) + eps), residual
