"""Row softmax."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from kernelwright.problems import problem


@problem(
    scenario="llm",
    sizes={"cpu": [dict(T=2048, H=4096)], "gpu": [dict(T=16384, H=32768)]},
    ranges=dict(T=(1, 65536), H=(1, 131072)),
    distributions=("normal", "huge", "outliers", "offset"),
    slices="T",
    source="MSKernelBench softmax",
)
def softmax(x: Float[Tensor, "T H"]) -> Float[Tensor, "T H"]:
    """Exponentials of each row, divided by their sum."""
    raised = torch.exp(x - x.amax(-1, keepdim=True))
    return raised / raised.sum(-1, keepdim=True)


@softmax.inputs("masked")
def masked(sizes, scalars, generator):
    """A third of the entries is -inf; one entry of each row never is."""
    shape = (sizes["T"], sizes["H"])
    x = torch.randn(shape, generator=generator)
    hidden = torch.rand(shape, generator=generator) < 1 / 3
    kept = torch.randint(sizes["H"], (sizes["T"], 1), generator=generator)
    return {"x": x.masked_fill(hidden.scatter(1, kept, False), -torch.inf)}


@softmax.inputs("ascending")
def ascending(sizes, scalars, generator):
    """The maximum comes last and grows by thousands: an online sum must rescale all the way."""
    x = torch.randn((sizes["T"], sizes["H"]), generator=generator)
    return {"x": x + torch.linspace(-5000, 5000, sizes["H"])}


@softmax.peer("F.softmax")
def library(x):
    return F.softmax(x, dim=-1)


@softmax.trivial("sum over the first half of the row")
def half_of_the_row(x):
    raised = torch.exp(x - x.amax(-1, keepdim=True))
    return raised / raised[:, : (x.shape[1] + 1) // 2].sum(-1, keepdim=True)


@softmax.trivial("down the columns")
def down_the_columns(x):
    return torch.softmax(x, 0)
