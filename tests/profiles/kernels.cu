// Small kernels, each slow for one reason: what tools say of them is kept beside this file.
// `record.sh` makes it anew on a machine with an NVIDIA GPU.

#include <cuda_runtime.h>
#include <stdint.h>

#define ENTRY(name)                                                                         \
    extern "C" int name(const float* x, float* y, int64_t n, const void*, void* workspace, \
                        int64_t, void* s)
#define STREAM (cudaStream_t) s

// Fine: 16 bytes a thread, enough threads.
__global__ void copies(const float4* x, float4* y, int64_t n) {
    const int64_t i = blockIdx.x * (int64_t)256 + threadIdx.x;
    if (i < n) y[i] = x[i];
}
ENTRY(copy) {
    copies<<<(unsigned)(n / 1024), 256, 0, STREAM>>>((const float4*)x, (float4*)y, n / 4);
    return cudaGetLastError();
}

// Neighbouring threads read far from each other.
__global__ void strides(const float* x, float* y, int64_t n) {
    const int64_t i = blockIdx.x * (int64_t)256 + threadIdx.x;
    y[i] = x[(i * 32 + i / (n / 32)) & (n - 1)];
}
ENTRY(stride) {
    strides<<<(unsigned)(n / 256), 256, 0, STREAM>>>(x, y, n);
    return cudaGetLastError();
}

// A tile of shared memory without padding.
__global__ void banks(const float* x, float* y, int64_t n) {
    __shared__ float tile[32][32];
    const int64_t base = blockIdx.x * (int64_t)1024;
    const int row = threadIdx.x / 32, lane = threadIdx.x % 32;
    tile[row][lane] = x[base + threadIdx.x];
    __syncthreads();
    float sum = 0;
#pragma unroll 4
    for (int k = 0; k < 64; ++k) sum += tile[lane][(row + k) & 31];
    y[base + threadIdx.x] = sum;
}
ENTRY(bank) {
    banks<<<(unsigned)(n / 1024), 1024, 0, STREAM>>>(x, y, n);
    return cudaGetLastError();
}

// Each load waits for the one before.
__global__ void chains(const float* x, float* y, int64_t n) {
    int64_t at = blockIdx.x * (int64_t)32 + threadIdx.x;
    float sum = 0;
#pragma unroll 1
    for (int k = 0; k < 200; ++k) {
        const float value = x[at];
        sum += value;
        at = (at + 1056 * 32 + (int64_t)(value * 0.0f)) & (n - 1);
    }
    y[blockIdx.x * 32 + threadIdx.x] = sum;
}
ENTRY(chain) {
    chains<<<1056, 32, 0, STREAM>>>(x, y, n);
    return cudaGetLastError();
}

// Eight blocks on a machine that has room for hundreds.
__global__ void shares(const float4* x, float4* y, int64_t n) {
#pragma unroll 1
    for (int64_t i = blockIdx.x * (int64_t)512 + threadIdx.x; i < n; i += 8 * 512) y[i] = x[i];
}
ENTRY(few) {
    shares<<<8, 512, 0, STREAM>>>((const float4*)x, (float4*)y, n / 4);
    return cudaGetLastError();
}

// More values than registers.
__global__ void __launch_bounds__(1024, 2) overflows(const float* x, float* y, int64_t n) {
    float part[48];
    const int64_t base = (blockIdx.x * (int64_t)1024 + threadIdx.x) & (n - 1);
#pragma unroll
    for (int k = 0; k < 48; ++k) part[k] = x[(base + 1024 * k) & (n - 1)];
#pragma unroll 1
    for (int turn = 0; turn < 16; ++turn)
#pragma unroll
        for (int k = 0; k < 48; ++k) part[k] = part[k] * part[(k * 7 + 1) % 48] + 0.5f;
    float sum = 0;
#pragma unroll
    for (int k = 0; k < 48; ++k) sum += part[k];
    y[base] = sum;
}
ENTRY(spill) {
    overflows<<<(unsigned)(n / 1024), 1024, 0, STREAM>>>(x, y, n);
    return cudaGetLastError();
}

// A barrier after every few instructions.
__global__ void barriers(const float* x, float* y, int64_t n) {
    __shared__ float part[1024];
    const int64_t i = blockIdx.x * (int64_t)1024 + threadIdx.x;
    float value = x[i];
#pragma unroll 1
    for (int k = 0; k < 200; ++k) {
        part[threadIdx.x] = value;
        __syncthreads();
        value += part[(threadIdx.x + 32 * k) & 1023];
        __syncthreads();
    }
    y[i] = value;
}
ENTRY(barrier) {
    barriers<<<(unsigned)(n / 1024), 1024, 0, STREAM>>>(x, y, n);
    return cudaGetLastError();
}

// All threads add to sixteen numbers.
__global__ void adds(const float* x, float* y, int64_t n) {
    const int64_t i = blockIdx.x * (int64_t)256 + threadIdx.x;
    atomicAdd(&y[i & 15], x[i]);
}
ENTRY(atomic) {
    adds<<<(unsigned)(n / 256), 256, 0, STREAM>>>(x, y, n);
    return cudaGetLastError();
}

// Nothing but multiply-adds.
__global__ void multiplies(const float* x, float* y, int64_t n) {
    const int64_t i = blockIdx.x * (int64_t)256 + threadIdx.x;
    float a = x[i], b = a + 1, c = a + 2, d = a + 3;
#pragma unroll 1
    for (int k = 0; k < 64; ++k) {
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            a = a * a + 0.25f;
            b = b * b + 0.25f;
            c = c * c + 0.25f;
            d = d * d + 0.25f;
        }
    }
    y[i] = a + b + c + d;
}
ENTRY(multiply) {
    multiplies<<<(unsigned)(n / 256), 256, 0, STREAM>>>(x, y, n);
    return cudaGetLastError();
}

// Sixteen launches for next to no work.
__global__ void bits(const float* x, float* y, int64_t from) {
    y[from + threadIdx.x] = x[from + threadIdx.x];
}
ENTRY(launch) {
    for (int k = 0; k < 16; ++k) bits<<<1, 256, 0, STREAM>>>(x, y, 256 * k);
    return cudaGetLastError();
}

// Wrong in ways that single calls seldom show --------------------------------------------------------

__global__ void reads_on(const float* x, float* y, int64_t n) {
    const int64_t i = blockIdx.x * (int64_t)256 + threadIdx.x;
    if (i < n) y[i] = x[i] + 0 * x[i + 1];
}
ENTRY(past_the_end) {
    reads_on<<<(unsigned)((n + 255) / 256), 256, 0, STREAM>>>(x, y, n);
    return cudaGetLastError();
}

__global__ void turns(const float* x, float* y, int64_t n) {
    __shared__ float part[256];
    const int64_t i = blockIdx.x * (int64_t)256 + threadIdx.x;
    part[threadIdx.x] = x[i];
    y[i] = part[255 - threadIdx.x];  // a barrier is missing
}
ENTRY(race) {
    turns<<<(unsigned)(n / 256), 256, 0, STREAM>>>(x, y, n);
    return cudaGetLastError();
}

__global__ void sums(const float* x, float* y, const float* before, int64_t n) {
    const int64_t i = blockIdx.x * (int64_t)256 + threadIdx.x;
    if (i < n) y[i] = x[i] + before[i];
}
extern "C" int64_t uninitialised_workspace(int64_t n) { return 4 * n; }
ENTRY(uninitialised) {
    sums<<<(unsigned)((n + 255) / 256), 256, 0, STREAM>>>(x, y, (const float*)workspace, n);
    return cudaGetLastError();
}
