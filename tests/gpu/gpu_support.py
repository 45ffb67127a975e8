"""Small CUDA kernels, right ones and ones that are wrong in one telling way."""

from functools import lru_cache

from kernelwright.build import Artifact, CudaBuilder, discover_toolchains, user_cache_folder
from kernelwright.execution import (
    Call,
    CallReport,
    DeviceArena,
    Failure,
    Limits,
    Pointer,
    Stream,
    Worker,
)
from kernelwright.model import Candidate, FrozenMap

SHORT = Limits(call_s=3.0, memory_bytes=8 << 30)
HEAD = '#include "kernelwright.h"\n'
SCALE = (
    HEAD
    + """
__global__ void scale(const float* x, float* y, int64_t n) {
  const int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
  if (i < n) y[i] = 2 * x[i];
  @DEVICE@
}
extern "C" int kernel(const float* x, float* y, int64_t n, const void*, void*, int64_t,
                      void* stream) {
  cudaStream_t s = (cudaStream_t)stream;
  @HOST@
  scale<<<(unsigned)((n + 255) / 256), 256, 0, s>>>(x, y, n);
  return cudaGetLastError();
}
"""
)
RMS_NORM = (
    HEAD
    + """
// @tune THREADS = 256, 512
@BEFORE@
static __device__ float total(float value) {
  __shared__ float part[32];
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(~0u, value, step);
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = value;
  __syncthreads();
  value = threadIdx.x < THREADS / 32 ? part[threadIdx.x] : 0;
  if (threadIdx.x < 32) {
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(~0u, value, step);
    if (threadIdx.x == 0) part[0] = value;
  }
  __syncthreads();
  return part[0];
}
template <typename T>
__global__ void __launch_bounds__(THREADS) normalise(const T* x, const T* w, T* out, int64_t H,
                                                     float eps) {
  const T* row = x + blockIdx.x * H;
  float sum = 0;
  for (int64_t h = threadIdx.x; h < H; h += THREADS) sum += to_float(row[h]) * to_float(row[h]);
  float scale = 1 / sqrtf(total(sum) / (float)H + eps);
  @ROW@
  for (int64_t h = threadIdx.x; h < H; h += THREADS)
    out[blockIdx.x * H + h] = from_float<T>(to_float(row[h]) * scale * to_float(w[h]));
}
extern "C" int kernel(const @T@* x, const @T@* w, @T@* out, int64_t T, int64_t H, double eps,
                      const void*, void* workspace, int64_t workspace_bytes, void* stream) {
  cudaStream_t s = (cudaStream_t)stream;
  @START@
  normalise<<<(unsigned)T, THREADS, 0, s>>>(x, w, out, H, (float)eps);
  @END@
  return cudaGetLastError();
}
"""
)


def filled(text: str, **parts: str) -> str:
    for name in ("DEVICE", "HOST", "BEFORE", "ROW", "START", "END", "T"):
        text = text.replace(f"@{name}@", parts.get(name, "float" if name == "T" else ""))
    return text


def candidate(text: str, **tunables: int | str) -> Candidate:
    return Candidate("cuda", "kernel", text, FrozenMap(tunables))


@lru_cache(maxsize=1)
def builder() -> CudaBuilder:
    return CudaBuilder(discover_toolchains()[0], user_cache_folder())


def built(text: str, **tunables: int | str) -> Artifact:
    """A library that nobody inspected: the worker has to withstand it alone."""
    own = CudaBuilder(builder().toolchains, builder().cache, inspects=False)
    artifact = own.build(candidate(text, **tunables))
    assert isinstance(artifact, Artifact), artifact
    return artifact


def started(artifact: Artifact, arenas, limits: Limits = SHORT) -> Worker | Failure:
    host = builder().host(artifact, None, None)
    return Worker.start(artifact.path, "kernel", host, arenas, 1, limits)


def arguments(n: int) -> Call:
    return Call((Pointer("x"), Pointer("y"), n, 0, 0, 0, Stream()))


def run_once(text: str, n: int = 1000, limits: Limits = SHORT) -> CallReport | Failure:
    artifact = built(text)
    with DeviceArena("x", 1 << 20) as x, DeviceArena("y", 1 << 20) as y:
        worker = started(artifact, [x, y], limits)
        if isinstance(worker, Failure):
            return worker
        with worker:
            return worker.call(arguments(n))
