"""Matrix product whose right operand is a weight."""

import torch
from jaxtyping import Float
from torch import Tensor

from kernelwright.problems import problem
from kernelwright.suite.algebra import matrix_mul


@problem(
    scenario="algebra",
    sizes={"cpu": [dict(M=384, K=1024, N=640)], "gpu": [dict(M=8192, K=16384, N=6144)]},
    ranges=dict(M=(1, 16384), K=(1, 32768), N=(1, 16384)),
    distributions=("normal", "outliers", "mixed_rows"),
    static=("B",),
    source="MSKernelBench matrix_mul; CUDA-L2",
)
def packed_matrix_mul(A: Float[Tensor, "M K"], B: Float[Tensor, "K N"]) -> Float[Tensor, "M N"]:
    """The product A B, where B may be packed beforehand."""
    return A @ B


packed_matrix_mul.inputs("cancelling")(matrix_mul.cancelling)
packed_matrix_mul.terms(matrix_mul.terms)
packed_matrix_mul.trivial("first half of the terms")(matrix_mul.half)
packed_matrix_mul.trivial("operands rounded to 8 bits")(matrix_mul.coarse)


@packed_matrix_mul.peer("torch.matmul")
def library(A, B):
    return torch.matmul(A, B)


@packed_matrix_mul.peer(
    "oneDNN packed",
    prepare=lambda B: {"B": torch.ops.mkldnn._reorder_linear_weight(B.t().contiguous())},
)
def onednn(A, B):
    return torch.ops.mkldnn._linear_pointwise(A, B, None, "none", [], "")


def packed_by_mkl(B):
    """As MKL keeps it, in float32 alone; it wants the plain weight too, for other batch sizes."""
    weight = B.t().contiguous()
    return {"B": (torch.ops.mkl._mkl_reorder_linear_weight(weight, BATCH), weight)}


BATCH = 384


@packed_matrix_mul.peer("MKL packed", prepare=packed_by_mkl)
def mkl(A, B):
    return torch.ops.mkl._mkl_linear(A, *B, None, A.shape[0])
