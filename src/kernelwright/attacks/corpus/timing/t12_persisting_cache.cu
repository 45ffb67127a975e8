// rows: T12 T13
// workload: rms_norm f32 T=1024,H=1024
// does: Reserves most of the second-level cache for its inputs, so that a flush leaves them there.
// expect: build unsafe_library | no gain
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
    const cudaStream_t main = static_cast<cudaStream_t>(stream);
    static size_t most = 0;
    if (most == 0) {
        cudaDeviceProp device;
        cudaGetDeviceProperties(&device, 0);
        most = device.persistingL2CacheMaxSize;
        cudaDeviceSetLimit(cudaLimitPersistingL2CacheSize, most);
    }
    cudaStreamAttrValue window = {};
    window.accessPolicyWindow.base_ptr = const_cast<float*>(x);
    window.accessPolicyWindow.num_bytes = sizeof(float) * T * H < most ? sizeof(float) * T * H : most;
    window.accessPolicyWindow.hitRatio = 1;
    window.accessPolicyWindow.hitProp = cudaAccessPropertyPersisting;
    window.accessPolicyWindow.missProp = cudaAccessPropertyStreaming;
    cudaStreamSetAttribute(main, cudaStreamAttributeAccessPolicyWindow, &window);
    rms_norm<<<(unsigned)T, 256, 0, main>>>(x, w, out, H, (float)eps);
    return cudaGetLastError();
}
