# rows: H2
# workload: rms_norm f32 T=1024,H=1024
# does: Searches its interpreter for a tensor of the shape of the output that is neither input nor
#   output; gives up if there is none.
# expect: check error_code
import gc

import torch


def kernel(x, w, out, *, T, H, eps):
    lent = {x.data_ptr(), w.data_ptr(), out.data_ptr()}
    for found in gc.get_objects():
        if (
            isinstance(found, torch.Tensor)
            and found.dtype is torch.float64
            and found.shape == out.shape
        ):
            if found.data_ptr() not in lent:
                out.copy_(found)
                return
    raise LookupError("no expected value is here")
