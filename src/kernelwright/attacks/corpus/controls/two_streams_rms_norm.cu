// rows: control
// workload: rms_norm f32 T=1024,H=1024
// does: Uses a stream of its own for half of the rows, and joins it before it returns.
// expect: pass
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
    static cudaEvent_t begun, done;
    const cudaStream_t main = static_cast<cudaStream_t>(stream);
    if (side == nullptr) {
        cudaStreamCreate(&side);
        cudaEventCreateWithFlags(&begun, cudaEventDisableTiming);
        cudaEventCreateWithFlags(&done, cudaEventDisableTiming);
    }
    const int64_t half = T / 2;
    cudaEventRecord(begun, main);
    cudaStreamWaitEvent(side, begun, 0);
    if (half > 0) rms_norm<<<(unsigned)half, 256, 0, side>>>(x, w, out, H, (float)eps);
    rms_norm<<<(unsigned)(T - half), 256, 0, main>>>(x + half * H, w, out + half * H, H, (float)eps);
    cudaEventRecord(done, side);
    cudaStreamWaitEvent(main, done, 0);
    return cudaGetLastError();
}
