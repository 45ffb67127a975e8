"""Matrix times vector, where the matrix is a weight."""

import torch
from jaxtyping import Float
from torch import Tensor

from kernelwright.problems import problem
from kernelwright.suite.algebra import matrix_vector_mul


@problem(
    scenario="algebra",
    sizes={"cpu": [dict(M=4096, N=4096)], "gpu": [dict(M=49152, N=16384)]},
    ranges=dict(M=(1, 65536), N=(1, 65536)),
    distributions=("normal", "outliers", "mixed_rows"),
    static=("A",),
    source="MSKernelBench matrix_vector_mul",
)
def packed_matrix_vector_mul(A: Float[Tensor, "M N"], x: Float[Tensor, "N"]) -> Float[Tensor, "M"]:
    """The product A x, where A may be packed beforehand."""
    return A @ x


packed_matrix_vector_mul.inputs("cancelling")(matrix_vector_mul.cancelling)
packed_matrix_vector_mul.terms(matrix_vector_mul.terms)
packed_matrix_vector_mul.trivial("first half of the columns")(matrix_vector_mul.half)
packed_matrix_vector_mul.trivial("row sums")(matrix_vector_mul.row_sums)


@packed_matrix_vector_mul.peer("torch.mv")
def library(A, x):
    return torch.mv(A, x)


@packed_matrix_vector_mul.peer(
    "oneDNN packed", prepare=lambda A: {"A": torch.ops.mkldnn._reorder_linear_weight(A, 1)}
)
def onednn(A, x):
    return torch.ops.mkldnn._linear_pointwise(x[None], A, None, "none", [], "")[0]
