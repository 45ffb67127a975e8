"""`round_to`: rounding as part of a problem's meaning."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from kernelwright.model import Dtype
from kernelwright.problems.elements import parse_dtype, torch_dtype

if TYPE_CHECKING:
    from kernelwright.problems.declaration import Trial

_workload: ContextVar[Dtype | None] = ContextVar("kernelwright_workload_dtype", default=None)
_WORKLOAD = "workload"


def round_to(x: Tensor, dtype: Dtype | str | None = None) -> Tensor:
    """Round `x` to a dtype and keep its own: where rounding belongs to the mathematics.

    Args:
        x: Any shape, floating.
        dtype: Where to round to; None is the dtype of the workload, so that the float64 oracle
            rounds exactly where a kernel for bf16 stores bf16.

    Returns:
        Shape and dtype of `x`. The gradient passes straight through.

    Raises:
        ProblemError: the dtype is unknown.
    """
    name = _WORKLOAD if dtype is None else str(parse_dtype(dtype, "round_to"))
    if torch.compiler.is_compiling() or (_workload.get() is None and get_proxy_mode() is None):
        # A baseline runs in the workload's own dtype: an opaque operator would only hinder fusion.
        return _rounded(x, name, None)
    return torch.ops.kernelwright.round_to(x, name)


def rounded_operand_errors(
    trial: Trial, output: str, squares: Callable[..., Tensor]
) -> dict[str, Tensor]:
    """Errors of a sum of products whose one factor may be rounded to the workload's dtype.

    For `@p.equivalent`, where matrix units of 16-bit types want an intermediate in that type:
    attention weights, dequantised weights. Rounding errors are independent and at most u, the unit
    roundoff, of their term, so seven deviations of their sum are 4 u sqrt(squares).

    Args:
        trial: What is judged.
        output: The output's name.
        squares: Gives the sum of the squared terms of each of its elements; called like the
            reference.

    Returns:
        By the output's name, errors in units of what is allowed; nothing for f32 and f64, which
        have no narrower factor: there the ordinary budget holds.
    """
    if trial.dtype.itemsize > 2:
        return {}
    roundoff = trial.dtype.unit_roundoff
    expected = trial.expected[output]
    deviation = squares(**trial.inputs, **trial.scalars).sqrt()
    allowed = 2 * roundoff * expected.abs() + 4 * roundoff * deviation + 2.0**-126
    return {output: (trial.actual[output] - expected).abs() / allowed}


def softmax_terms(weights: Tensor, values: Tensor, magnitudes: Tensor) -> Tensor:
    """For `@p.terms`: what is rounded in `weights @ values`, weights a softmax of sums.

    To first order an error e_k of score k moves an output o by w_k e_k (v_k - o). Scores are
    rounded independently, each with a deviation under half of eps times the sum of its absolute
    terms, so four deviations are covered by twice the root of the summed squares.

    Args:
        weights: softmax of the scores, (..., rows, keys).
        values: (..., keys, columns).
        magnitudes: Σ|terms| of each score, (..., rows, keys).

    Returns:
        (..., rows, columns), to be multiplied by eps.
    """
    mean = weights @ values
    shares = (weights * magnitudes).square()
    squares = shares @ values.square() - 2 * mean * (shares @ values)
    squares += mean.square() * shares.sum(-1, keepdim=True)
    return weights @ values.abs() + 2 * squares.clamp(min=0).sqrt()


@contextmanager
def computing_for(dtype: Dtype) -> Iterator[None]:
    """While this holds, `round_to(x)` rounds to `dtype`, whatever dtype `x` has."""
    token = _workload.set(dtype)
    try:
        yield
    finally:
        _workload.reset(token)


def _rounded(x: Tensor, name: str, workload: Dtype | None) -> Tensor:
    target = workload if name == _WORKLOAD else Dtype(name)
    return x if target is None else x.to(torch_dtype(target)).to(x.dtype)


@torch.library.custom_op("kernelwright::round_to", mutates_args=())
def _round_to(x: Tensor, dtype: str) -> Tensor:
    rounded = _rounded(x, dtype, _workload.get())
    return rounded.clone() if rounded is x else rounded


@_round_to.register_fake
def _(x: Tensor, dtype: str) -> Tensor:
    return torch.empty_like(x)


def _straight_through(ctx: object, gradient: Tensor) -> tuple[Tensor, None]:
    return gradient, None


_round_to.register_autograd(_straight_through)
