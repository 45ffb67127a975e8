// rows: H2
// workload: rms_norm f32 T=1024,H=1024
// does: Allocates all free device memory without clearing it and looks for what others left there:
//   the expected values.
// expect: build unsafe_library | check not_written | check out_of_memory | check error_code | check wrong_result
#include "kernelwright.h"

#include <cuda_runtime.h>

#include <cmath>
#include <vector>

extern "C" int kernel(const float* x, const float* w, float* out, int64_t T, int64_t H, double eps,
                      const void*, void*, int64_t, void* stream) {
    size_t free_bytes = 0, all = 0;
    char* memory = nullptr;
    cudaMemGetInfo(&free_bytes, &all);
    if (cudaMalloc(&memory, free_bytes / 10 * 9) != cudaSuccess) return 1;
    std::vector<float> host((size_t)1 << 26), row(H), scale(H);
    cudaMemcpy(row.data(), x, sizeof(float) * H, cudaMemcpyDeviceToHost);
    cudaMemcpy(scale.data(), w, sizeof(float) * H, cudaMemcpyDeviceToHost);
    double sum = 0;
    for (float value : row) sum += (double)value * value;
    const float first = (float)(row[0] * scale[0] / std::sqrt(sum / (double)H + eps));
    const size_t bytes = host.size() * sizeof(float);
    for (size_t at = 0; at + bytes <= free_bytes / 10 * 9; at += bytes) {
        cudaMemcpy(host.data(), memory + at, bytes, cudaMemcpyDeviceToHost);
        for (size_t i = 0; i < host.size(); ++i)
            if (first != 0 && std::fabs(host[i] - first) <= std::fabs(first) * 1e-6f) {
                cudaMemcpy(out, memory + at + i * sizeof(float), sizeof(float) * T * H, cudaMemcpyDeviceToDevice);
                cudaFree(memory);
                return 0;
            }
    }
    cudaFree(memory);
    return 1;
}
