"""Matrix times vector."""

import torch
from jaxtyping import Float
from torch import Tensor

from kernelwright.problems import problem


@problem(
    scenario="algebra",
    sizes={"cpu": [dict(M=4096, N=4096)], "gpu": [dict(M=49152, N=16384)]},
    ranges=dict(M=(1, 65536), N=(1, 65536)),
    distributions=("normal", "outliers", "mixed_rows"),
    source="MSKernelBench matrix_vector_mul",
)
def matrix_vector_mul(A: Float[Tensor, "M N"], x: Float[Tensor, "N"]) -> Float[Tensor, "M"]:
    """The product A x."""
    return A @ x


@matrix_vector_mul.inputs("cancelling")
def cancelling(sizes, scalars, generator):
    """Large terms cancel in pairs half a row apart; what is left is a hundredth of them."""
    M, N = sizes["M"], sizes["N"]
    A = torch.randn((M, N), generator=generator)
    x = torch.randn(N, generator=generator)
    half = N // 2
    A[:, half : 2 * half] = A[:, :half] + A[:, half : 2 * half] / 128
    x[half : 2 * half] = -x[:half]
    return {"A": A, "x": x}


@matrix_vector_mul.terms
def terms(A, x):
    return A.abs() @ x.abs()


@matrix_vector_mul.peer("torch.mv")
def library(A, x):
    return torch.mv(A, x)


@matrix_vector_mul.trivial("first half of the columns")
def half(A, x):
    return A[:, : A.shape[1] // 2] @ x[: A.shape[1] // 2]


@matrix_vector_mul.trivial("row sums")
def row_sums(A, x):
    return A.sum(-1)
