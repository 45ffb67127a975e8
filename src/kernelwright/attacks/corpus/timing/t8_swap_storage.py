# rows: T8 C4
# workload: rms_norm f32 T=1024,H=1024
# does: Lets the output tensor share the storage of an input instead of writing it.
# expect: check not_written | check wrong_result
def kernel(x, w, out, *, T, H, eps):
    out.set_(x)
