"""Log-sum-exp and probabilities of each row, over the entries that the mask keeps."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kernelwright.problems import problem


@problem(
    sizes={"cpu": [dict(R=2048, C=1024)]},
    distributions=("normal",),
    outputs=("lse", "probabilities"),
    slices="R",
)
def masked_logsumexp(
    x: Float[Tensor, "R C"], mask: Bool[Tensor, "R C"]
) -> tuple[Float[Tensor, "R"], Float[Tensor, "R C"]]:
    """Log-sum-exp of the kept entries of each row, and their softmax, 0 where not kept."""
    scores = x.masked_fill(~mask, float("-inf"))
    return torch.logsumexp(scores, dim=-1), torch.softmax(scores, dim=-1)


def draw_mask(sizes, generator):
    """Keep about half of the entries, and at least one of each row."""
    rows, columns = sizes["R"], sizes["C"]
    mask = torch.rand((rows, columns), generator=generator) < 0.5
    kept = torch.randint(0, columns, (rows, 1), generator=generator)
    return mask.scatter(1, kept, True)


@masked_logsumexp.inputs("normal")
def normal(sizes, scalars, generator):
    return {"mask": draw_mask(sizes, generator)}


@masked_logsumexp.inputs("masked entries far above")
def far_above(sizes, scalars, generator):
    """What is kept is near -6e4, what is masked near 6e4: only a maximum of the kept will do."""
    mask = draw_mask(sizes, generator)
    magnitude = 1e4 * (6 + torch.randn(mask.shape, generator=generator))
    return {"x": torch.where(mask, -magnitude, magnitude), "mask": mask}


@masked_logsumexp.trivial("without the mask")
def without_mask(x, mask):
    return torch.logsumexp(x, dim=-1), torch.softmax(x, dim=-1)


@masked_logsumexp.trivial("masked entries count as 0")
def masked_as_zero(x, mask):
    scores = x.masked_fill(~mask, 0.0)
    return torch.logsumexp(scores, dim=-1), torch.softmax(scores, dim=-1)


@masked_logsumexp.trivial("mask upside down")
def upside_down(x, mask):
    scores = x.masked_fill(mask, float("-inf"))
    return torch.logsumexp(scores, dim=-1), torch.softmax(scores, dim=-1)
