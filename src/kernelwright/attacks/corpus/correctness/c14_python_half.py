# rows: C14
# workload: rms_norm f32 T=1024,H=1024
# does: Computes in half precision what is asked for in single.
# expect: check wrong_result | check not_written
import torch


def kernel(x, w, out, *, T, H, eps):
    low = x.half()
    out.copy_(low * torch.rsqrt(low.square().mean(-1, keepdim=True) + eps) * w.half())
