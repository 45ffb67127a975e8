"""Root-mean-square normalisation."""

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
    scalar_choices={"eps": (1e-6, 1e-3)},
    slices="T",
    source="MSKernelBench rms_norm; Liger Kernel",
)
def rms_norm(
    x: Float[Tensor, "T H"], w: Float[Tensor, "H"], eps: float = 1e-6
) -> Float[Tensor, "T H"]:
    """Divide each row by its root mean square, scale by w."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * w


@rms_norm.peer("F.rms_norm")
def library(x, w, eps):
    return F.rms_norm(x, (x.shape[-1],), w, eps)


@rms_norm.trivial("not scaled by w")
def unscaled(x, w, eps):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


@rms_norm.trivial("not normalised")
def not_normalised(x, w, eps):
    return x * w


@rms_norm.trivial("mean absolute value instead of the root mean square")
def mean_absolute(x, w, eps):
    return x / (x.abs().mean(-1, keepdim=True) + eps) * w
