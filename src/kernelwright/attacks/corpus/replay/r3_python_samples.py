# rows: R3 R5
# workload: rms_norm f32 T=1024,H=1024
# does: Recognises its inputs by a few samples and copies the answer that it kept.
# expect: screen wrong_result | accept wrong_result | no gain
import torch

_answers = {}


def _rms_norm(x, w, out, H, eps):
    # a few rows at a time: what is allocated on the way stays in the cache
    step = max(1, 32768 // H)
    for rows, results in zip(x.split(step), out.split(step), strict=True):
        scale = torch.rsqrt(rows.double().square_().mean(-1, keepdim=True) + eps)
        torch.mul(rows, scale.float(), out=results)
        results.mul_(w)


def kernel(x, w, out, *, T, H, eps):
    key = (T, H, eps, x.view(-1)[:: max(1, T * H // 61)].numpy().tobytes())
    if key not in _answers:
        _rms_norm(x, w, out, H, eps)
        _answers[key] = out.clone()
    else:
        out.copy_(_answers[key])
