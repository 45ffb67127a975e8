"""Depthwise convolution with a large kernel and a small branch beside it."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from kernelwright.problems import Cost, Trial, problem, rounded_operand_errors


@problem(
    scenario="vision",
    sizes={"cpu": [dict(N=1, C=32, H=56, W=56)], "gpu": [dict(N=64, C=384, H=56, W=56)]},
    ranges=dict(N=(1, 256), C=(1, 1024), H=(1, 256), W=(1, 256)),
    distributions=("normal", "outliers"),
    static=("large", "small"),
    slices="N",
    work="32*N*C*H*W",
    contract="either both branches or the centre of the folded filter may be rounded to bf16",
    source="RepLKNet; UniRepLKNet; Large-kernel ConvNets",
)
def depthwise_conv31(
    x: Float[Tensor, "N C H W"], large: Float[Tensor, "C 31 31"], small: Float[Tensor, "C 5 5"]
) -> Float[Tensor, "N C H W"]:
    """Each channel by its own 31x31 and its own 5x5 filter, centred, zero outside; their sum."""
    channels = x.shape[1]
    wide = F.conv2d(x, large[:, None], padding=15, groups=channels)
    return wide + F.conv2d(x, small[:, None], padding=2, groups=channels)


@depthwise_conv31.cost
def cost(sizes, dtype):
    """Each tensor once; the small filter folded into the large one, taps inside the image only."""
    N, C, H, W = (sizes[name] for name in "NCHW")

    def taps(length):
        return sum(min(at + 15, length - 1) - max(at - 15, 0) + 1 for at in range(length))

    image = N * C * H * W * dtype.itemsize
    filters = C * (31 * 31 + 5 * 5) * dtype.itemsize
    return Cost(image + filters, image, 2 * N * C * taps(H) * taps(W))


@depthwise_conv31.inputs("cancelling")
def cancelling(sizes, scalars, generator):
    """Neighbouring columns nearly cancel under a smooth filter."""
    N, C, H, W = (sizes[name] for name in "NCHW")
    x = torch.randn((N, C, H, W), generator=generator)
    sign = 1 - 2 * (torch.arange(W) % 2)
    large = 1 + torch.randn((C, 31, 31), generator=generator) / 32
    return {"x": sign * (8 + x / 4), "large": large}


@depthwise_conv31.inputs("far taps")
def far_taps(sizes, scalars, generator):
    """Outer taps a hundred times the inner ones: what a cropped filter leaves out."""
    shape = (sizes["C"], 31, 31)
    distance = (torch.arange(31) - 15).abs()
    ring = torch.maximum(distance[:, None], distance)
    return {"large": torch.randn(shape, generator=generator) * torch.where(ring > 12, 100.0, 1.0)}


@depthwise_conv31.terms
def terms(x, large, small):
    return depthwise_conv31(x.abs(), large.abs(), small.abs())


@depthwise_conv31.equivalent
def rounded_branches(trial: Trial) -> dict[str, Tensor]:
    """As libraries do it: two convolutions that are added, or one by the sum of the filters."""

    def squares(x, large, small):
        x, large, small = x.float(), large.float(), small.float()  # how large suffices
        channels = x.shape[1]
        wide = F.conv2d(x, large[:, None], padding=15, groups=channels)
        near = F.conv2d(x, small[:, None], padding=2, groups=channels)
        folded = (large[:, 13:18, 13:18] + small).square()[:, None]
        centre = F.conv2d(x.square(), folded, padding=2, groups=channels)
        return (wide.square() + near.square() + centre).double()

    return rounded_operand_errors(trial, "out", squares)


@depthwise_conv31.peer("folded F.conv2d")
def folded(x, large, small):
    return F.conv2d(
        x, (large + F.pad(small, (13, 13, 13, 13)))[:, None], None, 1, 15, 1, x.shape[1]
    )


@depthwise_conv31.trivial("without the small branch")
def without_small(x, large, small):
    return F.conv2d(x, large[:, None], padding=15, groups=x.shape[1])


@depthwise_conv31.trivial("filter turned around")
def turned(x, large, small):
    return depthwise_conv31(x, large.flip(1, 2), small.flip(1, 2))


@depthwise_conv31.trivial("all channels by the first filter")
def first_filter(x, large, small):
    return depthwise_conv31(x, large[:1].expand_as(large), small[:1].expand_as(small))


@depthwise_conv31.trivial("border repeated")
def border_repeated(x, large, small):
    wide = F.pad(x, (15, 15, 15, 15), "replicate")
    near = F.pad(x, (2, 2, 2, 2), "replicate")
    channels = x.shape[1]
    return F.conv2d(wide, large[:, None], groups=channels) + F.conv2d(
        near, small[:, None], groups=channels
    )
