"""Matrix product."""

import torch
from jaxtyping import Float
from torch import Tensor

from kernelwright.problems import problem


@problem(
    scenario="algebra",
    sizes={"cpu": [dict(M=384, K=1024, N=640)], "gpu": [dict(M=8192, K=16384, N=6144)]},
    ranges=dict(M=(1, 16384), K=(1, 32768), N=(1, 16384)),
    distributions=("normal", "outliers", "mixed_rows"),
    source="MSKernelBench matrix_mul; CUDA-L2",
)
def matrix_mul(A: Float[Tensor, "M K"], B: Float[Tensor, "K N"]) -> Float[Tensor, "M N"]:
    """The product A B."""
    return A @ B


@matrix_mul.inputs("cancelling")
def cancelling(sizes, scalars, generator):
    """Large terms cancel in pairs half of K apart; what is left is a hundredth of them."""
    M, K, N = sizes["M"], sizes["K"], sizes["N"]
    A = torch.randn((M, K), generator=generator)
    B = torch.randn((K, N), generator=generator)
    half = K // 2
    A[:, half : 2 * half] = A[:, :half] + A[:, half : 2 * half] / 128
    B[half : 2 * half] = -B[:half]
    return {"A": A, "B": B}


@matrix_mul.terms
def terms(A, B):
    return A.abs() @ B.abs()


@matrix_mul.peer("torch.matmul")
def library(A, B):
    return torch.matmul(A, B)


@matrix_mul.trivial("first half of the terms")
def half(A, B):
    return A[:, : A.shape[1] // 2] @ B[: A.shape[1] // 2]


@matrix_mul.trivial("operands rounded to 8 bits")
def coarse(A, B):
    return torch.round(A * 8) / 8 @ (torch.round(B * 8) / 8)
