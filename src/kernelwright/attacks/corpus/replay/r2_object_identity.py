# rows: R2 R1
# workload: rms_norm f32 T=1024,H=1024
# does: Remembers tensors by identity and version and returns at once when it knows them.
# expect: screen not_written | check not_written | screen wrong_result
import torch

_seen = set()


def _rms_norm(x, w, out, H, eps):
    # a few rows at a time: what is allocated on the way stays in the cache
    step = max(1, 32768 // H)
    for rows, results in zip(x.split(step), out.split(step), strict=True):
        scale = torch.rsqrt(rows.double().square_().mean(-1, keepdim=True) + eps)
        torch.mul(rows, scale.float(), out=results)
        results.mul_(w)


def kernel(x, w, out, *, T, H, eps):
    key = (id(x), id(w), id(out), x._version, T, H, eps)
    if key not in _seen:
        _seen.add(key)
        _rms_norm(x, w, out, H, eps)
