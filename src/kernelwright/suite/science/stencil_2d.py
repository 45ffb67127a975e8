"""One explicit step of heat diffusion."""

from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from kernelwright.problems import problem


@problem(
    scenario="science",
    sizes={"cpu": [dict(H=2048, W=2048)], "gpu": [dict(H=24576, W=16384)]},
    ranges=dict(H=(3, 65536), W=(3, 65536)),
    distributions=("normal", "outliers", "offset", "mixed_rows"),
    scalar_choices={"r": (0.2, 0.05)},
    source="MSKernelBench stencil_2d",
)
def stencil_2d(u: Float[Tensor, "H W"], r: float = 0.2) -> Float[Tensor, "H W"]:
    """Add r (sum of the four neighbours - 4 u) to u inside; the border stays."""
    neighbours = u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:]
    return u + F.pad(r * (neighbours - 4 * u[1:-1, 1:-1]), (1, 1, 1, 1))


@stencil_2d.inputs("checkerboard")
def checkerboard(sizes, scalars, generator):
    """Signs alternate: neighbours and centre add up instead of cancelling."""
    H, W = sizes["H"], sizes["W"]
    sign = 1 - 2 * ((torch.arange(H)[:, None] + torch.arange(W)) % 2)
    return {"u": sign * (1 + torch.rand((H, W), generator=generator))}


@stencil_2d.terms
def terms(u, r):
    return stencil_2d.function(u.abs(), r) + F.pad(8 * abs(r) * u[1:-1, 1:-1].abs(), (1, 1, 1, 1))


@stencil_2d.peer("F.conv2d")
def convolution(u, r):
    weight = u.new_tensor([[0, r, 0], [r, 1 - 4 * r, r], [0, r, 0]])
    result = u.clone()
    result[1:-1, 1:-1] = F.conv2d(u[None, None], weight[None, None])[0, 0]
    return result


@stencil_2d.peer("in place")
def in_place(u, r):
    result = u.clone()
    inside = result[1:-1, 1:-1]
    inside.mul_(1 - 4 * r)
    for neighbours in (u[:-2, 1:-1], u[2:, 1:-1], u[1:-1, :-2], u[1:-1, 2:]):
        inside.add_(neighbours, alpha=r)
    return result


@stencil_2d.peer("numba")
def by_numba(u, r):
    # absent, and said to be, where numba is not installed or has no such type
    return torch.from_numpy(_numba_step()(u.numpy(), u.numpy().dtype.type(r)))


@cache
def _numba_step():
    import numba  # pyright: ignore[reportMissingImports]
    import numpy as np

    @numba.njit(parallel=True)
    def step(u, r):
        result = np.empty_like(u)
        height, width = u.shape
        for i in numba.prange(height):
            for j in range(width):
                if 0 < i < height - 1 and 0 < j < width - 1:
                    around = u[i - 1, j] + u[i + 1, j] + u[i, j - 1] + u[i, j + 1]
                    result[i, j] = u[i, j] + r * (around - 4 * u[i, j])
                else:
                    result[i, j] = u[i, j]
        return result

    return step


@stencil_2d.trivial("border computed too")
def border_too(u, r):
    padded = F.pad(u, (1, 1, 1, 1))
    around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    return u + r * (around - 4 * u)


@stencil_2d.trivial("rows only")
def rows_only(u, r):
    return u + F.pad(r * (u[1:-1, :-2] + u[1:-1, 2:] - 2 * u[1:-1, 1:-1]), (1, 1, 1, 1))
