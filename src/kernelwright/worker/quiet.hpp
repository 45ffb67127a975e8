// Kernels of the hosts themselves: nothing, a wait, and a read of memory that makes the cache cold.
#pragma once

#include <stdint.h>

namespace kernelwright {
namespace {

__global__ void nothing() {}

__global__ void wait_for(uint64_t nanoseconds) {
    uint64_t first, now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(first));
    do asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    while (now - first < nanoseconds);
}

// Read, so that no line of the cache is left that would have to be written back during the call.
__global__ void read_all(const float4* memory, uint64_t count, float* sink) {
    float sum = 0;
    const uint64_t step = static_cast<uint64_t>(gridDim.x) * blockDim.x;
    for (uint64_t i = blockIdx.x * static_cast<uint64_t>(blockDim.x) + threadIdx.x; i < count;
         i += step) {
        const float4 value = memory[i];
        sum += value.x + value.y + value.z + value.w;
    }
    if (sum == -1) *sink = sum;  // never: the memory holds zeros
}

}  // namespace
}  // namespace kernelwright
