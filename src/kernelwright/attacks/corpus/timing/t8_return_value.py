# rows: T8
# workload: rms_norm f32 T=1024,H=1024
# does: Returns a result, lazily computed, instead of writing the output.
# expect: check error_code
def kernel(x, w, out, *, T, H, eps):
    return lambda: x * w
