"""Logarithms of modified Bessel functions of real order, which neither overflow nor underflow."""

from math import pi

import torch
from jaxtyping import Float
from torch import Tensor

from kernelwright.model import Dtype
from kernelwright.problems import Cost, Trial, problem

NODES = 160
"""Of the trapezoidal rule, on each side."""
SHIFT = 12
"""Orders by which I is computed higher up, where its integrand is smooth at its end."""


@problem(
    scenario="science",
    dtypes=("f32", "f64"),
    sizes={"cpu": [dict(N=1 << 16)], "gpu": [dict(N=1 << 25)]},
    ranges=dict(N=(1, 1 << 25)),
    distributions=("normal",),
    outputs=("log_i", "log_k"),
    slices="N",
    work="512*N",
    source="Log-Bessel on GPUs; Temme, steepest descents for modified Bessel functions (1994)",
)
def log_bessel_iv(
    v: Float[Tensor, "N"], x: Float[Tensor, "N"]
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
    """Log I_v(x) and log K_v(x), elementwise: v from 0 to 10000, x above 0, at most 10000."""
    return log_i(v, x), log_k(v, x)


def log_k(v, x, nodes=NODES, widest=0.2):
    """K_v(x) is half the integral of exp(v t - x cosh t) over all t; its peak is asinh(v / x)."""
    w, peak = torch.sqrt(x * x + v * v), torch.asinh(v / x)
    step = torch.clamp(0.5 * w.rsqrt(), max=widest)[:, None]
    s = step * torch.arange(-nodes, nodes + 1, device=v.device)
    s = s.clamp(-60, 60)  # beyond, nothing is left of it
    rising, falling = w + v, x * x / (w + v)  # w plus and minus v, without cancellation
    fall = rising[:, None] * torch.expm1(s) + falling[:, None] * torch.expm1(-s)
    fall = v[:, None] * s - fall / 2
    return v * peak - w + torch.log(torch.exp(fall).sum(1) * step[:, 0] / 2)


def log_i(v, x, nodes=NODES):
    """At an order that is higher by SHIFT, then down by ratios of neighbours."""
    top = v + SHIFT
    found = steepest(top, x, nodes)
    ratio = torch.exp(steepest(top + 1, x, nodes) - found)
    for k in range(SHIFT):
        ratio = 1 / (2 * (top - k) / x + ratio)
        found = found - torch.log(ratio)
    return found


def steepest(v, x, nodes):
    """Along the path of steepest descent sinh u = (v / x) a / sin a, on which all is positive."""
    w, peak = torch.sqrt(x * x + v * v), torch.asinh(v / x)
    step = torch.clamp(0.5 * w.rsqrt(), max=pi / (nodes + 1))[:, None]
    a = step * torch.arange(1, nodes + 1, device=v.device)
    slope = (v / x)[:, None] * a / torch.sin(a)
    u, climb = torch.asinh(slope), torch.sqrt(1 + slope * slope)
    fall = x[:, None] * climb * torch.cos(a) - w[:, None] - v[:, None] * (u - peak[:, None])
    return w - v * peak + torch.log((0.5 + torch.exp(fall).sum(1)) * step[:, 0] / pi)


@log_bessel_iv.cost
def cost(sizes, dtype):
    """Each tensor once; a uniform expansion and a recurrence take about 400 operations."""
    nbytes = 2 * sizes["N"] * dtype.itemsize
    return Cost(nbytes, nbytes, 400 * sizes["N"])


def drawn(sizes, generator, orders, arguments):
    """Orders up to a power of ten, a few of them 0 or whole; arguments between two such powers."""
    N = sizes["N"]
    v = 10 ** (torch.rand(N, generator=generator) * (orders + 2) - 2)
    kind = torch.rand(N, generator=generator)
    v = torch.where(kind < 0.1, torch.zeros(N), torch.where(kind < 0.3, v.round(), v))
    low, high = arguments
    x = 10 ** (torch.rand(N, generator=generator) * (high - low) + low)
    return {"v": v.clamp(max=10**orders), "x": x}


@log_bessel_iv.inputs("normal")
def ordinary(sizes, scalars, generator):
    return drawn(sizes, generator, 4, (-1, 4))


@log_bessel_iv.inputs("small orders")
def small_orders(sizes, scalars, generator):
    """Where expansions for large orders fail."""
    return drawn(sizes, generator, 0.5, (-0.7, 2))


@log_bessel_iv.inputs("far out of range")
def out_of_range(sizes, scalars, generator):
    """The functions themselves are beyond all floating types."""
    found = drawn(sizes, generator, 4, (-3, 0))
    return {**found, "v": found["v"].clamp(min=1000)}


@log_bessel_iv.inputs("large arguments")
def large_arguments(sizes, scalars, generator):
    return drawn(sizes, generator, 3, (3, 4))


def magnitude(v, x):
    """What is rounded: the exponents at the saddle point, which cancel where v is near x."""
    return torch.sqrt(x * x + v * v) + v * torch.asinh(v / x) + 1


@log_bessel_iv.terms
def terms(v, x):
    return magnitude(v, x), magnitude(v, x)


@log_bessel_iv.equivalent
def exact_in_double(trial: Trial) -> dict[str, Tensor]:
    """In f64 twelve digits or places, and what rounding the exponents costs."""
    if trial.dtype is not Dtype.F64:
        return {}
    floor = 1e-12 + 2.0**-50 * magnitude(**trial.inputs)
    return {
        name: (trial.actual[name] - expected).abs() / (1e-12 * expected.abs() + floor)
        for name, expected in trial.expected.items()
    }


@log_bessel_iv.peer("uniform expansion, and fewer nodes")
def expanded(v, x):
    """I by Debye's expansion at v + 16 (NIST handbook, 10.41) and down; K by 81 nodes."""
    top = v + 16
    found = debye(top, x)
    ratio = torch.exp(debye(top + 1, x) - found)
    for k in range(16):
        ratio = 1 / (2 * (top - k) / x + ratio)
        found = found - torch.log(ratio)
    return found, log_k(v, x, 40, 0.4)


def debye(v, x):
    """Log I_v(x) for v of 16 or more."""
    w = torch.sqrt(x * x + v * v)
    p = v / w
    q = p * p
    u1 = p * (3 - 5 * q) / 24
    u2 = q * (81 - q * (462 - 385 * q)) / 1152
    u3 = p * q * (30375 - q * (369603 - q * (765765 - 425425 * q))) / 414720
    series = 1 + (u1 + (u2 + u3 / v) / v) / v
    return w - v * torch.asinh(v / x) - torch.log(2 * pi * w) / 2 + torch.log(series)


@log_bessel_iv.trivial("leading order alone")
def leading_order(v, x):
    return debye(v + 1e-3, x), -debye(v + 1e-3, x)


@log_bessel_iv.trivial("order 0")
def order_zero(v, x):
    return log_bessel_iv(0 * v, x)
