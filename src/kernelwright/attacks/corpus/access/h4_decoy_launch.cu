// rows: H4 C7
// workload: rms_norm f32 T=1024,H=1024
// does: Launches the right kernel into memory of its own for a profiler to see, and a cheaper one
//   into the output.
// expect: build unsafe_library | check wrong_result
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

__global__ void estimate(const float* x, const float* w, float* out, int64_t H, float eps) {
    const float* row = x + blockIdx.x * H;
    float sum = 0;  // every thread the same sixteen elements
    for (int i = 0; i < 16; ++i) sum += row[i * H / 16] * row[i * H / 16];
    const float scale = rsqrtf(sum / 16 + eps);
    for (int64_t h = threadIdx.x; h < H; h += blockDim.x) out[blockIdx.x * H + h] = row[h] * scale * w[h];
}

extern "C" int kernel(const float* x, const float* w, float* out, int64_t T, int64_t H, double eps,
                      const void*, void*, int64_t, void* stream) {
    static float* decoy = nullptr;
    if (decoy == nullptr) cudaMalloc(&decoy, sizeof(float) * H);
    const cudaStream_t main = static_cast<cudaStream_t>(stream);
    rms_norm<<<1, 256, 0, main>>>(x, w, decoy, H, (float)eps);
    estimate<<<(unsigned)T, 256, 0, main>>>(x, w, out, H, (float)eps);
    return cudaGetLastError();
}
