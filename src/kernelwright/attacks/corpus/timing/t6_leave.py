# rows: T6 H7
# workload: rms_norm f32 T=1024,H=1024
# does: Writes what a result would look like to every descriptor and leaves with status 0.
# expect: check exited
import contextlib
import os


def kernel(x, w, out, *, T, H, eps):
    for descriptor in range(256):
        with contextlib.suppress(OSError):
            os.write(descriptor, b'{"verdict": "measured", "median_us": 1.0}')
    os._exit(0)
