// rows: T1 T7
// workload: rms_norm f32 T=1024,H=1024
// does: Launches on a stream of its own that nobody waits for, so that events on the given one see
//   nothing.
// expect: build unsafe_library | check not_written | screen not_written | screen clock_disagrees | screen impossible_time
#include "kernelwright.h"

#include <cuda_runtime.h>

__global__ void rms_norm(const float* x, const float* w, float* out, int64_t H, float eps) {
    __shared__ float sums[256];
    const float* row = x + blockIdx.x * H;
    float sum = 0;
    for (int64_t h = threadIdx.x; h < H; h += blockDim.x) sum += row[h] * row[h];
    sums[threadIdx.x] = sum;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    const float scale = rsqrtf(sums[0] / (float)H + eps);
    for (int64_t h = threadIdx.x; h < H; h += blockDim.x) out[blockIdx.x * H + h] = row[h] * scale * w[h];
}

extern "C" int kernel(const float* x, const float* w, float* out, int64_t T, int64_t H, double eps,
                      const void*, void*, int64_t, void* stream) {
    static cudaStream_t side = nullptr;
    if (side == nullptr) cudaStreamCreateWithFlags(&side, cudaStreamNonBlocking);
    rms_norm<<<(unsigned)T, 256, 0, side>>>(x, w, out, H, (float)eps);
    return cudaGetLastError();
}
