"""Product with weights of 4 bits in groups of 128."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from kernelwright.problems import Cost, Trial, problem, rounded_operand_errors


@problem(
    scenario="quant",
    dtypes=("bf16", "f16", "f32"),
    sizes={
        "cpu": [dict(M=M, G=16, N=4096) for M in (1, 16, 64)],
        "gpu": [dict(M=M, G=64, N=28672) for M in (1, 16, 64)],
    },
    ranges=dict(M=(1, 4096), G=(1, 256), N=(1, 65536)),
    distributions=("normal", "outliers"),
    static=("q", "s", "z"),
    work="8*M*N*G",
    contract="dequantised weights may be rounded to the 16-bit dtype",
    source="AWQ; MARLIN; FineQuant; QUICK; TurboMind",
)
def w4a16_gemm(
    x: Float[Tensor, "M 128*G"],
    q: UInt8[Tensor, "N 64*G"],
    s: Float[Tensor, "N G"],
    z: UInt8[Tensor, "N G"],
) -> Float[Tensor, "M N"]:
    """X Wᵀ, W = s (q - z): even columns in low halves of bytes, s and z for each 128 columns."""
    codes = torch.stack((q & 15, q >> 4), -1).unflatten(1, (-1, 64)).flatten(2)
    weights = (codes.int() - z.int()[..., None]) * s[..., None]
    return x @ weights.flatten(1).t()


@w4a16_gemm.cost
def cost(sizes, dtype):
    """Each tensor once; one multiply-add for each weight and row of x."""
    M, G, N = sizes["M"], sizes["G"], sizes["N"]
    weights = N * G * (64 + dtype.itemsize + 1)
    return Cost(weights + M * 128 * G * dtype.itemsize, M * N * dtype.itemsize, 256 * M * N * G)


@w4a16_gemm.inputs("normal")
def ordinary(sizes, scalars, generator):
    """Any code and zero point, scales between 0.01 and 0.03."""
    N, G = sizes["N"], sizes["G"]
    return {
        "q": torch.randint(256, (N, 64 * G), generator=generator),
        "s": 0.01 + 0.02 * torch.rand((N, G), generator=generator),
        "z": torch.randint(16, (N, G), generator=generator),
    }


@w4a16_gemm.inputs("uneven scales")
def uneven_scales(sizes, scalars, generator):
    """Scales of neighbouring groups differ by up to a thousand."""
    shape = (sizes["N"], sizes["G"])
    return {"s": 10 ** (-3 * torch.rand(shape, generator=generator))}


@w4a16_gemm.inputs("biased activations")
def biased_activations(sizes, scalars, generator):
    """All activations near 2, the zero point in the middle: large terms that nearly cancel."""
    N, G = sizes["N"], sizes["G"]
    x = 2 + torch.randn((sizes["M"], 128 * G), generator=generator) / 4
    return {"x": x, "z": 7 + torch.randint(2, (N, G), generator=generator)}


@w4a16_gemm.inputs("outlier channels")
def outlier_channels(sizes, scalars, generator):
    """Some columns of x are a hundred times larger, as in large language models."""
    columns = 128 * sizes["G"]
    x = torch.randn((sizes["M"], columns), generator=generator)
    large = torch.rand(columns, generator=generator) < 0.01
    large[torch.randint(columns, (1,), generator=generator)] = True
    return {"x": torch.where(large, 100 * x, x)}


@w4a16_gemm.terms
def terms(x, q, s, z):
    return x.abs() @ dequantised(q, s, z).abs().t()


@w4a16_gemm.equivalent
def rounded_weights(trial: Trial) -> dict[str, Tensor]:
    """As matrix units want them: dequantised weights in the dtype of x."""

    def squares(x, q, s, z):
        return x.square() @ dequantised(q, s, z).square().t()

    return rounded_operand_errors(trial, "out", squares)


def dequantised(q, s, z):
    codes = torch.stack((q & 15, q >> 4), -1).unflatten(1, (-1, 64)).flatten(2)
    return ((codes.int() - z.int()[..., None]) * s[..., None]).flatten(1)


def packed(q, s, z):
    """As torch keeps it: N padded to its blocks of 64 rows, scales and shifts side by side."""
    codes = torch.stack((q & 15, q >> 4), -1).flatten(1).int()
    extra = -codes.shape[0] % 64
    codes = torch.nn.functional.pad(codes, (0, 0, 0, extra))
    shift = (8 - z.to(s.dtype)) * s
    pairs = torch.nn.functional.pad(torch.stack((s, shift), -1), (0, 0, 0, 0, 0, extra))
    return {
        "q": torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 2),
        "s": pairs.transpose(0, 1).contiguous(),
    }


@w4a16_gemm.peer("int4pack_mm", prepare=packed)
def library(x, q, s, z):
    return torch.ops.aten._weight_int4pack_mm_for_cpu(x, q, 128, s)[:, : z.shape[0]]


@w4a16_gemm.peer("dequantised before", prepare=lambda q, s, z: {"q": dequantised(q, s, z)})
def plain_product(x, q, s, z):
    return x @ q.t()


@w4a16_gemm.trivial("halves of bytes exchanged")
def exchanged(x, q, s, z):
    return w4a16_gemm(x, (q & 15) * 16 + (q >> 4), s, z)


@w4a16_gemm.trivial("zero point 8")
def middle(x, q, s, z):
    return w4a16_gemm(x, q, s, torch.full_like(z, 8))


@w4a16_gemm.trivial("scales of the first row")
def first_scales(x, q, s, z):
    return w4a16_gemm(x, q, s[:1].expand_as(s), z)


@w4a16_gemm.trivial("weights to 3 bits")
def three_bits(x, q, s, z):
    return w4a16_gemm(x, q & 0xEE, s, z)
