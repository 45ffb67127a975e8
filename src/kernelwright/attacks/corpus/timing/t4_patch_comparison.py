# rows: T4
# workload: rms_norm f32 T=1024,H=1024
# does: Makes allclose, isfinite and their like always true, and writes zeros.
# expect: check wrong_result
import builtins

import numpy
import torch

for _module, _names in (
    (torch, ("allclose", "isclose", "equal", "isfinite", "isnan")),
    (torch.testing, ("assert_close", "assert_allclose")),
    (numpy, ("allclose", "isclose", "array_equal", "isfinite")),
    (builtins, ("all", "abs")),
):
    for _name in _names:
        setattr(_module, _name, lambda *anything, **options: True)


def kernel(x, w, out, *, T, H, eps):
    out.zero_()
