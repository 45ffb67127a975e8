# rows: T7 T1
# workload: rms_norm f32 T=1024,H=1024
# does: Starts a thread that does the work and returns.
# expect: check not_written | check wrong_result | check stray_threads
import threading

import torch


def _rms_norm(x, w, out, H, eps):
    # a few rows at a time: what is allocated on the way stays in the cache
    step = max(1, 32768 // H)
    for rows, results in zip(x.split(step), out.split(step), strict=True):
        scale = torch.rsqrt(rows.double().square_().mean(-1, keepdim=True) + eps)
        torch.mul(rows, scale.float(), out=results)
        results.mul_(w)


def kernel(x, w, out, *, T, H, eps):
    threading.Thread(target=_rms_norm, args=(x, w, out, H, eps)).start()
