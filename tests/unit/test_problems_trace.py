# ruff: noqa: E501
"""Tracing: the program computes what the reference computes, at sizes that were not traced."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kernelwright.errors import Unsupported
from kernelwright.expr import evaluate, from_json, pretty, simplify, to_json
from kernelwright.model import Dtype, ScalarArgument, Signature, TensorArgument
from kernelwright.problems.rounding import computing_for, round_to
from kernelwright.problems.trace import trace
from kernelwright.problems.trace_settings import Drawn
from kernelwright.problems.trace_unify import Setting

_TYPES = {"i": Dtype.I64, "i32": Dtype.I32, "u8": Dtype.U8, "b": Dtype.BOOL}


def sig(inputs, outputs, **scalars):
    """`x:T,H` is a float tensor, `idx:N:i` an integer one."""

    def tensors(text):
        for part in text.split():
            name, dims, *dtype = part.split(":")
            kind = _TYPES[dtype[0]] if dtype else None
            yield TensorArgument(name, tuple(d for d in dims.split(",") if d), kind)

    arguments = []
    for name, default in scalars.items():
        kind = (
            "bool" if isinstance(default, bool) else "int" if isinstance(default, int) else "float"
        )
        arguments.append(ScalarArgument(name, kind, default))
    return Signature(tuple(tensors(inputs)), tuple(tensors(outputs)), tuple(arguments))


def gate(x, b, r):
    d = x.shape[-1] // 2
    x = x + b
    return x[:, :d] * torch.sigmoid(x[:, d:]) + r


def gate_named(x, D):
    return x[:, :D] * torch.sigmoid(x[:, D:])


def masked_lse(x, mask):
    masked = torch.where(mask, x, -torch.inf)
    lse = torch.logsumexp(masked, dim=-1)
    return lse, masked - lse[:, None]


def masked_lse_by_hand(x, mask, scale=1.0):
    y = (x * scale).masked_fill(~mask, float("-inf"))
    m = y.max(dim=-1, keepdim=True).values
    m = torch.where(torch.isinf(m), torch.zeros_like(m), m)
    total = torch.exp(y - m).sum(-1)
    return (m.squeeze(-1) + torch.log(total)), mask.sum(-1)


def odd_linear(x, w, b, r, s, alpha=0.5):
    y = F.linear(x, w, b)
    y = F.gelu(y).clamp(min=-0.1, max=2.0) + alpha * r
    return y * s[:, None]


def addmm_tanh(x, w, b):
    return torch.tanh(torch.addmm(b, x, w, beta=0.5, alpha=2.0))


def rms_norm(x, w, eps=1e-6):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * w


def layer_norm_by_hand(x, w, b, eps=1e-5):
    mean = x.mean(-1, keepdim=True)
    var = x.var(-1, unbiased=False, keepdim=True)
    return (x - mean) / torch.sqrt(var + eps) * w + b


def cross_entropy_probabilities(x, p):
    return -(p * F.log_softmax(x, dim=-1)).sum(-1)


def cross_entropy_mean(x, p):
    return F.cross_entropy(x, p.softmax(-1))


def attention(q, k, v):
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    return torch.softmax(scores, dim=-1) @ v


def causal_attention(q, k, v):
    s = q.shape[-2]
    scores = torch.einsum("bhqd,bhkd->bhqk", q, k) * q.shape[-1] ** -0.5
    keep = torch.tril(torch.ones(s, s, dtype=torch.bool))
    scores = scores.masked_fill(~keep, float("-inf"))
    return torch.einsum("bhqk,bhkd->bhqd", torch.softmax(scores, -1), v)


def grouped_attention(q, k, v, G):
    k = k.repeat_interleave(G, dim=1)
    v = v.repeat_interleave(G, dim=1)
    return F.scaled_dot_product_attention(q, k, v)


def rope(x, base=10000.0):
    t, _, d = x.shape
    half = d // 2
    frequency = base ** (-torch.arange(half, dtype=x.dtype) / half)
    angle = torch.arange(t, dtype=x.dtype)[:, None] * frequency[None, :]
    cos, sin = angle.cos()[:, None, :], angle.sin()[:, None, :]
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def interleaved(x):
    a, b = x[:, 0::2], x[:, 1::2]
    return torch.stack([a + b, a - b], dim=-1).flatten(1)


def in_place(x):
    y = x.clone()
    y[:, 1:] += x[:, :-1]
    y[:, 0] = 0
    y.mul_(2)
    return y


def group_norm(x, w, b):
    return F.group_norm(x, 2, w, b)


def flags(x, causal=False, scale=1.0):
    if causal:
        x = torch.tril(x)
    return x * scale


def label_smoothing(x, smoothing=0.1):
    n = x.shape[-1]
    logp = torch.log_softmax(x, -1)
    return -(1 - smoothing) * logp[:, 0] - smoothing / n * logp.sum(-1)


def pairwise(x, c):
    return ((x[:, None, :] - c[None, :, :]) ** 2).sum(-1).min(dim=1)


def pairwise_expanded(x, c):
    d = (x * x).sum(1, keepdim=True) - 2 * x @ c.t() + (c * c).sum(1)[None]
    return d.argmin(-1)


def folded_norm(x, w):
    flat = x.reshape(-1, x.shape[-1])
    return F.layer_norm(flat, (flat.shape[-1],), w).view_as(x)


def nibbles(x):
    low, high = x & 15, x >> 4
    return torch.cat([low, high], 1).to(torch.float32) - 8.0


def ndim_reduce(x):
    return x.sum((0, 2)), x.amax(1), x.prod(0), (x > 0).any(-1), (x > 0).to(x.dtype).mean((1, 2))


def fused_add(x, r, w, eps=1e-6):
    s = round_to(x + r)
    return round_to(s, "bf16") * torch.rsqrt(s.square().mean(-1, keepdim=True) + eps) * w, s


X = sig("x:T,H", "out:T,H")
CASES = {
    "softmax": (lambda x: torch.softmax(x, -1), X),
    "softmax_columns": (lambda x: x.softmax(0), X),
    "log_softmax": (lambda x: F.log_softmax(x, 1), X),
    "gate": (gate, sig("x:N,2*D b:2*D r:N,D", "out:N,D")),
    "gate_half": (lambda x: gate(x, 0.0, 0.0), sig("x:N,H", "out:N,H//2")),
    "gate_named": (gate_named, sig("x:N,2*D", "out:N,D", D=4)),
    "gate_chunk": (lambda x: F.silu(x.chunk(2, -1)[0]) * x.chunk(2, -1)[1], sig("x:N,2*D", "o:N,D")),
    "glu": (lambda x: F.glu(x, -1), sig("x:N,2*D", "out:N,D")),
    "masked_lse": (masked_lse, sig("x:T,H mask:T,H:b", "lse:T out:T,H")),
    "masked_lse_by_hand": (masked_lse_by_hand, sig("x:T,H mask:T,H:b", "lse:T n:T:i", scale=0.7)),
    "odd_linear": (odd_linear, sig("x:M,K w:N,K b:N r:M,N s:M", "out:M,N", alpha=0.5)),
    "transposed_bias": (lambda x, w, b: F.relu(x @ w.t() + b) ** 2, sig("x:M,K w:N,K b:N", "out:M,N")),
    "linear_3d": (lambda x, w, b: F.silu(F.linear(x, w, b)), sig("x:B,T,K w:N,K b:N", "out:B,T,N")),
    "addmm": (addmm_tanh, sig("x:M,K w:K,N b:N", "out:M,N")),
    "rms_norm": (rms_norm, sig("x:T,H w:H", "out:T,H", eps=1e-6)),
    "F.rms_norm": (lambda x, w: F.rms_norm(x, (x.shape[1],), w, 1e-5), sig("x:T,H w:H", "o:T,H")),
    "layer_norm": (layer_norm_by_hand, sig("x:T,H w:H b:H", "out:T,H", eps=1e-5)),
    "F.layer_norm": (lambda x, w: F.layer_norm(x, x.shape[-1:], w), sig("x:T,H w:H", "out:T,H")),
    "std": (lambda x: (x - x.mean(0)) / (x.std(0) + 1e-3), X),
    "cross_entropy": (cross_entropy_probabilities, sig("x:T,H p:T,H", "out:T")),
    "cross_entropy_mean": (cross_entropy_mean, sig("x:T,H p:T,H", "out:")),
    "nll": (lambda x, y: F.cross_entropy(x, y, reduction="none"), sig("x:T,H y:T:i", "out:T")),
    "bmm": (lambda a, b: torch.bmm(a, b), sig("a:B,M,K b:B,K,N", "out:B,M,N")),
    "batched": (lambda a, b: a @ b, sig("a:B,H,M,K b:K,N", "out:B,H,M,N")),
    "einsum": (lambda a, b, c: torch.einsum("ij,kj,k->ik", a, b, c), sig("a:I,J b:K,J c:K", "o:I,K")),
    "mv": (lambda a, x: a @ x, sig("a:M,K x:K", "out:M")),
    "dot": (lambda a, b: (a @ b).exp(), sig("a:K b:K", "out:")),
    "outer": (lambda a, b: torch.outer(a, b), sig("a:M b:N", "out:M,N")),
    "cumsum": (lambda x: torch.cumsum(x, -1), X),
    "cumsum_exclusive": (lambda x: x.cumsum(0) - x, X),
    "pairwise": (pairwise, sig("x:N,D c:K,D", "d:N idx:N:i")),
    "pairwise_expanded": (pairwise_expanded, sig("x:N,D c:K,D", "idx:N:i")),
    "cdist": (lambda x, c: torch.cdist(x, c).min(-1), sig("x:N,D c:K,D", "d:N idx:N:i")),
    "cdist_l1": (lambda x, c: torch.cdist(x, c, p=1.0).argmin(1), sig("x:N,D c:K,D", "idx:N:i")),
    "argmax_flat": (lambda x: x.argmax(), sig("x:T,H", "idx::i")),
    "attention": (attention, sig("q:B,S,D k:B,T,D v:B,T,E", "out:B,S,E")),
    "causal_attention": (causal_attention, sig("q:B,H,S,D k:B,H,S,D v:B,H,S,D", "out:B,H,S,D")),
    "grouped": (grouped_attention, sig("q:B,G*H,S,D k:B,H,S,D v:B,H,S,D", "o:B,G*H,S,D", G=2)),
    "rope": (rope, sig("x:T,H,2*D", "out:T,H,2*D", base=10000.0)),
    "interleaved": (interleaved, sig("x:T,2*D", "out:T,2*D")),
    "tril": (lambda x: torch.tril(x, -1) + x.triu(2), X),
    "band": (lambda x: torch.where((torch.arange(x.shape[0])[:, None]
                                    - torch.arange(x.shape[1])).abs() < 3, x, 0.0), X),
    "views": (lambda x: x.flip(1).roll(2, 0).t().contiguous().t()[None].expand(3, -1, -1).sum(0), X),
    "neighbours": (lambda x: F.pad(x, (1, 1))[:, 2:] - F.pad(x, (1, 1))[:, :-2], X),
    "jacobi": (lambda x: (x[:-2, 1:-1] + x[2:, 1:-1] + x[1:-1, :-2] + x[1:-1, 2:]) / 4,
               sig("x:T+2,H+2", "out:T,H")),
    "in_place": (in_place, X),
    "group_norm": (group_norm, sig("x:N,2*C,L w:2*C b:2*C", "out:N,2*C,L")),
    "flags": (flags, sig("x:T,H", "out:T,H", causal=False, scale=1.0)),
    "label_smoothing": (label_smoothing, sig("x:T,H", "out:T", smoothing=0.1)),
    "folded_norm": (folded_norm, sig("x:A,B,C w:C", "out:A,B,C")),
    "gather": (lambda x, i: x.gather(1, i), sig("x:T,H i:T,K:i", "out:T,K")),
    "embedding": (lambda w, i: F.embedding(i, w) * 2, sig("w:V,H i:T:i32", "out:T,H")),
    "indexed": (lambda x, i: x[i] + x[-i - 1], sig("x:T,H i:K:i", "out:K,H")),
    "nibbles": (nibbles, sig("x:T,H:u8", "out:T,2*H")),
    "reductions": (ndim_reduce, sig("x:A,B,C", "s:B m:A,C p:B,C any:A,B:b mean:A")),
    "norms": (lambda x: (x.norm(dim=-1), x.abs().sum(-1), F.normalize(x, dim=-1)),
              sig("x:T,H", "n:T l:T u:T,H")),
    "activations": (lambda x: F.elu(x) + F.leaky_relu(x, 0.1) + F.softplus(x) + F.mish(x)
                    + F.hardswish(x) + F.gelu(x, approximate="tanh") + F.selu(x) + F.relu6(x), X),
    "mse": (lambda x, y: F.mse_loss(x, y), sig("x:T,H y:T,H", "out:")),
    "huber": (lambda x, y, delta: F.huber_loss(x, y, delta=delta, reduction="none"),
              sig("x:T,H y:T,H", "out:T,H", delta=0.5)),
    "integers": (lambda i: (i * 3 + 1) // 2 % 5, sig("i:T,H:i", "out:T,H:i")),
    "power": (lambda x, n: x.abs() ** n + x**3, sig("x:T", "out:T", n=2)),
    "fused_add": (fused_add, sig("x:T,H r:T,H w:H", "y:T,H residual:T,H", eps=1e-6)),
    "lerp": (lambda x, y, beta: torch.lerp(x, y, beta).clamp(-beta, beta),
             sig("x:T y:T", "out:T", beta=0.9)),
    "split": (lambda x: torch.cat(x.split([1, x.shape[1] - 1], 1)[::-1], 1), X),
    "select": (lambda x: x[:, -1] - x[:, 0] + x[-1, 0], sig("x:T,H", "out:T")),
    "kronecker": (lambda a, b: torch.kron(a, b), sig("a:M,N b:P,Q", "out:M*P,N*Q")),
    "blocks": (lambda x: x.view(-1, 32).amax(-1), sig("x:N", "out:N//32")),
    "conv1d": (lambda x, w, b: F.conv1d(x, w, b, stride=2, padding=1), sig("x:N,C,L w:O,C,3 b:O", "o:N,O,(L-1)//2+1")),
    "conv2d_depthwise": (lambda x, w: F.conv2d(x, w[:, None], padding=(2, 1), groups=x.shape[1]), sig("x:N,C,H,W w:C,5,3", "o:N,C,H,W")),
    "conv2d_groups": (lambda x, w: F.conv2d(x, w, groups=3), sig("x:N,6,H,W w:9,2,1,1", "o:N,9,H,W")),
    "conv1x1": (lambda x, w: torch.einsum("nchw,oc->nohw", x, w), sig("x:N,C,H,W w:O,C", "o:N,O,H,W")),
}  # fmt: skip
SETS = ((1, 3, 2, 5, 4, 6), (4, 1, 7, 2, 3, 1), (17, 33, 9, 3, 2, 2))
MULTIPLE = {"blocks": 32, "gate_half": 2, "nll": 2, "gather": 2, "embedding": 2, "indexed": 2,
            "split": 2}  # fmt: skip
"""Dimensions that must be divisible, or long enough for the indices drawn."""


def _check(name, program, function, signature, sizes, run):
    scalars = {}
    for scalar in signature.scalars:
        if scalar.name in sizes:
            scalars[scalar.name] = sizes[scalar.name]
        elif scalar.kind == "bool":
            scalars[scalar.name] = bool(run % 2)
        else:
            scalars[scalar.name] = scalar.default * (run + 1)
    tensors = Drawn(function, signature).inputs(Setting(sizes, scalars), torch.float64)
    with computing_for(Dtype.BF16), torch.no_grad():
        expected = function(**{n: t.clone() for n, t in tensors.items()}, **scalars)
    expected = expected if isinstance(expected, list | tuple) else (expected,)
    inputs = {n: t.numpy() for n, t in tensors.items()}
    actual = evaluate(program, inputs, scalars, sizes, Dtype.BF16)
    for output, want in zip(signature.outputs, expected, strict=True):
        got = actual[output.name]
        assert got.shape == tuple(want.shape)
        np.testing.assert_allclose(
            got.astype(float), want.double().numpy(), rtol=1e-9, atol=1e-11, err_msg=pretty(program)
        )


def _branches(x, eps=0.5):
    return x * 2 if eps > 0.6 else x * 3


_CLOSED_OVER = torch.ones(3)
REFUSED = {
    "median": (lambda x: x.sub(x.median(-1, keepdim=True).values), X, "aten.median"),
    "data": (lambda x: x * 2 if x.sum() > 0 else x, X, "_local_scalar_dense"),
    "random": (lambda x: x + torch.rand_like(x), X, "rand"),
    "nonzero": (lambda x: x[x > 0].sum(), sig("x:T,H", "out:"), "mask"),
    "complex": (lambda x: torch.fft.fft(x).real, X, "complex|fft"),
    "branch": (_branches, sig("x:T", "out:T", eps=0.5), "scalars|depends"),
    "size": (lambda x: x.cumsum(0) if x.shape[0] > 12 else x.cumsum(1), X, "varies|differ"),
    "loop": (lambda x: sum(x[i] for i in range(x.shape[0])), sig("x:T,H", "out:H"), "differ"),
    "shape": (lambda x: x.sum(0), sig("x:T,H", "out:T"), "shaped as declared"),
    "count": (lambda x: (x, x), X, "returns 2"),
    "closed_over": (lambda x: x[:3, 0] * _CLOSED_OVER, sig("x:T,H", "out:3"), "no input"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_cause(name):
    function, signature, words = REFUSED[name]
    with pytest.raises(Unsupported, match=words):
        trace(function, signature, {})


def test_fixed_and_narrow_ranges():
    signature = sig("x:T,H w:H", "out:T,H")
    program = trace(rms_norm, signature, {"T": (1, 4), "H": (64, 64)})
    assert pretty(program).count("sum[") == 1
    _check("rms_norm", program, rms_norm, signature, {"T": 3, "H": 64}, 0)


@pytest.mark.parametrize("name", CASES)
def test_program_equals_reference(name):
    function, signature = CASES[name]
    program = trace(function, signature, {})
    assert from_json(json.loads(json.dumps(to_json(program)))) == program
    assert simplify(program) == program
    dims = list(signature.dimensions)
    dims += [s.name for s in signature.scalars if s.name in ("D", "G")]
    for run, values in enumerate(SETS):
        multiple = MULTIPLE.get(name, 1)
        sizes = {dim: multiple * values[i % 6] for i, dim in enumerate(dims)}
        _check(name, program, function, signature, sizes, run)
