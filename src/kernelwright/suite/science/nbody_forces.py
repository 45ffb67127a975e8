"""Gravitational accelerations of all bodies."""

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from kernelwright.problems import Cost, problem


@problem(
    scenario="science",
    dtypes=("f32",),
    sizes={"cpu": [dict(N=2048)], "gpu": [dict(N=131072)]},
    ranges=dict(N=(1, 131072)),
    distributions=("normal", "mixed_rows"),
    scalar_choices={"softening": (0.05, 0.5)},
    work="24*N*N",
    source="Metal-Sci",
)
def nbody_forces(
    position: Float[Tensor, "N 3"], mass: Float[Tensor, "N"], softening: float = 0.05
) -> Float[Tensor, "N 3"]:
    """Sum over all bodies of mass times difference over the cube of the softened distance."""
    difference = position - position[:, None]
    square = difference.square().sum(-1) + softening**2
    return ((mass * square**-1.5)[..., None] * difference).sum(1)


@nbody_forces.cost
def cost(sizes, dtype):
    """Bodies once; 20 operations for each pair, the root and the quotient as one each."""
    N = sizes["N"]
    return Cost(4 * N * dtype.itemsize, 3 * N * dtype.itemsize, 20 * N * N)


@nbody_forces.inputs("normal")
def ordinary(sizes, scalars, generator):
    """Masses between 0.5 and 1.5."""
    return {"mass": 0.5 + torch.rand(sizes["N"], generator=generator)}


@nbody_forces.inputs("tight clusters")
def tight_clusters(sizes, scalars, generator):
    """Clusters a hundredth of the softening wide, tens apart: small differences of positions."""
    N = sizes["N"]
    centre = 30 * torch.randn((max(N // 16, 1), 3), generator=generator)
    home = torch.randint(centre.shape[0], (N,), generator=generator)
    return {"position": centre[home] + torch.randn((N, 3), generator=generator) / 64}


@nbody_forces.inputs("giants")
def giants(sizes, scalars, generator):
    """One mass in a hundred, and the last, is a thousand times larger."""
    mass = 0.5 + torch.rand(sizes["N"], generator=generator)
    heavy = torch.rand(sizes["N"], generator=generator) < 0.01
    heavy[-1] = True
    return {"mass": torch.where(heavy, 1000 * mass, mass)}


@nbody_forces.inputs("two at each place")
def two_at_each_place(sizes, scalars, generator):
    """Distances of zero: only the softening keeps the quotient finite."""
    N = sizes["N"]
    place = torch.randn((N // 2 + 1, 3), generator=generator)
    return {"position": place[torch.randperm(N, generator=generator) // 2]}


@nbody_forces.terms
def terms(position, mass, softening):
    difference = position - position[:, None]
    square = difference.square().sum(-1) + softening**2
    return ((mass.abs() * square**-1.5)[..., None] * difference.abs()).sum(1)


@nbody_forces.peer("by coordinate")
def by_coordinate(position, mass, softening):
    x, y, z = position.t().contiguous()
    dx, dy, dz = x - x[:, None], y - y[:, None], z - z[:, None]
    square = torch.addcmul(torch.addcmul(dx * dx, dy, dy), dz, dz).add_(softening**2)
    weight = square.rsqrt_().pow_(3).mul_(mass)
    return torch.stack([torch.linalg.vecdot(weight, d) for d in (dx, dy, dz)], -1)


@nbody_forces.peer("numba")
def by_numba(position, mass, softening):
    # absent, and said to be, where numba is not installed
    x, y, z = position.t().contiguous().numpy()
    return torch.from_numpy(_numba_forces()(x, y, z, mass.numpy(), softening))


@cache
def _numba_forces():
    import numba  # pyright: ignore[reportMissingImports]
    import numpy as np

    # what lets LLVM vectorise the loop: sums in any order, sums in variables of their own, and a
    # division by zero that is no exception; `fastmath=True` takes eight times as long
    @numba.njit(parallel=True, fastmath={"reassoc", "contract", "arcp", "nsz"}, error_model="numpy")
    def forces(x, y, z, mass, softening):
        found = np.empty((x.size, 3), np.float32)
        least = np.float32(softening * softening)
        for i in numba.prange(x.size):
            xi, yi, zi = x[i], y[i], z[i]
            ax = np.float32(0)
            ay = np.float32(0)
            az = np.float32(0)
            for j in range(x.size):
                dx, dy, dz = x[j] - xi, y[j] - yi, z[j] - zi
                square = dx * dx + dy * dy + dz * dz + least
                weight = mass[j] / (square * np.sqrt(square))
                ax += weight * dx
                ay += weight * dy
                az += weight * dz
            found[i, 0], found[i, 1], found[i, 2] = ax, ay, az
        return found

    return forces


@nbody_forces.trivial("first half of the bodies")
def half(position, mass, softening):
    pull = mass.clone()
    pull[(mass.shape[0] + 1) // 2 :] = 0
    return nbody_forces(position, pull, softening)


@nbody_forces.trivial("equal masses")
def equal_masses(position, mass, softening):
    return nbody_forces(position, torch.ones_like(mass), softening)


@nbody_forces.trivial("towards the centre of mass")
def centre_of_mass(position, mass, softening):
    centre = (mass[:, None] * position).sum(0) / mass.sum()
    difference = centre - position
    square = difference.square().sum(-1, keepdim=True) + softening**2
    return mass.sum() * square**-1.5 * difference
