"""Assignment step of k-means."""

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from kernelwright.problems import Cost, Trial, problem


@problem(
    scenario="retrieval",
    sizes={"cpu": [dict(N=16384, D=64, K=128)], "gpu": [dict(N=2**21, D=128, K=1024)]},
    ranges=dict(N=(1, 2**21), D=(1, 1024), K=(1, 8192)),
    distributions=("normal",),
    outputs=("label", "distance"),
    slices="N",
    source="Flash-KMeans",
)
def kmeans_assign(
    x: Float[Tensor, "N D"], c: Float[Tensor, "K D"]
) -> tuple[Int32[Tensor, "N"], Float[Tensor, "N"]]:
    """Nearest centroid of each point (ties: the lower index) and the squared distance to it."""
    distance, label = (x[:, None, :] - c).square().sum(-1).min(-1)
    return label, distance


@kmeans_assign.cost
def cost(sizes, dtype):
    """One multiply-add for each coordinate of each pair: the expanded form needs no more."""
    n, d, k = sizes["N"], sizes["D"], sizes["K"]
    return Cost((n + k) * d * dtype.itemsize, n * (4 + dtype.itemsize), 2 * n * d * k)


@kmeans_assign.inputs("clusters")
def clusters(sizes, scalars, generator):
    """Points lie close to centroids, as they do once k-means has nearly converged."""
    c = torch.randn((sizes["K"], sizes["D"]), generator=generator)
    home = torch.randint(sizes["K"], (sizes["N"],), generator=generator)
    noise = torch.randn((sizes["N"], sizes["D"]), generator=generator)
    return {"x": c[home] + noise / 4, "c": c}


@kmeans_assign.inputs("ties")
def ties(sizes, scalars, generator):
    """Small integers, and every centroid twice: distances are exact and often equal."""
    c = torch.randint(-3, 4, (sizes["K"], sizes["D"]), generator=generator).float()
    c = c[torch.randperm(sizes["K"], generator=generator) // 2]
    x = torch.randint(-3, 4, (sizes["N"], sizes["D"]), generator=generator).float()
    return {"x": x, "c": c}


@kmeans_assign.inputs("offset")
def offset(sizes, scalars, generator):
    """All far from the origin: norms are ten times the distances, low precision shows."""
    x = torch.randn((sizes["N"], sizes["D"]), generator=generator) + 4
    c = torch.randn((sizes["K"], sizes["D"]), generator=generator) + 4
    return {"x": x, "c": c}


@kmeans_assign.equivalent
def nearest_enough(trial: Trial) -> dict[str, Tensor]:
    """A label may differ where the two distances do by less than 1e-5 of them.

    Distances that round to the same output are the same, so bf16 allows its own roundoff. The
    distance is judged against the exact one of the label given. Its budget covers the expanded
    form |x|² - 2 x·c + |c|², which every fast implementation uses.
    """
    x, c = trial.inputs["x"], trial.inputs["c"]
    label, distance = trial.actual["label"], trial.actual["distance"]
    best = trial.expected["distance"]
    known = (label >= 0) & (label < c.shape[0])
    chosen = c[torch.where(known, label, 0)]
    exact = (x - chosen).square().sum(-1)
    rounding = trial.dtype.unit_roundoff
    worse = (exact - best) / (max(1e-5, rounding) * best)
    tie = exact <= best * (1 + 1e-12)  # equal but for the oracle's own rounding
    lower = tie & (label > trial.expected["label"])  # a tie goes to the lower index
    error = torch.where(tie, 0.0, worse).masked_fill(lower | ~known, torch.inf)
    terms = x.square().sum(-1) + chosen.square().sum(-1)
    allowed = 2 * rounding * exact + 4 * 2.0**-23 * terms + 2.0**-126
    return {"label": error, "distance": (distance - exact).abs() / allowed}


@kmeans_assign.peer("torch.cdist")
def pairwise(x, c):
    distance, label = torch.cdist(x, c).min(-1)
    return label, distance.square()


@kmeans_assign.peer("matrix product")
def expanded(x, c):
    products = torch.addmm(c.square().sum(-1), x, c.t(), alpha=-2)
    partial, label = products.min(-1)
    return label, partial + x.square().sum(-1)


@kmeans_assign.trivial("first half of the centroids")
def half_of_the_centroids(x, c):
    return kmeans_assign(x, c[: (c.shape[0] + 1) // 2])


@kmeans_assign.trivial("first half of the coordinates")
def half_of_the_coordinates(x, c):
    half = (c.shape[1] + 1) // 2
    return kmeans_assign(x[:, :half], c[:, :half])


@kmeans_assign.trivial("second nearest")
def second_nearest(x, c):
    distance = (x[:, None, :] - c).square().sum(-1)
    found = distance.topk(min(2, c.shape[0]), -1, largest=False)
    return found.indices[:, -1], found.values[:, -1]
