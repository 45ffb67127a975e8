"""Causal attention with grouped queries."""

from math import sqrt

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from kernelwright.problems import Cost, Trial, problem, rounded_operand_errors, softmax_terms


@problem(
    scenario="attention",
    dtypes=("bf16", "f32"),
    sizes={
        "cpu": [dict(B=1, Hk=2, G=2, S=512, D=64)],
        "gpu": [dict(B=4, Hk=8, G=4, S=8192, D=128)],
    },
    ranges=dict(B=(1, 64), Hk=(1, 64), G=(1, 16), S=(1, 16384), D=(1, 256)),
    distributions=("normal",),
    outputs=("out", "lse"),
    slices="B",
    work="4*B*Hk*G*S*S*D",
    contract="weights may be rounded to bf16 before they meet the values",
    source="FlashAttention-2; FlashAttention-4; Tawa; ThunderKittens; HipKittens",
)
def attention_gqa_causal(
    q: Float[Tensor, "B Hk*G S D"], k: Float[Tensor, "B Hk S D"], v: Float[Tensor, "B Hk S D"]
) -> tuple[Float[Tensor, "B Hk*G S D"], Float32[Tensor, "B Hk*G S"]]:
    """Attention to earlier positions; G query heads share one of keys and values."""
    group = q.shape[1] // k.shape[1]
    scores = q @ k.repeat_interleave(group, 1).mT / sqrt(q.shape[3])
    position = torch.arange(q.shape[2], device=q.device)
    scores = scores.masked_fill(position > position[:, None], -torch.inf)
    out = torch.softmax(scores, -1) @ v.repeat_interleave(group, 1)
    return out, torch.logsumexp(scores, -1)


@attention_gqa_causal.cost
def cost(sizes, dtype):
    """Each tensor once; two products over the lower triangle."""
    B, Hk, S, D = sizes["B"], sizes["Hk"], sizes["S"], sizes["D"]
    heads = Hk * sizes["G"]
    read = B * (heads + 2 * Hk) * S * D * dtype.itemsize
    written = B * heads * S * (D * dtype.itemsize + 4)
    return Cost(read, written, 4 * B * heads * D * S * (S + 1) // 2)


@attention_gqa_causal.inputs("sharp")
def sharp(sizes, scalars, generator):
    """Scores eight times larger: a few keys hold nearly all the weight of a row."""
    shape = (sizes["B"], sizes["Hk"] * sizes["G"], sizes["S"], sizes["D"])
    return {"q": 8 * torch.randn(shape, generator=generator)}


@attention_gqa_causal.inputs("ascending")
def ascending(sizes, scalars, generator):
    """Scores near 100 that grow along the keys: rescaled at every step, lost without a maximum."""
    B, Hk, G, S, D = (sizes[name] for name in ("B", "Hk", "G", "S", "D"))
    q = torch.randn((B, Hk * G, S, D), generator=generator)
    k = torch.randn((B, Hk, S, D), generator=generator)
    q[..., 0], k[..., 0] = 8, torch.linspace(8, 16, S) * sqrt(D)
    return {"q": q, "k": k}


@attention_gqa_causal.inputs("masked giants")
def masked_giants(sizes, scalars, generator):
    """The last key and value are a hundred times larger: only the last query may see them."""
    shape = (sizes["B"], sizes["Hk"], sizes["S"], sizes["D"])
    k = torch.randn(shape, generator=generator)
    v = torch.randn(shape, generator=generator)
    k[:, :, -1] *= 20
    v[:, :, -1] *= 100
    return {"k": k, "v": v}


@attention_gqa_causal.terms
def terms(q, k, v):
    k, v = (t.repeat_interleave(q.shape[1] // k.shape[1], 1) for t in (k, v))
    position = torch.arange(q.shape[2])
    scores = (q @ k.mT / sqrt(q.shape[3])).masked_fill(position > position[:, None], -torch.inf)
    largest = q.abs() @ k.abs().mT / sqrt(q.shape[3])
    out = softmax_terms(torch.softmax(scores, -1), v, largest)
    return out, largest.cummax(-1).values.diagonal(dim1=-2, dim2=-1)


@attention_gqa_causal.equivalent
def rounded_weights(trial: Trial) -> dict[str, Tensor]:
    """As matrix units want them: the weights in the dtype of the values."""

    def squares(q, k, v):
        group = q.shape[1] // k.shape[1]
        scores = q @ k.repeat_interleave(group, 1).mT / sqrt(q.shape[3])
        position = torch.arange(q.shape[2])
        weights = scores.masked_fill(position > position[:, None], -torch.inf).softmax(-1)
        return weights.square() @ v.square().repeat_interleave(group, 1)

    return rounded_operand_errors(trial, "out", squares)


@attention_gqa_causal.peer("flash attention")
def flash(q, k, v):
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return attend(q, k, v, 0.0, True)


@attention_gqa_causal.trivial("not causal")
def not_causal(q, k, v):
    group = q.shape[1] // k.shape[1]
    scores = q @ k.repeat_interleave(group, 1).mT / sqrt(q.shape[3])
    return torch.softmax(scores, -1) @ v.repeat_interleave(group, 1), torch.logsumexp(scores, -1)


@attention_gqa_causal.trivial("heads dealt in turn")
def wrong_heads(q, k, v):
    group = q.shape[1] // k.shape[1]
    return attention_gqa_causal(q, k.repeat(1, group, 1, 1), v.repeat(1, group, 1, 1))


@attention_gqa_causal.trivial("not to itself")
def strictly_earlier(q, k, v):
    return attention_gqa_causal(q, k.roll(1, 2), v.roll(1, 2))
