"""Sparse matrix times vector."""

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from kernelwright.problems import Cost, problem


@problem(
    scenario="sparse",
    sizes={"cpu": [dict(M=2**17, Z=2**21, N=2**17)], "gpu": [dict(M=2**23, Z=2**27, N=2**23)]},
    ranges=dict(M=(1, 2**24), Z=(1, 2**28), N=(1, 2**24)),
    distributions=("normal", "outliers"),
    work="M+Z+N",
    source="MSKernelBench spmv_csr",
)
def spmv_csr(
    rows: Int32[Tensor, "M+1"],
    columns: Int32[Tensor, "Z"],
    values: Float[Tensor, "Z"],
    x: Float[Tensor, "N"],
) -> Float[Tensor, "M"]:
    """A x, where row i of A holds values[rows[i] : rows[i+1]] at their columns."""
    row = torch.repeat_interleave(rows.diff())
    return x.new_zeros(rows.shape[0] - 1).index_add(0, row, values * x[columns])


@spmv_csr.cost
def cost(sizes, dtype):
    """The matrix once, as much of x as there can be columns, two operations an entry."""
    M, Z, N = sizes["M"], sizes["Z"], sizes["N"]
    read = 4 * (M + 1) + Z * (4 + dtype.itemsize) + min(N, Z) * dtype.itemsize
    return Cost(read, M * dtype.itemsize, 2 * Z)


def matrix(sizes, weights, generator):
    """Row pointers and columns, in order within each row, of rows as long as their weights say."""
    M, Z, N = sizes["M"], sizes["Z"], sizes["N"]
    shares = weights.double().cumsum(0) / weights.sum()
    row = torch.searchsorted(shares, torch.rand(Z, generator=generator).double(), right=True)
    row = row.clamp(max=int(weights.nonzero()[-1]))
    column = torch.randint(N, (Z,), generator=generator)
    place = (row * N + column).sort().values
    counts = torch.bincount(row, minlength=M)
    rows = torch.cat((torch.zeros(1, dtype=torch.int64), counts.cumsum(0)))
    return {"rows": rows, "columns": place % N}


@spmv_csr.inputs("normal")
def power_law(sizes, scalars, generator):
    """Row lengths by a power law, a quarter of the rows empty, one row with a tenth of it all."""
    M = sizes["M"]
    weights = torch.rand(M, generator=generator).clamp(min=1e-6) ** -0.7
    weights[torch.rand(M, generator=generator) < 0.25] = 0
    longest = torch.randint(M, (1,), generator=generator)
    weights[longest] = max(float(weights.sum()) / 9, 1.0)
    return matrix(sizes, weights, generator)


@spmv_csr.inputs("one row holds half")
def one_row_holds_half(sizes, scalars, generator):
    """Split by rows, one thread does half of the work."""
    weights = torch.ones(sizes["M"])
    weights[torch.randint(sizes["M"], (1,), generator=generator)] = sizes["M"]
    return matrix(sizes, weights, generator)


@spmv_csr.inputs("mostly empty")
def mostly_empty(sizes, scalars, generator):
    """One row in a hundred holds anything; first and last rows are empty where there are others."""
    weights = (torch.rand(sizes["M"], generator=generator) < 0.01).float()
    weights[sizes["M"] // 2] = 1
    if sizes["M"] > 2:
        weights[0] = weights[-1] = 0
    return matrix(sizes, weights, generator)


@spmv_csr.inputs("banded")
def banded(sizes, scalars, generator):
    """Rows of equal length around the diagonal, as from a mesh."""
    M, Z, N = sizes["M"], sizes["Z"], sizes["N"]
    rows = torch.arange(M + 1) * Z // M
    row = torch.arange(M).repeat_interleave(rows.diff())
    inside = torch.arange(Z) - rows[row]
    width = rows.diff()[row]
    columns = (row * N // M + inside - width // 2) % N
    return {"rows": rows, "columns": (row * N + columns).sort().values % N}


@spmv_csr.inputs("cancelling")
def cancelling(sizes, scalars, generator):
    """Neighbouring entries of a row nearly cancel."""
    made = power_law(sizes, scalars, generator)
    values = torch.randn(sizes["Z"], generator=generator)
    values[1::2] = values[: 2 * (sizes["Z"] // 2) : 2] * -1.01
    return {**made, "values": values, "x": 1 + torch.randn(sizes["N"], generator=generator) / 64}


@spmv_csr.terms
def terms(rows, columns, values, x):
    return spmv_csr(rows, columns, values.abs(), x.abs())


@spmv_csr.peer("torch.sparse_csr")
def library(rows, columns, values, x):
    shape = (rows.shape[0] - 1, x.shape[0])
    A = torch.sparse_csr_tensor(rows, columns, values.float(), shape, check_invariants=False)
    return (A @ x.float()).to(x.dtype)


@spmv_csr.peer("torch.segment_reduce")
def segments(rows, columns, values, x):
    products = values.float() * x.float()[columns]
    return torch.segment_reduce(products, "sum", offsets=rows, initial=0).to(x.dtype)


@spmv_csr.trivial("x not gathered")
def not_gathered(rows, columns, values, x):
    return spmv_csr(rows, torch.arange(columns.shape[0]) % x.shape[0], values, x)


@spmv_csr.trivial("last entry of each row left out")
def last_entries_left_out(rows, columns, values, x):
    held = rows.diff() > 0
    return spmv_csr(rows, columns, values.index_fill(0, (rows[1:] - 1)[held].long(), 0), x)


@spmv_csr.trivial("longest row left out")
def longest_left_out(rows, columns, values, x):
    y = spmv_csr(rows, columns, values, x)
    return y.index_fill(0, rows.diff().argmax(), 0)
