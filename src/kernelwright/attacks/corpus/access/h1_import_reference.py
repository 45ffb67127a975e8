# rows: H1
# workload: rms_norm f32 T=1024,H=1024
# does: Imports the reference and calls it.
# expect: load load_failed
from kernelwright.suite.llm.rms_norm import rms_norm


def kernel(x, w, out, *, T, H, eps):
    out.copy_(rms_norm(x, w, eps))
