"""Summation in other orders: what sound float32 implementations may differ by.

A `TorchDispatchMode` takes over every operator that sums and does it in one of four orders:

- `plain`: torch's own order; running sums one after the other, as in a sequential loop. (torch's
  `cumsum` keeps a float64 carry on CPUs, which no float32 kernel could match.)
- `reversed`: from the last term to the first; running sums by a tree.
- `blocked`: as vector code does: 16 or 64 interleaved accumulators, added up at the end; products
  in blocks of the inner dimension; convolutions in blocks of filter rows; running sums in blocks
  of 128 with a carry.
- `sequential`: as the plainest kernels do: products with one accumulator per output element, as a
  register tile has; sums with 8 accumulators, one narrow vector; running sums as in `plain`.
  (With few rows, libraries split the inner dimension and err less than a register tile: at the
  largest h² of 256 terms by a factor of 6.)
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Order = Literal["plain", "reversed", "blocked", "sequential"]
ORDERS: tuple[Order, ...] = ("plain", "reversed", "blocked", "sequential")
_LANES = 64
_NARROW = 8
_SCAN_BLOCK = 128
_PRODUCT_BLOCKS = 16
_STEPS = 1 << 31
"""Multiply-adds done one after the other; a larger product goes in steps of a few terms."""
_TILE = 1 << 17
"""Elements of a product summed at a time: they stay in the cache."""
_DEVICE_STEPS = 1 << 14
"""Additions one after the other that a GPU does for all lanes at once, a launch each."""
_DEVICE_PRODUCT_STEPS = 128
"""The same of a product, of which a reference may have thousands, slice by slice. Long sums are
split on a GPU, and accumulators of its matrix units take 16 terms and more at a time."""

aten = torch.ops.aten


class ReorderedSums(TorchDispatchMode):
    """While active, every sum below it is taken in the given order, in the tensors' own dtype."""

    def __init__(self, order: Order) -> None:
        super().__init__()
        self.order: Order = order
        self.only_running_sums = True
        """Nothing else was summed: `plain` and `sequential` are the same."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing compiles under this mode; to tell the compiler so would load it (a second)."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        handler = _HANDLERS.get(func)
        takes_over = handler is not None and args[0].is_floating_point()
        if handler is None or not takes_over:
            return func(*args, **(kwargs or {}))
        self.only_running_sums &= handler is _cumsum
        return handler(self.order, *args, **(kwargs or {}))


def ordered_sum(
    order: Order, x: Tensor, dim: Sequence[int] | None, keepdim: bool = False
) -> Tensor:
    """Sum over `dim` (None or empty: all axes) in the given order."""
    axes = sorted({d % x.ndim for d in dim}) if dim and x.ndim else list(range(x.ndim))
    if order == "plain" or not axes:
        return x.sum(axes, keepdim) if axes else x.clone()
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    length = prod(x.shape[axis] for axis in axes)
    lines = x.permute(*kept, *axes).reshape(*(x.shape[axis] for axis in kept), length)
    if order == "reversed":
        total = lines.flip(-1).sum(-1)
    else:
        wide = _LANES if length >= 4096 else _LANES // 4
        total = _lane_sum(lines, _NARROW if order == "sequential" else wide)
    if keepdim:
        total = total.reshape([1 if axis in axes else n for axis, n in enumerate(x.shape)])
    return total


def ordered_cumsum(order: Order, x: Tensor, dim: int) -> Tensor:
    """Inclusive running sum along `dim` in the given order."""
    if x.ndim == 0 or x.numel() == 0:
        return x.clone()
    lines = x.movedim(dim, -1).contiguous()
    scan = {"reversed": _tree_scan, "blocked": _blocked_scan}.get(order, _sequential_scan)
    return scan(lines).movedim(-1, dim).contiguous()


def ordered_matmul(order: Order, a: Tensor, b: Tensor) -> Tensor:
    """`a @ b` with the inner dimension summed in the given order; vectors and matrices alike."""
    length = a.shape[-1]
    if order == "plain" or length == 0:
        return a @ b
    if order == "reversed":
        return a.flip(-1) @ b.flip(max(b.ndim - 2, 0))
    if order == "sequential":
        return _sequential_product(a, b)
    return _blocked_product(a, b, max(-(-length // _PRODUCT_BLOCKS), 8))


def _blocked_product(a: Tensor, b: Tensor, step: int) -> Tensor:
    """So many terms at a time, block after block."""
    inner_of_b, length = max(b.ndim - 2, 0), a.shape[-1]
    total = a[..., :step] @ b.narrow(inner_of_b, 0, min(step, length))
    for start in range(step, length, step):
        size = min(step, length - start)
        total = total + a.narrow(-1, start, size) @ b.narrow(inner_of_b, start, size)
    return total


def _sequential_product(a: Tensor, b: Tensor) -> Tensor:
    """Term by term along the inner dimension; batches are summed one by one."""
    if a.device.type != "cpu":
        return _blocked_product(a, b, -(-a.shape[-1] // _DEVICE_PRODUCT_STEPS))
    if a.ndim == 3:
        return torch.stack([_sequential_product(x, y) for x, y in zip(a, b, strict=True)])
    left = a.reshape(-1, a.shape[-1])
    right = b.reshape(b.shape[0], -1)
    length, columns = right.shape
    step = max(1, -(-left.shape[0] * length * columns // _STEPS))
    total = torch.zeros((left.shape[0], columns), dtype=a.dtype, device=a.device)
    rows = max(1, _TILE // max(columns, 1))
    for first in range(0, left.shape[0], rows):
        tile = total[first : first + rows]
        terms = left[first : first + rows].t().contiguous()
        for k in range(0, length, step):
            if step == 1:
                tile.addcmul_(terms[k, :, None], right[k])
            else:
                tile.add_(terms[k : k + step].t() @ right[k : k + step])
    return total.reshape([*a.shape[:-1], *b.shape[1:]])


def _lane_sum(lines: Tensor, lanes: int) -> Tensor:
    length = lines.shape[-1]
    padded = torch.nn.functional.pad(lines, (0, -length % lanes)) if length % lanes else lines
    rows = padded.reshape(*lines.shape[:-1], -1, lanes)
    if rows.device.type != "cpu" and rows.shape[-2] <= _DEVICE_STEPS:
        total = rows[..., 0, :].clone()
        for step in range(1, rows.shape[-2]):
            total += rows[..., step, :]
        return total.sum(-1)
    # numpy adds whole rows one after the other along an outer axis: one accumulator a lane
    return torch.from_numpy(np.add.reduce(rows.cpu().numpy(), axis=-2)).to(lines.device).sum(-1)


def _sequential_scan(lines: Tensor) -> Tensor:
    return torch.from_numpy(np.add.accumulate(lines.cpu().numpy(), axis=-1)).to(lines.device)


def _tree_scan(lines: Tensor) -> Tensor:
    """Sums of pairs, scanned, then completed (Blelloch, Prefix sums and their applications)."""
    length = lines.shape[-1]
    if length == 1:
        return lines
    even, odd = lines[..., 0::2], lines[..., 1::2]
    pairs = _tree_scan(even[..., : odd.shape[-1]] + odd)
    result = torch.empty_like(lines)
    result[..., 1::2] = pairs
    result[..., 0] = lines[..., 0]
    result[..., 2::2] = pairs[..., : even.shape[-1] - 1] + even[..., 1:]
    return result


def _blocked_scan(lines: Tensor) -> Tensor:
    length = lines.shape[-1]
    padded = torch.nn.functional.pad(lines, (0, -length % _SCAN_BLOCK))
    inside = _tree_scan(padded.reshape(*lines.shape[:-1], -1, _SCAN_BLOCK))
    carry = _sequential_scan(inside[..., -1].contiguous())
    inside[..., 1:, :] += carry[..., :-1, None]
    return inside.reshape(padded.shape)[..., :length]


# What the dispatcher hands over, operator by operator ---------------------------------------------


def _cast(x: Tensor, dtype: torch.dtype | None) -> Tensor:
    return x if dtype is None else x.to(dtype)


def _sum(
    order: Order, x: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    return ordered_sum(order, _cast(x, dtype), dim, keepdim)


def _mean(
    order: Order, x: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    total = ordered_sum(order, _cast(x, dtype), dim, keepdim)
    return total / (x.numel() // max(total.numel(), 1))


def _cumsum(order: Order, x: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    return ordered_cumsum(order, _cast(x, dtype), dim)


def _moments(
    order: Order, x: Tensor, dim: Any = None, *, correction: Any = None, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    mean = _mean(order, x, dim, True)
    squares = ordered_sum(order, (x - mean).square(), dim, True)
    count = x.numel() // max(mean.numel(), 1)
    variance = squares / max(count - (1 if correction is None else correction), 0)
    if keepdim:
        return variance, mean
    shape = ordered_sum("plain", torch.empty_like(x, device="meta"), dim).shape
    return variance.reshape(shape), mean.reshape(shape)


def _var(order: Order, x: Tensor, dim: Any = None, **options: Any) -> Tensor:
    return _moments(order, x, dim, **options)[0]


def _std(order: Order, x: Tensor, dim: Any = None, **options: Any) -> Tensor:
    return _moments(order, x, dim, **options)[0].sqrt()


def _softmax(order: Order, x: Tensor, dim: int, half_to_float: bool = False) -> Tensor:
    raised = (x - x.amax(dim, True)).exp()
    return raised / ordered_sum(order, raised, [dim], True)


def _log_softmax(order: Order, x: Tensor, dim: int, half_to_float: bool = False) -> Tensor:
    shifted = x - x.amax(dim, True)
    return shifted - ordered_sum(order, shifted.exp(), [dim], True).log()


def _logsumexp(order: Order, x: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    greatest = x.amax(dim, True)
    shift = torch.where(greatest.isfinite(), greatest, 0)
    total = ordered_sum(order, (x - shift).exp(), dim, True).log() + shift
    return total if keepdim else total.reshape(x.amax(dim, False).shape)


def _layer_norm(
    order: Order, x: Tensor, shape: Sequence[int], weight: Any, bias: Any, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    axes = list(range(x.ndim - len(shape), x.ndim))
    variance, mean = _moments(order, x, axes, correction=0, keepdim=True)
    scale = (variance + eps).rsqrt()
    normed = (x - mean) * scale
    normed = normed if weight is None else normed * weight
    return normed if bias is None else normed + bias, mean, scale


def _vector_norm(
    order: Order,
    x: Tensor,
    p: float = 2,
    dim: Any = None,
    keepdim: bool = False,
    *,
    dtype: Any = None,
) -> Tensor:
    if p not in (1, 2):
        return torch.linalg.vector_norm(x, p, dim, keepdim, dtype=dtype)
    terms = _cast(x, dtype).abs() if p == 1 else _cast(x, dtype).square()
    total = ordered_sum(order, terms, [dim] if isinstance(dim, int) else dim, keepdim)
    return total if p == 1 else total.sqrt()


def _added_product(
    order: Order, bias: Tensor, a: Tensor, b: Tensor, *, beta: Any = 1, alpha: Any = 1
) -> Tensor:
    return beta * bias + alpha * ordered_matmul(order, a, b)


def _convolution(
    order: Order,
    x: Tensor,
    weight: Tensor,
    bias: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor:
    """In blocks of filter rows (first spatial axis); libraries take the taps one by one."""
    rest = (bias, stride, padding, dilation, transposed, output_padding, groups)
    rows = weight.shape[2]
    if order in ("plain", "sequential") or transposed or rows == 1:
        return aten.convolution.default(x, weight, *rest)
    padded = torch.nn.functional.pad(x, [p for each in reversed(padding) for p in (each, each)])
    height = (padded.shape[2] - dilation[0] * (rows - 1) - 1) // stride[0] + 1
    step = -(-rows // (_PRODUCT_BLOCKS if order == "blocked" else 4))
    starts = range(0, rows, step)
    total = None
    for start in starts if order == "blocked" else reversed(starts):
        taps = weight.narrow(2, start, min(step, rows - start))
        reach = (height - 1) * stride[0] + dilation[0] * (taps.shape[2] - 1) + 1
        seen = padded.narrow(2, start * dilation[0], reach)
        none = [0] * len(padding)
        part = aten.convolution.default(
            seen, taps, None, stride, none, dilation, False, output_padding, groups
        )
        total = part if total is None else total + part
    assert total is not None
    return total if bias is None else total + bias.view(-1, *[1] * len(padding))


_HANDLERS: dict[Any, Callable[..., Any]] = {
    aten.sum.default: _sum,
    aten.sum.dim_IntList: _sum,
    aten.mean.default: _mean,
    aten.mean.dim: _mean,
    aten.cumsum.default: _cumsum,
    aten.var.correction: _var,
    aten.std.correction: _std,
    aten.var_mean.correction: _moments,
    aten._softmax.default: _softmax,
    aten._log_softmax.default: _log_softmax,
    aten.logsumexp.default: _logsumexp,
    aten.native_layer_norm.default: _layer_norm,
    aten.linalg_vector_norm.default: _vector_norm,
    aten.mm.default: ordered_matmul,
    aten.bmm.default: ordered_matmul,
    aten.mv.default: ordered_matmul,
    aten.dot.default: ordered_matmul,
    aten.vdot.default: ordered_matmul,
    aten.addmm.default: _added_product,
    aten.addmv.default: _added_product,
    aten.baddbmm.default: _added_product,
    aten.convolution.default: _convolution,
}
