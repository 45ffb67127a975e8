// What an NVIDIA GPU reaches: a program that prints one JSON object and ends.
//
//   read_gbs write_gbs copy_gbs    streams over 2 GiB (copy: bytes read plus written), best of 10
//   fma_gflops                     independent fp32 multiply-adds on every unit
//   bf16_gflops                    matrix instructions on bf16 operands summed in fp32, operands
//                                  random; wgmma on Hopper, mma elsewhere
//   launch_us                      between the starts of empty kernels in one stream
//
// A probe that cannot run prints 0 for itself.

#include <cuda_runtime.h>
#include <stdint.h>
#include <stdio.h>

#include <algorithm>

namespace {

constexpr uint64_t kBytes = UINT64_C(2) << 30;
constexpr int kThreads = 512;
cudaEvent_t first, last;

__device__ uint64_t first_index() { return blockIdx.x * static_cast<uint64_t>(blockDim.x) + threadIdx.x; }
__device__ uint64_t stride() { return static_cast<uint64_t>(gridDim.x) * blockDim.x; }

__global__ void fill(uint32_t* memory, uint64_t count) {
    for (uint64_t i = first_index(); i < count; i += stride())
        memory[i] = 0x3f803f80u ^ (static_cast<uint32_t>(i * 2654435761u) & 0x807f807fu);
}

__global__ void read(const float4* from, float4*, uint64_t count, float* sink) {
    float sum = 0;
    const uint64_t step = stride();
    uint64_t i = first_index();
    for (; i + 3 * step < count; i += 4 * step) {
        const float4 a = from[i], b = from[i + step], c = from[i + 2 * step], d = from[i + 3 * step];
        sum += a.x + a.y + a.z + a.w + b.x + b.y + b.z + b.w + c.x + c.y + c.z + c.w + d.x + d.y +
               d.z + d.w;
    }
    for (; i < count; i += step) sum += from[i].x;
    if (sum == 12345.678f) *sink = sum;
}

// One tile of kTile vectors a thread, so that nothing is addressed but what is moved.
constexpr int kTile = 4;

__global__ void write(const float4*, float4* to, uint64_t, float*) {
    const uint64_t base = blockIdx.x * static_cast<uint64_t>(blockDim.x * kTile) + threadIdx.x;
#pragma unroll
    for (int k = 0; k < kTile; ++k) __stcs(to + base + k * blockDim.x, make_float4(1, 2, 3, 4));
}

__global__ void copy(const float4* from, float4* to, uint64_t, float*) {
    const uint64_t base = blockIdx.x * static_cast<uint64_t>(blockDim.x * kTile) + threadIdx.x;
    float4 values[kTile];
#pragma unroll
    for (int k = 0; k < kTile; ++k) values[k] = __ldcs(from + base + k * blockDim.x);
#pragma unroll
    for (int k = 0; k < kTile; ++k) __stcs(to + base + k * blockDim.x, values[k]);
}

__global__ void plain_copy(const float4* from, float4* to, uint64_t, float*) {
    const uint64_t base = blockIdx.x * static_cast<uint64_t>(blockDim.x * kTile) + threadIdx.x;
    float4 values[kTile];
#pragma unroll
    for (int k = 0; k < kTile; ++k) values[k] = from[base + k * blockDim.x];
#pragma unroll
    for (int k = 0; k < kTile; ++k) to[base + k * blockDim.x] = values[k];
}

__global__ void plain_write(const float4*, float4* to, uint64_t, float*) {
    const uint64_t base = blockIdx.x * static_cast<uint64_t>(blockDim.x * kTile) + threadIdx.x;
#pragma unroll
    for (int k = 0; k < kTile; ++k) to[base + k * blockDim.x] = make_float4(1, 2, 3, 4);
}

constexpr int kFmaSteps = 1 << 14, kChains = 16;
__global__ void fma_kernel(float* sink, float a, float b) {
    float x[kChains];
    for (int k = 0; k < kChains; ++k) x[k] = threadIdx.x + k;
    for (int i = 0; i < kFmaSteps; ++i)
#pragma unroll
        for (int k = 0; k < kChains; ++k) x[k] = x[k] * a + b;
    float sum = 0;
    for (int k = 0; k < kChains; ++k) sum += x[k];
    if (sum == 12345.678f) *sink = sum;
}

constexpr int kMmaSteps = 1 << 12;
constexpr int kMmaThreads = 128;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
// One m64n128k16 product by a warpgroup, operands in shared memory without swizzle.
__device__ __forceinline__ void product(float (&d)[64], uint64_t a, uint64_t b) {
    asm volatile(
        "{\n wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
        "%64, %65, 1, 1, 1, 0, 0;\n}\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),
          "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]),
          "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]),
          "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]),
          "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]),
          "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]),
          "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]),
          "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]), "+f"(d[49]),
          "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]),
          "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]),
          "+f"(d[62]), "+f"(d[63])
        : "l"(a), "l"(b));
}

__device__ uint64_t matrix(const void* place) {  // 8x8 cores of 128 bytes, one after the other
    const uint64_t address = static_cast<uint64_t>(__cvta_generic_to_shared(place));
    constexpr uint64_t kLeading = 128 >> 4, kStride = 256 >> 4;  // in units of 16 bytes
    return ((address & 0x3ffff) >> 4) | (kLeading << 16) | (kStride << 32);
}

__global__ void __launch_bounds__(kMmaThreads) matrix_kernel(const uint32_t* data, float* sink) {
    __shared__ alignas(1024) uint32_t a[64 * 16 / 2], b[128 * 16 / 2];
    for (int i = threadIdx.x; i < 64 * 16 / 2; i += kMmaThreads) a[i] = data[i];
    for (int i = threadIdx.x; i < 128 * 16 / 2; i += kMmaThreads) b[i] = data[4096 + i];
    asm volatile("fence.proxy.async;\n");
    __syncthreads();
    float d[64];
    for (int k = 0; k < 64; ++k) d[k] = 0;
    const uint64_t left = matrix(a), right = matrix(b);
    asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
    for (int i = 0; i < kMmaSteps; ++i) {
        product(d, left, right);
        if (i % 8 == 7) {
            asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
            asm volatile("wgmma.wait_group.sync.aligned 1;\n" ::: "memory");
        }
    }
    asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;\n" ::: "memory");
    float sum = 0;
    for (int k = 0; k < 64; ++k) sum += d[k];
    if (sum == 12345.678f) *sink = sum;
}
#else
__global__ void __launch_bounds__(kMmaThreads) matrix_kernel(const uint32_t* data, float* sink) {
#if __CUDA_ARCH__ >= 800
    uint32_t a[4], b[2];
    for (int k = 0; k < 4; ++k) a[k] = data[threadIdx.x + 128 * k];
    for (int k = 0; k < 2; ++k) b[k] = data[threadIdx.x + 1024 + 128 * k];
    float d[8][4] = {};
    for (int i = 0; i < kMmaSteps; ++i)
#pragma unroll
        for (int k = 0; k < 8; ++k)
            asm volatile(
                "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
                "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
                : "+f"(d[k][0]), "+f"(d[k][1]), "+f"(d[k][2]), "+f"(d[k][3])
                : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    float sum = 0;
    for (int k = 0; k < 8; ++k) sum += d[k][0] + d[k][1] + d[k][2] + d[k][3];
    if (sum == 12345.678f) *sink = sum;
#endif
}
#endif

__global__ void nothing() {}

template <typename Launch>
double best_ms(int times, Launch launch) {
    double best = 1e30;
    for (int i = 0; i < times; ++i) {
        cudaEventRecord(first);
        launch();
        cudaEventRecord(last);
        if (cudaDeviceSynchronize() != cudaSuccess || cudaGetLastError() != cudaSuccess) return 1e30;
        float ms = 0;
        cudaEventElapsedTime(&ms, first, last);
        best = std::min<double>(best, ms);
    }
    return best;
}

double rate(double amount, double ms) { return ms > 0 && ms < 1e29 ? amount / ms / 1e6 : 0.0; }

}  // namespace

int main() {
    float4 *a = nullptr, *b = nullptr;
    cudaDeviceProp properties;
    if (cudaGetDeviceProperties(&properties, 0) != cudaSuccess || cudaMalloc(&a, kBytes) ||
        cudaMalloc(&b, kBytes)) {
        fprintf(stderr, "%s\n", cudaGetErrorString(cudaGetLastError()));
        return 1;
    }
    cudaEventCreate(&first);
    cudaEventCreate(&last);
    float* sink = reinterpret_cast<float*>(b);
    const int sms = properties.multiProcessorCount;
    const uint64_t count = kBytes / sizeof(float4);
    fill<<<8 * sms, kThreads>>>(reinterpret_cast<uint32_t*>(a), kBytes / 4);
    double stream[3] = {1e30, 1e30, 1e30};  // milliseconds of read, write, copy
    for (int blocks : {4, 8, 16, 32})
        stream[0] = std::min(stream[0], best_ms(6, [&] {
                                 read<<<blocks * sms, kThreads>>>(a, b, count, sink);
                             }));
    using Kernel = void (*)(const float4*, float4*, uint64_t, float*);
    const Kernel kernels[2][2] = {{write, plain_write}, {copy, plain_copy}};
    for (int kind = 0; kind < 2; ++kind)
        for (Kernel kernel : kernels[kind])
            for (int threads : {256, 512, 1024}) {
                const unsigned blocks = static_cast<unsigned>(count / (threads * kTile));
                const double ms =
                    best_ms(6, [&] { kernel<<<blocks, threads>>>(a, b, count, sink); });
                stream[1 + kind] = std::min(stream[1 + kind], ms);
            }
    const int lanes = 4 * sms;
    const double fma_ms =
        best_ms(8, [&] { fma_kernel<<<lanes, kThreads>>>(sink, 0.999f, 0.001f); });
    const double fma_count = 2.0 * lanes * kThreads * kChains * kFmaSteps;
    const bool hopper = properties.major == 9;
    const int blocks = 4 * sms;
    const double matrix_ms = best_ms(8, [&] {
        matrix_kernel<<<blocks, kMmaThreads>>>(reinterpret_cast<const uint32_t*>(a), sink);
    });
    const double each = hopper ? 2.0 * 64 * 128 * 16 : 8 * 4 * 2.0 * 16 * 8 * 16;
    const double matrix_count = properties.major >= 8 ? each * kMmaSteps * blocks : 0.0;
    constexpr int kLaunches = 2000;
    const double launch_ms = best_ms(5, [&] {
        for (int i = 0; i < kLaunches; ++i) nothing<<<1, 1>>>();
    });
    printf("{\"read_gbs\": %.1f, \"write_gbs\": %.1f, \"copy_gbs\": %.1f, \"fma_gflops\": %.0f, "
           "\"bf16_gflops\": %.0f, \"launch_us\": %.3f}\n",
           rate(kBytes, stream[0]), rate(kBytes, stream[1]), rate(2.0 * kBytes, stream[2]),
           rate(fma_count, fma_ms), rate(matrix_count, matrix_ms), 1000 * launch_ms / kLaunches);
    return 0;
}
