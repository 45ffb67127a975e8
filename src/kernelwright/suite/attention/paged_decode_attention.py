"""Attention of one new token per request over a paged cache."""

from math import sqrt

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int32
from torch import Tensor

from kernelwright.problems import Cost, Trial, problem, rounded_operand_errors, softmax_terms


@problem(
    scenario="attention",
    dtypes=("bf16", "f32"),
    sizes={
        "cpu": [dict(B=16, Hk=2, G=4, D=64, P=1024, L=64)],
        "gpu": [dict(B=64, Hk=8, G=4, D=128, P=65536, L=1024)],
    },
    ranges=dict(B=(1, 256), Hk=(1, 64), G=(1, 16), D=(1, 256), P=(1, 65536), L=(1, 1024)),
    distributions=("normal",),
    slices="B",
    work="16*Hk*D*(B*G*L+P)",
    contract="weights may be rounded to bf16 before they meet the values",
    source="FlashInfer; FlashDecoding++; TurboMind",
)
def paged_decode_attention(
    q: Float[Tensor, "B Hk*G D"],
    k_cache: Float[Tensor, "P 16 Hk D"],
    v_cache: Float[Tensor, "P 16 Hk D"],
    table: Int32[Tensor, "B L"],
    lengths: Int32[Tensor, "B"],
) -> Float[Tensor, "B Hk*G D"]:
    """Attend to the first `lengths` tokens, 16 on each page that the table names (-1: none)."""
    pages = table.clamp(min=0)
    k, v = k_cache[pages].flatten(1, 2), v_cache[pages].flatten(1, 2)
    grouped = q.unflatten(1, (k.shape[2], -1))
    scores = torch.einsum("bhgd,bthd->bhgt", grouped, k) / sqrt(q.shape[2])
    beyond = torch.arange(k.shape[1], device=q.device) >= lengths[:, None]
    weights = torch.softmax(scores.masked_fill(beyond[:, None, None], -torch.inf), -1)
    return torch.einsum("bhgt,bthd->bhgd", weights, v).flatten(1, 2)


def pages_used(sizes):
    """Pages of each request under `normal`: from a B-th of L up to L, so that the sum is known."""
    return [-(-(number + 1) * sizes["L"] // sizes["B"]) for number in range(sizes["B"])]


@paged_decode_attention.cost
def cost(sizes, dtype):
    """Only tokens that exist are read, at least one of the last page of each request."""
    B, Hk, D = sizes["B"], sizes["Hk"], sizes["D"]
    tokens = min(sum(16 * (n - 1) + 1 for n in pages_used(sizes)), 16 * sizes["P"])
    heads = Hk * sizes["G"]
    query = B * heads * D * dtype.itemsize
    indices = 4 * (B + sum(pages_used(sizes)))
    cache = 2 * tokens * Hk * D * dtype.itemsize
    return Cost(query + indices + cache, query, 4 * tokens * heads * D)


def laid_out(sizes, lengths, generator):
    """A table for these lengths: pages in random order, shared only where there are too few."""
    B, P, L = sizes["B"], sizes["P"], sizes["L"]
    pages = torch.randperm(P, generator=generator).repeat(-(-B * L // P))[: B * L].view(B, L)
    unused = torch.arange(L) * 16 >= lengths[:, None]
    return pages.masked_fill(unused, -1)


@paged_decode_attention.inputs("normal")
def ordinary(sizes, scalars, generator):
    """Lengths from short to full, in random order; the last page is filled at random."""
    used = torch.tensor(pages_used(sizes))[torch.randperm(sizes["B"], generator=generator)]
    lengths = 16 * used - torch.randint(16, (sizes["B"],), generator=generator)
    return {"table": laid_out(sizes, lengths, generator), "lengths": lengths}


@paged_decode_attention.inputs("ragged")
def ragged(sizes, scalars, generator):
    """Most requests hold a few tokens, the first all that fits but one."""
    most = 16 * sizes["L"]
    exponent = torch.rand(sizes["B"], generator=generator)
    lengths = (most**exponent).long().clamp(1, most)
    lengths[0] = most - 1
    return {"table": laid_out(sizes, lengths, generator), "lengths": lengths}


@paged_decode_attention.inputs("shared prefix")
def shared_prefix(sizes, scalars, generator):
    """All requests share the first half of their pages; values of other pages are huge."""
    B, L, P = sizes["B"], sizes["L"], sizes["P"]
    half = max(L // 2, 1)
    lengths = 16 * half + torch.randint(16 * (L - half) + 1, (B,), generator=generator)
    table = laid_out(sizes, lengths, generator)
    table[:, :half] = table[0, :half].clone()
    named = torch.zeros(P, dtype=torch.bool)
    named[table[table >= 0]] = True
    v = torch.randn((P, 16, sizes["Hk"], sizes["D"]), generator=generator)
    v[~named] *= 1e4
    return {"table": table, "lengths": lengths, "v_cache": v}


@paged_decode_attention.inputs("sharp")
def sharp(sizes, scalars, generator):
    """Scores eight times larger: a few tokens hold nearly all the weight."""
    shape = (sizes["B"], sizes["Hk"] * sizes["G"], sizes["D"])
    return {"q": 8 * torch.randn(shape, generator=generator)}


@paged_decode_attention.terms
def terms(q, k_cache, v_cache, table, lengths):
    pages, root = table.clamp(min=0), sqrt(q.shape[2])
    k, v = (cache[pages].flatten(1, 2).transpose(1, 2) for cache in (k_cache, v_cache))
    q = q.unflatten(1, (k.shape[1], -1))
    beyond = torch.arange(k.shape[2]) >= lengths[:, None]
    scores = (q @ k.mT / root).masked_fill(beyond[:, None, None], -torch.inf)
    magnitudes = (q.abs() @ k.abs().mT / root).masked_fill(beyond[:, None, None], 0)
    return softmax_terms(torch.softmax(scores, -1), v, magnitudes).flatten(1, 2)


@paged_decode_attention.equivalent
def rounded_weights(trial: Trial) -> dict[str, Tensor]:
    """As matrix units want them: the weights in the dtype of the values."""

    def squares(q, k_cache, v_cache, table, lengths):
        pages = table.clamp(min=0)
        k, v = k_cache[pages].flatten(1, 2), v_cache[pages].flatten(1, 2)
        scores = torch.einsum("bhgd,bthd->bhgt", q.unflatten(1, (k.shape[2], -1)), k)
        beyond = torch.arange(k.shape[1]) >= lengths[:, None]
        scores = scores.masked_fill(beyond[:, None, None], -torch.inf)
        weights = torch.softmax(scores / sqrt(q.shape[2]), -1)
        return torch.einsum("bhgt,bthd->bhgd", weights.square(), v.square()).flatten(1, 2)

    return rounded_operand_errors(trial, "out", squares)


@paged_decode_attention.peer("gather and F.scaled_dot_product_attention")
def gathered(q, k_cache, v_cache, table, lengths):
    pages = table.clamp(min=0)
    k = k_cache[pages].flatten(1, 2).transpose(1, 2)
    v = v_cache[pages].flatten(1, 2).transpose(1, 2)
    within = torch.arange(k.shape[2], device=q.device) < lengths[:, None]
    mask = within[:, None, None]
    return F.scaled_dot_product_attention(q[:, :, None], k, v, mask, enable_gqa=True)[:, :, 0]


@paged_decode_attention.peer("request by request")
def one_by_one(q, k_cache, v_cache, table, lengths):
    found = []
    for query, row, length in zip(q, table, lengths.tolist(), strict=True):
        pages = row[: -(-length // 16)]
        k = k_cache[pages].flatten(0, 1)[:length].transpose(0, 1)[None]
        v = v_cache[pages].flatten(0, 1)[:length].transpose(0, 1)[None]
        found.append(F.scaled_dot_product_attention(query[None, :, None], k, v, enable_gqa=True))
    return torch.cat(found)[:, :, 0]


@paged_decode_attention.trivial("pages in order")
def in_order(q, k_cache, v_cache, table, lengths):
    L, P = table.shape[1], k_cache.shape[0]
    plain = torch.arange(table.numel()).view(-1, L) % P
    return paged_decode_attention(q, k_cache, v_cache, plain, lengths)


@paged_decode_attention.trivial("whole pages")
def whole_pages(q, k_cache, v_cache, table, lengths):
    return paged_decode_attention(q, k_cache, v_cache, table, 16 * ((lengths + 15) // 16))


@paged_decode_attention.trivial("last page left out")
def last_page_left_out(q, k_cache, v_cache, table, lengths):
    shorter = (16 * ((lengths + 15) // 16 - 1)).clamp(min=1)
    return paged_decode_attention(q, k_cache, v_cache, table, shorter)
