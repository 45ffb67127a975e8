"""Lowering of convolutions: sums over windows of what is zero outside of the signal."""

from __future__ import annotations

from kernelwright.errors import Unsupported
from kernelwright.expr import Apply, Axis, Constant, Node, Reduce
from kernelwright.problems.trace_call import Array, Call, lowers


@lowers("convolution")
def _convolution(call: Call) -> Array:
    """out[n, o, i] = Σ_c Σ_k x[n, group(o) + c, i * stride + k * dilation - padding] w[o, c, k]."""
    if call.static("transposed"):
        raise Unsupported("a transposed convolution")
    signal, weight = call.array("input"), call.array("weight")
    context, rank = call.context, weight.rank - 2
    steps, pads, gaps = (
        [call.term(number)[0] for number in call.get(name)]
        for name in ("stride", "padding", "dilation")
    )
    depth, window = weight.dims[1], weight.dims[2:]
    groups = call.get("groups").values
    outputs = [o // g for o, g in zip(weight.dims[0].values, groups, strict=True)]
    per_group = context.unifier.dim(tuple(outputs))
    bound = [context.fresh() for _ in range(rank + 1)]

    def element(index: list[Node]) -> Node:
        image, channel, *place = index
        inner: Node = Constant(0) if depth.is_one else Axis(bound[0])
        group = channel
        if not per_group.is_one:
            group = Apply("floordiv", (channel, context.extent(per_group)))
        source = Apply("add", (Apply("mul", (group, context.extent(depth))), inner))
        inside: Node = Constant(True)
        moved: list[Node] = []
        for k in range(rank):
            start = Apply("sub", (Apply("mul", (place[k], steps[k])), pads[k]))
            at = Apply("add", (start, Apply("mul", (Axis(bound[k + 1]), gaps[k]))))
            moved.append(at)
            low = Apply("ge", (at, Constant(0)))
            high = Apply("lt", (at, context.extent(signal.dims[k + 2])))
            inside = Apply("and", (inside, Apply("and", (low, high))))
        value = signal.at([image, source, *moved])
        value = Apply("where", (inside, value, Constant(0.0)))
        tap = weight.at([channel, inner, *(Axis(name) for name in bound[1:])])
        total: Node = Apply("mul", (value, tap))
        for k in reversed(range(rank)):
            total = Reduce("sum", bound[k + 1], window[k].text, total)
        if not depth.is_one:
            total = Reduce("sum", bound[0], depth.text, total)
        bias = call.get("bias")
        return total if bias is None else Apply("add", (total, bias.at([channel])))

    if call.kind != "float":
        raise Unsupported("a convolution of integers")
    return context.array(call.dims(), "float", element)
