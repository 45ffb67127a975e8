"""`round_to`: rounding as part of a problem's meaning."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from kernelwright.model import Dtype
from kernelwright.problems.elements import parse_dtype, torch_dtype

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
