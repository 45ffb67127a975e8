// A rowwise kernel, bf16 workloads:
//
//     out[t, h] = exp(x[t, h] - max[i < H](x[t, i])) / sum[k < H](exp(x[t, k] - max[j < H](x[t, j])))
//
// @tune WIDTH = 8, 4
// @tune THREADS = 256, 128, 512, 1024
// @tune ROWS = 2, 1, 4, 8
// @tune UNROLL = 4, 2, 8, 1
// @tune STREAM = 0, 1
// @tune KEEP = 4, 2, 1, 8, 16, 0
// @tune RESIDENT = 4, 1, 2, 3, 6, 8
// @tune TERMS = 0, 1
// @require THREADS >= 32 * ROWS
// @require THREADS * RESIDENT <= 2048

#include "kernelwright.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>

namespace simt {

// Elements are read as float and rounded once when they are written.
__device__ inline float get(const float* p) { return *p; }
__device__ inline float get(const double* p) { return (float)*p; }
__device__ inline float get(const bf16* p) { return to_float(*p); }
__device__ inline float value(float x) { return x; }
__device__ inline float value(bf16 x) { return to_float(x); }
__device__ inline void put(float* p, float value) { *p = value; }
__device__ inline void put(double* p, float value) { *p = value; }
__device__ inline void put(bf16* p, float value) {
    p->bits = __bfloat16_as_ushort(__float2bfloat16_rn(value));
}

// NaN if either is.
__device__ inline float maximum(float a, float b) {
#if defined(__CUDA_ARCH__)
    float result;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
    return result;
#else
    return a > b || a != a ? a : b;
#endif
}
__device__ inline float minimum(float a, float b) {
#if defined(__CUDA_ARCH__)
    float result;
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
    return result;
#else
    return a < b || a != a ? a : b;
#endif
}
__device__ inline int64_t maximum(int64_t a, int64_t b) { return a > b ? a : b; }
__device__ inline int64_t minimum(int64_t a, int64_t b) { return a < b ? a : b; }

// Elements that one thread reads or writes at once.
template <class Element, int COUNT> struct alignas(
    sizeof(Element) * COUNT < 16 ? sizeof(Element) * COUNT : 16) Wide {
    Element at[COUNT];
};
template <int BYTES> struct Word;
template <> struct Word<1> { using type = unsigned char; };
template <> struct Word<2> { using type = unsigned short; };
template <> struct Word<4> { using type = unsigned int; };
template <> struct Word<8> { using type = uint2; };
template <> struct Word<16> { using type = uint4; };

// In words of up to 16 bytes; addresses are multiples of a word. ONCE: nothing reads it again soon.
template <bool ONCE, class Element, int COUNT>
__device__ __forceinline__ void fetch(Wide<Element, COUNT>& to, const Element* __restrict__ from) {
    constexpr int bytes = sizeof(Element) * COUNT, width = bytes < 16 ? bytes : 16;
    using Whole = typename Word<width>::type;
#pragma unroll
    for (int n = 0; n < bytes / width; ++n) {
        const Whole word = ONCE ? __ldcs((const Whole*)from + n) : *((const Whole*)from + n);
        memcpy((char*)to.at + n * width, &word, width);
    }
}
template <bool ONCE, class Element, int COUNT>
__device__ __forceinline__ void write(Element* to, const Wide<Element, COUNT>& from) {
    constexpr int bytes = sizeof(Element) * COUNT, width = bytes < 16 ? bytes : 16;
    using Whole = typename Word<width>::type;
#pragma unroll
    for (int n = 0; n < bytes / width; ++n) {
        Whole word;
        memcpy(&word, (const char*)from.at + n * width, width);
        if (ONCE) __stcs((Whole*)to + n, word);
        else *((Whole*)to + n) = word;
    }
}

// Calls load(at, slot), then work(at, slot), at first, first + step, ... below last. KEPT: at most
// SLOTS of them, whose slots keep what was loaded; else SLOTS loads are on their way at a time.
template <bool KEPT, int SLOTS, class Load, class Work>
__device__ __forceinline__ void sweep(
    int64_t first, int64_t last, int64_t step, Load&& load, Work&& work) {
    if (KEPT) {
#pragma unroll
        for (int slot = 0; slot < SLOTS; ++slot)
            if (first + slot * step < last) load(first + slot * step, slot);
#pragma unroll
        for (int slot = 0; slot < SLOTS; ++slot)
            if (first + slot * step < last) work(first + slot * step, slot);
        return;
    }
    int64_t at = first;
    for (; at + (SLOTS - 1) * step < last; at += SLOTS * step) {
#pragma unroll
        for (int slot = 0; slot < SLOTS; ++slot) load(at + slot * step, slot);
#pragma unroll
        for (int slot = 0; slot < SLOTS; ++slot) work(at + slot * step, slot);
    }
    if (SLOTS > 1)
        for (; at < last; at += step) {
            load(at, 0);
            work(at, 0);
        }
}

// Starts a kernel on the stream; what is wrong with the launch is the result.
template <class... Parameters, class... Arguments>
inline int launch(void (*kernel)(Parameters...), dim3 grid, int threads, int64_t shared_bytes,
                  void* stream, Arguments... arguments) {
    if (shared_bytes > 32 * 1024) {  // a launch may have 48 KiB with what the kernel itself declares
        const cudaError_t refused = cudaFuncSetAttribute(
            (const void*)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_bytes);
        if (refused != cudaSuccess) return (int)refused;
    }
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = dim3(threads);
    config.dynamicSmemBytes = shared_bytes;
    config.stream = (cudaStream_t)stream;
    return (int)cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}
inline int64_t blocks(int64_t elements, int64_t of_block) {
    return (elements + of_block - 1) / of_block;
}
inline int processor_count() {
    int device = 0, count = 0;
    if (cudaGetDevice(&device) != cudaSuccess ||
        cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device) != cudaSuccess)
        return 1;
    return count;
}

// What a block has of a row that is split over all blocks of a line of the grid.
struct Part {
    int64_t first, last;
    __device__ Part(int64_t count, int64_t step) {
        const int64_t steps = (count + step - 1) / step;
        const int64_t own = (steps + gridDim.x - 1) / gridDim.x * step;
        first = own * blockIdx.x;
        last = first + own < count ? first + own : count;
    }
};
inline int64_t longest(std::initializer_list<int64_t> extents) {
    int64_t found = 0;
    for (int64_t extent : extents) found = extent > found ? extent : found;
    return found;
}
// Into how many parts each row is split: 1 where there are rows enough.
inline int64_t parts(int64_t rows, int64_t length, int64_t few, int64_t most, int64_t step) {
    if (rows >= few || rows < 1) return 1;
    const int64_t wanted = length / (2 * step), limit = most / rows;
    return wanted < 1 ? 1 : wanted < limit ? wanted : limit;
}

constexpr unsigned ALL_LANES = 0xffffffffu;

template <class T> __device__ inline T from_lane(T value, int mask) {
    return __shfl_xor_sync(ALL_LANES, value, mask);
}

struct plus_of {
    template <class T> __device__ T operator()(T a, T b) const { return a + b; }
};

struct greater_of {
    template <class T> __device__ T operator()(T a, T b) const { return maximum(a, b); }
};

// SPAN threads that follow one another share a row. Every thread of a block takes part in each
// exchange; two buffers in turn, so that one barrier separates them.
template <int SPAN, int THREADS_OF_BLOCK> struct Group {
    static constexpr int WARPS = (SPAN + 31) / 32;
    char* exchange;
    int turn;

    __device__ explicit Group(char* memory) : exchange(memory), turn(0) {}
    __device__ static int number() { return (int)threadIdx.x / SPAN; }
    __device__ static int lane() { return (int)threadIdx.x % SPAN; }

    template <class T, class Combine> __device__ T across(T value, Combine combine) {
#pragma unroll
        for (int mask = SPAN < 32 ? SPAN / 2 : 16; mask > 0; mask /= 2)
            value = combine(value, from_lane(value, mask));
        if (WARPS == 1) return value;
        T* shared = (T*)(exchange + turn * (THREADS_OF_BLOCK / 32) * 16);
        turn ^= 1;
        if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
        __syncthreads();
        value = shared[number() * WARPS + (int)threadIdx.x % WARPS];
#pragma unroll
        for (int mask = WARPS / 2; mask > 0; mask /= 2)
            value = combine(value, from_lane(value, mask));
        return value;
    }
};

}  // namespace simt

template <int WORD, bool KEPT> static __global__ void __launch_bounds__(THREADS, KEPT ? RESIDENT : 1)
kernel_rows(const bf16* __restrict__ x, bf16* __restrict__ out, int64_t T, int64_t H, char* parts) {
    constexpr int SPAN = THREADS / ROWS, SLOTS = KEPT ? KEEP : UNROLL;
    constexpr bool ONCE = STREAM && KEPT;
    (void)ONCE;
    __shared__ __align__(16) char exchange[2 * (THREADS / 32) * 16];
    simt::Group<SPAN, THREADS> group(exchange);
    const int64_t own = (int64_t)blockIdx.x * ROWS + group.number(), count = T;
    const bool active = own < count;
    const int64_t row = active ? own : count - 1;
    const int64_t t = row;
    (void)t;
    float row_max1_lanes[WORD];
#pragma unroll
    for (int v = 0; v < WORD; ++v) row_max1_lanes[v] = (-INFINITY);
    simt::Wide<bf16, WORD> x_held[SLOTS];
    simt::sweep<KEPT, SLOTS>(group.lane() * WORD, H, SPAN * WORD,
        [&](int64_t at, int slot) {
            const int64_t h = at;
            (void)h;
            simt::fetch<ONCE>(x_held[slot], x + t * H + h);
            (void)slot;
        },
        [&](int64_t at, int slot) {
#pragma unroll
            for (int v = 0; v < WORD; ++v) {
                const int64_t h = (at + v);
                (void)h;
                const float x_at = simt::get(&x_held[slot].at[v]);
                row_max1_lanes[v] = simt::greater_of{}(x_at, row_max1_lanes[v]);
            }
            (void)slot;
        });
    float row_max1_total = row_max1_lanes[0];
#pragma unroll
    for (int v = 1; v < WORD; ++v) row_max1_total = simt::greater_of{}(row_max1_total, row_max1_lanes[v]);
    row_max1_total = group.across(row_max1_total, simt::greater_of{});
    const float row_max1 = row_max1_total;
    float row_sum2_lanes[WORD];
#pragma unroll
    for (int v = 0; v < WORD; ++v) row_sum2_lanes[v] = 0.0f;
    float kept_term[SLOTS][WORD];
    simt::sweep<KEPT, SLOTS>(group.lane() * WORD, H, SPAN * WORD,
        [&](int64_t at, int slot) {
            const int64_t h = at;
            (void)h;
            if (!KEPT) simt::fetch<ONCE>(x_held[slot], x + t * H + h);
            (void)slot;
        },
        [&](int64_t at, int slot) {
#pragma unroll
            for (int v = 0; v < WORD; ++v) {
                const int64_t h = (at + v);
                (void)h;
                const float x_at = simt::get(&x_held[slot].at[v]);
                const float term2 = expf((x_at - row_max1));
                if (KEPT && TERMS) kept_term[slot][v] = term2;
                row_sum2_lanes[v] += term2;
            }
            (void)slot;
        });
    float row_sum2_total = row_sum2_lanes[0];
#pragma unroll
    for (int v = 1; v < WORD; ++v) row_sum2_total = simt::plus_of{}(row_sum2_total, row_sum2_lanes[v]);
    row_sum2_total = group.across(row_sum2_total, simt::plus_of{});
    const float row_sum2 = row_sum2_total;
    const float reciprocal_of = 1.0f / row_sum2;
    simt::sweep<KEPT, SLOTS>(group.lane() * WORD, active ? H : 0, SPAN * WORD,
        [&](int64_t at, int slot) {
            const int64_t h = at;
            (void)h;
            if (!KEPT) simt::fetch<ONCE>(x_held[slot], x + t * H + h);
            (void)slot;
        },
        [&](int64_t at, int slot) {
            simt::Wide<bf16, WORD> out_word;
#pragma unroll
            for (int v = 0; v < WORD; ++v) {
                const int64_t h = (at + v);
                (void)h;
                const float x_at = simt::get(&x_held[slot].at[v]);
                const float exp_of = KEPT && TERMS ? kept_term[slot][v] : expf((x_at - row_max1));
                simt::put(&out_word.at[v], exp_of * reciprocal_of);
            }
            {
                const int64_t h = at;
                (void)h;
                simt::write<STREAM>(out + t * H + h, out_word);
            }
            (void)slot;
        });
}

template <int WORD> static __global__ void __launch_bounds__(THREADS)
kernel_part0(const bf16* __restrict__ x, bf16* __restrict__ out, int64_t T, int64_t H, char* parts, int known_parts) {
    constexpr int SLOTS = UNROLL;
    constexpr bool ONCE = false;
    (void)ONCE;
    __shared__ __align__(16) char exchange[2 * (THREADS / 32) * 16];
    simt::Group<THREADS, THREADS> group(exchange);
    const int64_t row = blockIdx.y;
    (void)row, (void)group, (void)known_parts;
    const int64_t t = row;
    (void)t;
    const simt::Part own_part0(H, THREADS * WORD);
    float row_max1_lanes[WORD];
#pragma unroll
    for (int v = 0; v < WORD; ++v) row_max1_lanes[v] = (-INFINITY);
    simt::Wide<bf16, WORD> x_held2[SLOTS];
    simt::sweep<false, SLOTS>(own_part0.first + threadIdx.x * WORD, own_part0.last, THREADS * WORD,
        [&](int64_t at, int slot) {
            const int64_t h = at;
            (void)h;
            simt::fetch<ONCE>(x_held2[slot], x + t * H + h);
            (void)slot;
        },
        [&](int64_t at, int slot) {
#pragma unroll
            for (int v = 0; v < WORD; ++v) {
                const int64_t h = (at + v);
                (void)h;
                const float x_at = simt::get(&x_held2[slot].at[v]);
                row_max1_lanes[v] = simt::greater_of{}(x_at, row_max1_lanes[v]);
            }
            (void)slot;
        });
    float row_max1_total = row_max1_lanes[0];
#pragma unroll
    for (int v = 1; v < WORD; ++v) row_max1_total = simt::greater_of{}(row_max1_total, row_max1_lanes[v]);
    row_max1_total = group.across(row_max1_total, simt::greater_of{});
    if (threadIdx.x == 0) ((float*)(parts + 0))[row * gridDim.x + blockIdx.x] = row_max1_total;
}

template <int WORD> static __global__ void __launch_bounds__(THREADS)
kernel_part1(const bf16* __restrict__ x, bf16* __restrict__ out, int64_t T, int64_t H, char* parts, int known_parts) {
    constexpr int SLOTS = UNROLL;
    constexpr bool ONCE = false;
    (void)ONCE;
    __shared__ __align__(16) char exchange[2 * (THREADS / 32) * 16];
    simt::Group<THREADS, THREADS> group(exchange);
    const int64_t row = blockIdx.y;
    (void)row, (void)group, (void)known_parts;
    const int64_t t = row;
    (void)t;
    float row_max1_total = (-INFINITY);
    for (int n = threadIdx.x; n < known_parts; n += THREADS)
        row_max1_total = simt::greater_of{}(row_max1_total, ((float*)(parts + 0))[row * known_parts + n]);
    row_max1_total = group.across(row_max1_total, simt::greater_of{});
    const float row_max1 = row_max1_total;
    const simt::Part own_part0(H, THREADS * WORD);
    float row_sum2_lanes[WORD];
#pragma unroll
    for (int v = 0; v < WORD; ++v) row_sum2_lanes[v] = 0.0f;
    simt::Wide<bf16, WORD> x_held3[SLOTS];
    simt::sweep<false, SLOTS>(own_part0.first + threadIdx.x * WORD, own_part0.last, THREADS * WORD,
        [&](int64_t at, int slot) {
            const int64_t h = at;
            (void)h;
            simt::fetch<ONCE>(x_held3[slot], x + t * H + h);
            (void)slot;
        },
        [&](int64_t at, int slot) {
#pragma unroll
            for (int v = 0; v < WORD; ++v) {
                const int64_t h = (at + v);
                (void)h;
                const float x_at = simt::get(&x_held3[slot].at[v]);
                const float exp_of = expf((x_at - row_max1));
                row_sum2_lanes[v] += exp_of;
            }
            (void)slot;
        });
    float row_sum2_total = row_sum2_lanes[0];
#pragma unroll
    for (int v = 1; v < WORD; ++v) row_sum2_total = simt::plus_of{}(row_sum2_total, row_sum2_lanes[v]);
    row_sum2_total = group.across(row_sum2_total, simt::plus_of{});
    if (threadIdx.x == 0) ((float*)(parts + 16384))[row * gridDim.x + blockIdx.x] = row_sum2_total;
}

template <int WORD> static __global__ void __launch_bounds__(THREADS)
kernel_part2(const bf16* __restrict__ x, bf16* __restrict__ out, int64_t T, int64_t H, char* parts, int known_parts) {
    constexpr int SLOTS = UNROLL;
    constexpr bool ONCE = false;
    (void)ONCE;
    __shared__ __align__(16) char exchange[2 * (THREADS / 32) * 16];
    simt::Group<THREADS, THREADS> group(exchange);
    const int64_t row = blockIdx.y;
    (void)row, (void)group, (void)known_parts;
    const int64_t t = row;
    (void)t;
    float row_max1_total = (-INFINITY);
    for (int n = threadIdx.x; n < known_parts; n += THREADS)
        row_max1_total = simt::greater_of{}(row_max1_total, ((float*)(parts + 0))[row * known_parts + n]);
    row_max1_total = group.across(row_max1_total, simt::greater_of{});
    const float row_max1 = row_max1_total;
    float row_sum2_total = 0.0f;
    for (int n = threadIdx.x; n < known_parts; n += THREADS)
        row_sum2_total = simt::plus_of{}(row_sum2_total, ((float*)(parts + 16384))[row * known_parts + n]);
    row_sum2_total = group.across(row_sum2_total, simt::plus_of{});
    const float row_sum2 = row_sum2_total;
    const simt::Part own_part0(H, THREADS * WORD);
    simt::Wide<bf16, WORD> x_held4[SLOTS];
    const float reciprocal_of2 = 1.0f / row_sum2;
    simt::sweep<false, SLOTS>(own_part0.first + threadIdx.x * WORD, own_part0.last, THREADS * WORD,
        [&](int64_t at, int slot) {
            const int64_t h = at;
            (void)h;
            simt::fetch<ONCE>(x_held4[slot], x + t * H + h);
            (void)slot;
        },
        [&](int64_t at, int slot) {
            simt::Wide<bf16, WORD> out_word2;
#pragma unroll
            for (int v = 0; v < WORD; ++v) {
                const int64_t h = (at + v);
                (void)h;
                const float x_at = simt::get(&x_held4[slot].at[v]);
                const float exp_of = expf((x_at - row_max1));
                simt::put(&out_word2.at[v], exp_of * reciprocal_of2);
            }
            {
                const int64_t h = at;
                (void)h;
                simt::write<STREAM>(out + t * H + h, out_word2);
            }
            (void)slot;
        });
}

extern "C" int64_t kernel_workspace(int64_t T, int64_t H) {
    (void)T;
    (void)H;
    int64_t bytes = 0;
    bytes += (32768 + 255) / 256 * 256;
    return bytes;
}

extern "C" int kernel(const bf16* x, bf16* out, int64_t T, int64_t H, const void* prepared, void* workspace, int64_t workspace_bytes, void* stream) {
    (void)prepared, (void)stream;
    if (workspace_bytes < kernel_workspace(T, H))
        return (int)cudaErrorInvalidValue;
    char* next = (char*)workspace;
    char* parts = (char*)next;
    next += (32768 + 255) / 256 * 256;
    {
        const int64_t rows = T, longest = simt::longest({H, H, H});
        const bool wide = (H) % WIDTH == 0;
        const int64_t parts_of_row = simt::parts(rows, longest, 256, 1024, (int64_t)THREADS * (wide ? WIDTH : 1) * UNROLL);
        int failed = 0;
        if (rows > 0 && parts_of_row > 1) {
            if (!failed) failed = wide ? simt::launch(kernel_part0<WIDTH>, dim3((unsigned)parts_of_row, (unsigned)rows), THREADS, 0, stream, x, out, T, H, parts, (int)0)
                : simt::launch(kernel_part0<1>, dim3((unsigned)parts_of_row, (unsigned)rows), THREADS, 0, stream, x, out, T, H, parts, (int)0);
            if (!failed) failed = wide ? simt::launch(kernel_part1<WIDTH>, dim3((unsigned)parts_of_row, (unsigned)rows), THREADS, 0, stream, x, out, T, H, parts, (int)parts_of_row)
                : simt::launch(kernel_part1<1>, dim3((unsigned)parts_of_row, (unsigned)rows), THREADS, 0, stream, x, out, T, H, parts, (int)parts_of_row);
            if (!failed) failed = wide ? simt::launch(kernel_part2<WIDTH>, dim3((unsigned)parts_of_row, (unsigned)rows), THREADS, 0, stream, x, out, T, H, parts, (int)parts_of_row)
                : simt::launch(kernel_part2<1>, dim3((unsigned)parts_of_row, (unsigned)rows), THREADS, 0, stream, x, out, T, H, parts, (int)parts_of_row);
        } else if (rows > 0) {
            failed = wide ? (KEEP > 0 && H <= (int64_t)KEEP * (THREADS / ROWS) * WIDTH ? simt::launch(kernel_rows<WIDTH, (KEEP > 0)>, dim3((unsigned)((rows + ROWS - 1) / ROWS)), THREADS, 0, stream, x, out, T, H, parts) : simt::launch(kernel_rows<WIDTH, false>, dim3((unsigned)((rows + ROWS - 1) / ROWS)), THREADS, 0, stream, x, out, T, H, parts)) : simt::launch(kernel_rows<1, false>, dim3((unsigned)((rows + ROWS - 1) / ROWS)), THREADS, 0, stream, x, out, T, H, parts);
        }
        if (failed) return failed;
    }
    return 0;
}
