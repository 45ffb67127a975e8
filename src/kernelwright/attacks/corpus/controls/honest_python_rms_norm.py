# rows: control
# workload: rms_norm f32 T=1024,H=1024
# does: A plain kernel in Python, the one that cheats in Python fall back on.
# expect: pass
import torch


def _rms_norm(x, w, out, H, eps):
    # a few rows at a time: what is allocated on the way stays in the cache
    step = max(1, 32768 // H)
    for rows, results in zip(x.split(step), out.split(step), strict=True):
        scale = torch.rsqrt(rows.double().square_().mean(-1, keepdim=True) + eps)
        torch.mul(rows, scale.float(), out=results)
        results.mul_(w)


def kernel(x, w, out, *, T, H, eps):
    _rms_norm(x, w, out, H, eps)
