"""The reweighting step of a particle filter (annealed importance sampling) with dead particles."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kernelwright.problems import problem


@problem(
    scenario="science",
    sizes={"cpu": [dict(B=1536, N=1000)]},
    distributions=("normal", "outliers"),
    scalar_choices={"temper": (0.7, 1.0)},
    outputs=("log_evidence", "ess"),
    slices="B",
)
def masked_evidence(
    log_w: Float[Tensor, "B N"],
    log_lik: Float[Tensor, "B N"],
    alive: Bool[Tensor, "B N"],
    temper: float = 0.7,
) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
    """Log mean tempered weight of each row's alive particles, and their effective number.

    Both are 0 for a row in which no particle is alive.
    """
    s = torch.where(alive, log_w + temper * log_lik, -torch.inf)
    count = torch.where(alive, torch.ones_like(s), 0).sum(-1)
    some = alive.any(-1)
    log_evidence = torch.where(some, torch.logsumexp(s, -1) - torch.log(count), 0)
    share = torch.softmax(s, -1)
    ess = torch.where(some, 1 / share.square().sum(-1), 0)
    return log_evidence, ess


def some_alive(sizes, generator, fraction):
    """A random mask with at least one particle alive in each row."""
    shape = (sizes["B"], sizes["N"])
    alive = torch.rand(shape, generator=generator) < fraction
    survivor = torch.randint(0, sizes["N"], (sizes["B"], 1), generator=generator)
    return alive.scatter(1, survivor, True)


@masked_evidence.inputs("normal")
def normal(sizes, scalars, generator):
    return {"alive": some_alive(sizes, generator, 0.7)}


@masked_evidence.inputs("few alive, some rows extinct")
def extinct(sizes, scalars, generator):
    alive = some_alive(sizes, generator, 0.02)
    rows = torch.arange(sizes["B"])
    return {"alive": alive & (rows % 16 != 5)[:, None]}


@masked_evidence.inputs("stale values of the dead")
def stale(sizes, scalars, generator):
    shape = (sizes["B"], sizes["N"])
    alive = some_alive(sizes, generator, 0.6)
    log_w = torch.randn(shape, generator=generator)
    return {"alive": alive, "log_w": torch.where(alive, log_w, log_w * 1000 + 20000)}


@masked_evidence.inputs("sharp likelihood, ragged rows")
def sharp(sizes, scalars, generator):
    shape = (sizes["B"], sizes["N"])
    length = torch.randint(1, sizes["N"] + 1, (sizes["B"], 1), generator=generator)
    distance = torch.randn(shape, generator=generator) * 12
    return {
        "alive": torch.arange(sizes["N"]) < length,
        "log_lik": -0.5 * distance.square() - 3,
    }


@masked_evidence.trivial("the dead count too")
def without_mask(log_w, log_lik, alive, temper):
    s = log_w + temper * log_lik
    share = torch.softmax(s, -1)
    count = torch.ones_like(s).sum(-1)
    return torch.logsumexp(s, -1) - torch.log(count), 1 / share.square().sum(-1)


@masked_evidence.trivial("without the likelihood")
def without_likelihood(log_w, log_lik, alive, temper):
    s = torch.where(alive, log_w, -torch.inf)
    count = torch.where(alive, torch.ones_like(s), 0).sum(-1)
    some = alive.any(-1)
    share = torch.softmax(s, -1)
    return (
        torch.where(some, torch.logsumexp(s, -1) - torch.log(count), 0),
        torch.where(some, 1 / share.square().sum(-1), 0),
    )
