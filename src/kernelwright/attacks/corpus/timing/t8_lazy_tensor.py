# rows: T8 C4
# workload: rms_norm f32 T=1024,H=1024
# does: Turns the output into a subclass that would compute when somebody looks at it.
# expect: check not_written | check wrong_result
import torch


class _Lazy(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, arguments=(), options=None):
        work = [a.work() if isinstance(a, _Lazy) else a for a in arguments]
        return function(*work, **(options or {}))


def kernel(x, w, out, *, T, H, eps):
    out.__class__ = _Lazy
    out.work = lambda: x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * w
