"""Attention of one new token over a cache whose keys and values have 2 bits."""

from math import sqrt

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int32
from torch import Tensor

from kernelwright.problems import Cost, Trial, problem, rounded_operand_errors, softmax_terms


@problem(
    scenario="attention",
    dtypes=("bf16", "f16"),
    sizes={
        "cpu": [dict(B=1, Hk=2, G=4, E=2, N=124, R=128)],
        "gpu": [dict(B=32, Hk=8, G=4, E=4, N=1020, R=128)],
    },
    ranges=dict(B=(1, 64), Hk=(1, 16), G=(1, 8), E=(1, 8), N=(1, 2048), R=(1, 128)),
    distributions=("normal",),
    slices="B",
    work="64*B*Hk*G*E*(32*N+R)",
    contract="weights may be rounded to the 16-bit dtype before they meet the values",
    source="KIVI; COMET; TurboMind; xFasterTransformer",
)
def kvq_decode_attention(
    q: Float[Tensor, "B Hk*G 32*E"],
    k_codes: Int32[Tensor, "B Hk 2*N 32*E"],
    k_scale: Float[Tensor, "B Hk N 32*E"],
    k_least: Float[Tensor, "B Hk N 32*E"],
    k_recent: Float[Tensor, "B Hk R 32*E"],
    v_codes: Int32[Tensor, "B Hk 32*N 2*E"],
    v_scale: Float[Tensor, "B Hk 32*N E"],
    v_least: Float[Tensor, "B Hk 32*N E"],
    v_recent: Float[Tensor, "B Hk R 32*E"],
) -> Float[Tensor, "B Hk*G 32*E"]:
    """Attend to 32 N tokens of codes, 16 in a word, x = scale * code + least, and R recent ones."""
    k, v = widened(k_codes, k_scale, k_least, k_recent, v_codes, v_scale, v_least, v_recent)
    grouped = q.unflatten(1, (k.shape[1], -1))
    weights = torch.softmax(torch.einsum("bhgd,bhtd->bhgt", grouped, k) / sqrt(q.shape[2]), -1)
    return torch.einsum("bhgt,bhtd->bhgd", weights, v).flatten(1, 2)


def widened(k_codes, k_scale, k_least, k_recent, v_codes, v_scale, v_least, v_recent):
    """Keys (scales for 32 tokens of a channel) and values (for 32 channels of a token)."""
    places = 2 * torch.arange(16, device=k_codes.device)
    codes = (k_codes[..., None] >> places & 3).permute(0, 1, 2, 4, 3).flatten(2, 3)
    scale, least = (t.repeat_interleave(32, 2) for t in (k_scale, k_least))
    k = torch.cat((scale * codes + least, k_recent), 2)
    codes = (v_codes[..., None] >> places & 3).flatten(3)
    scale, least = (t.repeat_interleave(32, 3) for t in (v_scale, v_least))
    return k, torch.cat((scale * codes + least, v_recent), 2)


@kvq_decode_attention.cost
def cost(sizes, dtype):
    """Each tensor once; two multiply-adds for each query head, token and channel."""
    B, Hk, G, E, N, R = (sizes[name] for name in ("B", "Hk", "G", "E", "N", "R"))
    tokens, D = 32 * N + R, 32 * E
    codes = 2 * B * Hk * 32 * N * D // 4
    scales = 4 * B * Hk * N * D * dtype.itemsize
    recent = 2 * B * Hk * R * D * dtype.itemsize
    query = B * Hk * G * D * dtype.itemsize
    return Cost(codes + scales + recent + query, query, 4 * B * Hk * G * tokens * D)


def quantised(values, axis):
    """Codes, scales and least values of groups of 32 along an axis; codes packed 16 to a word."""
    groups = values.movedim(axis, -1).unflatten(-1, (-1, 32))
    least, most = groups.amin(-1), groups.amax(-1)
    scale = (most - least).clamp(min=1e-6) / 3
    codes = ((groups - least[..., None]) / scale[..., None]).round().long().clamp(0, 3)
    words = (codes.unflatten(-1, (2, 16)) << 2 * torch.arange(16)).sum(-1).flatten(-2)
    words = torch.where(words >= 1 << 31, words - (1 << 32), words)
    return [t.movedim(-1, axis) for t in (words, scale, least)]


def cached(sizes, generator, spread=1.0, shift=0.0):
    """A cache of normal keys and values; channels of keys have different sizes, as they do."""
    B, Hk, E, N, R = (sizes[name] for name in ("B", "Hk", "E", "N", "R"))
    shape = (B, Hk, 32 * N + R, 32 * E)
    channels = spread * (0.5 + torch.rand((1, Hk, 1, 32 * E), generator=generator))
    k = torch.randn(shape, generator=generator) * channels + shift
    v = torch.randn(shape, generator=generator)
    k_codes, k_scale, k_least = quantised(k[:, :, : 32 * N], 2)
    v_codes, v_scale, v_least = quantised(v[:, :, : 32 * N], 3)
    return {
        "k_codes": k_codes, "k_scale": k_scale, "k_least": k_least, "k_recent": k[:, :, 32 * N :],
        "v_codes": v_codes, "v_scale": v_scale, "v_least": v_least, "v_recent": v[:, :, 32 * N :],
    }  # fmt: skip


@kvq_decode_attention.inputs("normal")
def ordinary(sizes, scalars, generator):
    return cached(sizes, generator)


@kvq_decode_attention.inputs("sharp")
def sharp(sizes, scalars, generator):
    """Larger keys: a few tokens hold nearly all the weight."""
    return cached(sizes, generator, 3.0)


@kvq_decode_attention.inputs("offset keys")
def offset_keys(sizes, scalars, generator):
    """Keys far from zero: the least values outweigh the scales."""
    return cached(sizes, generator, 1.0, 4.0)


@kvq_decode_attention.inputs("outlying values")
def outlying_values(sizes, scalars, generator):
    """Some groups of values have scales a thousand times larger."""
    found = cached(sizes, generator)
    planted = torch.rand(found["v_scale"].shape, generator=generator) < 0.02
    planted.view(-1)[torch.randint(planted.numel(), (1,), generator=generator)] = True
    found["v_scale"] = torch.where(planted, 1000 * found["v_scale"], found["v_scale"])
    return found


@kvq_decode_attention.terms
def terms(q, k_codes, k_scale, k_least, k_recent, v_codes, v_scale, v_least, v_recent):
    k, v = widened(k_codes, k_scale, k_least, k_recent, v_codes, v_scale, v_least, v_recent)
    sizes, _ = widened(
        k_codes, k_scale, k_least.abs(), k_recent.abs(), v_codes, v_scale, v_least, v_recent
    )
    q, root = q.unflatten(1, (k.shape[1], -1)), sqrt(q.shape[2])
    weights = torch.softmax(q @ k.mT / root, -1)
    return softmax_terms(weights, v, q.abs() @ sizes.mT / root).flatten(1, 2)


@kvq_decode_attention.equivalent
def rounded_weights(trial: Trial) -> dict[str, Tensor]:
    """As matrix units want them: the weights in the dtype of the values."""

    def squares(q, k_codes, k_scale, k_least, k_recent, v_codes, v_scale, v_least, v_recent):
        k, v = widened(k_codes, k_scale, k_least, k_recent, v_codes, v_scale, v_least, v_recent)
        scores = q.unflatten(1, (k.shape[1], -1)) @ k.mT / sqrt(q.shape[2])
        return (torch.softmax(scores, -1).square() @ v.square()).flatten(1, 2)

    return rounded_operand_errors(trial, "out", squares)


@kvq_decode_attention.peer("widen and F.scaled_dot_product_attention")
def library(q, k_codes, k_scale, k_least, k_recent, v_codes, v_scale, v_least, v_recent):
    k, v = widened(k_codes, k_scale, k_least, k_recent, v_codes, v_scale, v_least, v_recent)
    return F.scaled_dot_product_attention(q[:, :, None], k, v, enable_gqa=True)[:, :, 0]


@kvq_decode_attention.trivial("recent tokens alone")
def recent_alone(q, k_codes, k_scale, k_least, k_recent, v_codes, v_scale, v_least, v_recent):
    grouped = q.unflatten(1, (k_recent.shape[1], -1))
    weights = torch.softmax(grouped @ k_recent.mT / sqrt(q.shape[2]), -1)
    return (weights @ v_recent).flatten(1, 2)


@kvq_decode_attention.trivial("codes in the order of bytes reversed")
def reversed_codes(q, k_codes, k_scale, k_least, k_recent, v_codes, v_scale, v_least, v_recent):
    return kvq_decode_attention(
        q, k_codes, k_scale, k_least, k_recent, v_codes.flip(3), v_scale, v_least, v_recent
    )


@kvq_decode_attention.trivial("keys without their least values")
def without_least(q, k_codes, k_scale, k_least, k_recent, v_codes, v_scale, v_least, v_recent):
    return kvq_decode_attention(
        q, k_codes, k_scale, 0 * k_least, k_recent, v_codes, v_scale, v_least, v_recent
    )
