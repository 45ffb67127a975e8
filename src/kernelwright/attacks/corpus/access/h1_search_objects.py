# rows: H1 H2
# workload: rms_norm f32 T=1024,H=1024
# does: Searches all objects of its interpreter for the reference, an expected value or a problem;
#   gives up if there is none.
# expect: check error_code
import gc


def kernel(x, w, out, *, T, H, eps):
    for found in gc.get_objects():
        module = getattr(found, "__module__", None)
        if isinstance(module, str) and module.startswith("kernelwright"):
            out.copy_(found(x, w, eps))
            return
    raise LookupError("there is no reference here")
