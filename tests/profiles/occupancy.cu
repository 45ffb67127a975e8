// Prints what the runtime says about blocks on a multiprocessor, as one JSON document:
// limits of the device, then rows of registers, threads, shared bytes (static and dynamic), blocks.

#include <cuda_runtime.h>
#include <stdio.h>

template <int COUNT>
__global__ void keeps(float* x) {
    float part[COUNT];
#pragma unroll
    for (int k = 0; k < COUNT; ++k) part[k] = x[threadIdx.x + 1024 * k];
    __syncthreads();
#pragma unroll
    for (int k = 0; k < COUNT; ++k) x[threadIdx.x * COUNT + (k * 7 + 1) % COUNT] = part[k];
}

int limit(cudaDeviceAttr which) {
    int value = 0;
    cudaDeviceGetAttribute(&value, which, 0);
    return value;
}

bool first = true;

template <int COUNT>
void rows() {
    cudaFuncAttributes facts;
    cudaFuncSetAttribute(keeps<COUNT>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         limit(cudaDevAttrMaxSharedMemoryPerBlockOptin));
    cudaFuncGetAttributes(&facts, keeps<COUNT>);
    for (int threads : {32, 64, 96, 128, 256, 512, 768, 1024})
        for (int shared : {0, 1000, 8192, 20000, 49152, 100000, 200000}) {
            int blocks = 0;
            if (cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, keeps<COUNT>, threads,
                                                              shared) != cudaSuccess)
                continue;
            printf("%s[%d, %d, %d, %d]", first ? "" : ",\n", facts.numRegs, threads, shared, blocks);
            first = false;
        }
}

int main() {
    printf("{\"capability\": [%d, %d], \"blocks\": %d, \"threads\": %d, \"registers\": %d, "
           "\"shared\": %d, \"reserved\": %d,\n\"rows\": [\n",
           limit(cudaDevAttrComputeCapabilityMajor), limit(cudaDevAttrComputeCapabilityMinor),
           limit(cudaDevAttrMaxBlocksPerMultiprocessor),
           limit(cudaDevAttrMaxThreadsPerMultiProcessor),
           limit(cudaDevAttrMaxRegistersPerMultiprocessor),
           limit(cudaDevAttrMaxSharedMemoryPerMultiprocessor),
           limit(cudaDevAttrReservedSharedMemoryPerBlock));
    rows<4>(), rows<20>(), rows<32>(), rows<56>(), rows<90>(), rows<150>(), rows<220>();
    printf("]}\n");
}
