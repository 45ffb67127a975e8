"""A linear layer whose neighbouring channels compete, then are compressed and scaled per token."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear

from kernelwright.problems import problem


@problem(
    sizes={"cpu": [dict(T=1152, K=1024, M=1000)]},
    ranges=dict(T=(1, 4096), K=(1, 4096), M=(1, 4096)),
    distributions=("normal", "outliers"),
    scalar_choices={"knee": (2.0, 0.5)},
    static=("w", "b"),
    slices="T",
    work="T*K*M",
)
def linear_maxout_symlog(
    x: Float[Tensor, "T K"],
    w: Float[Tensor, "2*M K"],
    b: Float[Tensor, "2*M"],
    gain: Float[Tensor, "T"],
    knee: float = 2.0,
) -> Float[Tensor, "T M"]:
    """Linear layer, maximum of neighbouring channels, symmetric logarithm, gain of each token.

    The logarithm is linear well below knee.
    """
    z = x @ w.T + b
    z = torch.maximum(z[:, 0::2], z[:, 1::2])
    return knee * torch.sign(z) * torch.log1p(z.abs() / knee) * gain[:, None]


def trained(sizes, generator):
    """Weights that keep the scale of their inputs."""
    w = torch.randn((2 * sizes["M"], sizes["K"]), generator=generator)
    return w / sizes["K"] ** 0.5


@linear_maxout_symlog.inputs("weights as trained")
def as_trained(sizes, scalars, generator):
    return {"w": trained(sizes, generator)}


@linear_maxout_symlog.inputs("outlier features, some tokens muted")
def outlier_features(sizes, scalars, generator):
    x = torch.randn((sizes["T"], sizes["K"]), generator=generator)
    features = torch.rand(sizes["K"], generator=generator) < 0.02
    gain = torch.rand(sizes["T"], generator=generator) + 0.5
    muted = torch.arange(sizes["T"]) % 8 == 3
    return {
        "x": torch.where(features, x * 100, x),
        "w": trained(sizes, generator),
        "gain": torch.where(muted, 0, gain),
    }


@linear_maxout_symlog.inputs("common mode")
def common_mode(sizes, scalars, generator):
    """All features share an offset that the rows of w nearly cancel."""
    x = torch.randn((sizes["T"], sizes["K"]), generator=generator)
    w = trained(sizes, generator)
    return {"x": x + 4, "w": w - w.mean(-1, keepdim=True) * (sizes["K"] > 1)}


@linear_maxout_symlog.peer("F.linear, copysign")
def library(x, w, b, gain, knee):
    z = linear(x, w, b).unflatten(-1, (-1, 2)).amax(-1)
    return torch.log1p(z.abs() / knee).copysign(z) * (knee * gain)[:, None]


@linear_maxout_symlog.trivial("not compressed")
def not_compressed(x, w, b, gain, knee):
    z = linear(x, w, b)
    return torch.maximum(z[:, 0::2], z[:, 1::2]) * gain[:, None]


@linear_maxout_symlog.trivial("sum of the pair")
def sum_of_pair(x, w, b, gain, knee):
    z = linear(x, w, b)
    z = z[:, 0::2] + z[:, 1::2]
    return knee * torch.sign(z) * torch.log1p(z.abs() / knee) * gain[:, None]


@linear_maxout_symlog.trivial("halves for neighbours")
def halves(x, w, b, gain, knee):
    z = linear(x, w, b)
    m = z.shape[1] // 2
    z = torch.maximum(z[:, :m], z[:, m:])
    return knee * torch.sign(z) * torch.log1p(z.abs() / knee) * gain[:, None]
