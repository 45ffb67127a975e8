"""Cross entropy of probabilities against soft targets."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from kernelwright.problems import problem


@problem(
    scenario="training",
    sizes={"cpu": [dict(T=1024, C=4096)], "gpu": [dict(T=8192, C=32768)]},
    ranges=dict(T=(1, 65536), C=(1, 131072)),
    distributions=("normal",),
    scalar_choices={"least": (1e-8, 1e-3)},
    outputs=("loss", "total"),
    source="MSKernelBench cross_entropy_loss; Liger Kernel",
)
def cross_entropy_loss(
    p: Float[Tensor, "T C"], y: Float[Tensor, "T C"], least: float = 1e-8
) -> tuple[Float[Tensor, "T"], Float[Tensor, ""]]:
    """Sum of each row of -y log(max(p, least)), and the sum of all rows."""
    loss = -(y * torch.log(p.clamp(min=least))).sum(-1)
    return loss, loss.sum()


@cross_entropy_loss.inputs("normal")
def softmaxes(sizes, scalars, generator):
    """Probabilities of random logits, targets likewise, each at its own temperature."""
    shape = (sizes["T"], sizes["C"])
    heat = 1 + 3 * torch.rand(2, generator=generator)
    p = (heat[0] * torch.randn(shape, generator=generator)).softmax(-1)
    return {"p": p, "y": (heat[1] * torch.randn(shape, generator=generator)).softmax(-1)}


@cross_entropy_loss.inputs("smoothed labels")
def smoothed_labels(sizes, scalars, generator):
    """One class holds nine tenths of the target, the others share the rest evenly."""
    T, C = sizes["T"], sizes["C"]
    p = (3 * torch.randn((T, C), generator=generator)).softmax(-1)
    label = torch.randint(C, (T,), generator=generator)
    return {"p": p, "y": 0.1 / C + 0.9 * F.one_hot(label, C)}


@cross_entropy_loss.inputs("hard labels, confident rows")
def hard_labels(sizes, scalars, generator):
    """One-hot targets; most probabilities underflow to 0, often that of the label too."""
    T, C = sizes["T"], sizes["C"]
    p = (40 * torch.randn((T, C), generator=generator)).softmax(-1)
    p = torch.where(p < 1e-30, 0.0, p)
    label = torch.randint(C, (T,), generator=generator)
    p[torch.arange(T) % 4 == 0, :1] = 0.5
    label[torch.arange(T) % 4 == 0] = 0
    return {"p": p, "y": F.one_hot(label, C).float()}


@cross_entropy_loss.peer("xlogy")
def by_xlogy(p, y, least):
    loss = -torch.xlogy(y, p.clamp(min=least)).sum(-1)
    return loss, loss.sum()


@cross_entropy_loss.trivial("most probable class only")
def most_probable(p, y, least):
    at = p.argmax(-1, keepdim=True)
    loss = -(y.gather(-1, at) * p.gather(-1, at).clamp(min=least).log())[:, 0]
    return loss, loss.sum()


@cross_entropy_loss.trivial("entropy of the targets")
def entropy(p, y, least):
    loss = -(y * y.clamp(min=least).log()).sum(-1)
    return loss, loss.sum()


@cross_entropy_loss.trivial("first half of the classes")
def half(p, y, least):
    middle = (p.shape[1] + 1) // 2
    return cross_entropy_loss(p[:, :middle], y[:, :middle], least)
