"""Transposition into a contiguous result."""

import torch
from jaxtyping import Float
from torch import Tensor

from kernelwright.problems import problem


@problem(
    scenario="algebra",
    sizes={"cpu": [dict(M=2048, N=3072)], "gpu": [dict(M=16384, N=24576)]},
    ranges=dict(M=(1, 65536), N=(1, 65536)),
    distributions=("normal", "outliers", "mixed_rows"),
    source="MSKernelBench matrix_transpose",
)
def matrix_transpose(A: Float[Tensor, "M N"]) -> Float[Tensor, "N M"]:
    """Rows become columns, in memory too."""
    return A.t().clone(memory_format=torch.contiguous_format)


@matrix_transpose.inputs("not finite")
def not_finite(sizes, scalars, generator):
    """A fifth is infinite or not a number: a copy keeps them, arithmetic may not."""
    shape = (sizes["M"], sizes["N"])
    A = torch.randn(shape, generator=generator)
    kind = torch.rand(shape, generator=generator)
    A = A.masked_fill(kind < 0.2, torch.nan).masked_fill(kind < 0.1, torch.inf)
    return {"A": A.masked_fill(kind < 0.05, -torch.inf)}


@matrix_transpose.peer("t().contiguous()")
def library(A):
    return A.t().contiguous()


@matrix_transpose.trivial("another shape, the same order")
def reshaped(A):
    return A.reshape(A.shape[1], A.shape[0])


@matrix_transpose.trivial("blocks of 16 left as they were")
def blocks(A):
    M, N = A.shape
    padded = torch.nn.functional.pad(A, (0, -N % 16, 0, -M % 16))
    tiles = padded.view(padded.shape[0] // 16, 16, padded.shape[1] // 16, 16)
    return tiles.permute(2, 1, 0, 3).reshape(padded.shape[1], padded.shape[0])[:N, :M]


@matrix_transpose.trivial("turned by a quarter")
def turned(A):
    return A.t().flip(0)
