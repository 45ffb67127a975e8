// What this machine's memory and arithmetic units reach at best, by modes of one kernel:
// 0 read, 1 streaming copy, 2 streaming triad c = a + 3 b, 3 streaming write, 4 fp32 multiply-add,
// 5 products of bf16 summed in fp32, where there is a unit for them.
// Each thread walks `streams` ranges at once, one cache line of each in turn; stores bypass the
// caches, so that no line is read only to be overwritten.
#include "kernelwright.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(_OPENMP)
#include <omp.h>
#endif

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
constexpr int kLine = 16;                 // floats per cache line
constexpr int kAhead = 256;               // floats: reads ask for lines 1 KiB before they are due
constexpr int kParts = kLine / kLanes;    // vectors per cache line
typedef float Vector __attribute__((vector_size(4 * kLanes)));

static inline Vector load(const float* p) { return *reinterpret_cast<const Vector*>(p); }

static inline void stream(float* p, Vector v) {
#if defined(__AVX512F__)
    _mm512_stream_ps(p, (__m512)v);
#elif defined(__AVX__)
    _mm256_stream_ps(p, (__m256)v);
#elif defined(__x86_64__)
    _mm_stream_ps(p, (__m128)v);
#else
    *reinterpret_cast<Vector*>(p) = v;
#endif
}

enum Mode { kRead, kCopy, kTriad, kWrite, kFma, kPairs };

template <int mode, int streams>
static Vector walk(const float* a, const float* b, float* c, int64_t begin, int64_t end) {
    const int64_t step = (end - begin) / (streams * kLine) * kLine;
    Vector sums[streams][kParts] = {};
    const Vector three = Vector{} + 3.0f;
    for (int64_t i = 0; i < step; i += kLine)
        for (int s = 0; s < streams; ++s)
            for (int p = 0; p < kParts; ++p) {
                const int64_t at = begin + s * step + i + p * kLanes;
                if (mode == kRead) {
                    if (p == 0) __builtin_prefetch(a + at + kAhead);
                    sums[s][p] += load(a + at);
                }
                if (mode == kCopy) stream(c + at, load(a + at));
                if (mode == kTriad) stream(c + at, load(a + at) + three * load(b + at));
                if (mode == kWrite) stream(c + at, three);
            }
    Vector sum = {};
    for (int s = 0; s < streams; ++s)
        for (int p = 0; p < kParts; ++p) sum += sums[s][p];
    return sum;
}

template <int mode>
static Vector walk(const float* a, const float* b, float* c, int64_t begin, int64_t end,
                   int64_t streams) {
    switch (streams) {
        case 1: return walk<mode, 1>(a, b, c, begin, end);
        case 2: return walk<mode, 2>(a, b, c, begin, end);
        case 4: return walk<mode, 4>(a, b, c, begin, end);
        default: return walk<mode, 8>(a, b, c, begin, end);
    }
}

// Twelve independent chains hide the latency of two multiply-add units.
static Vector multiply_add(int64_t steps) {
    constexpr int chains = 12;
    Vector sums[chains];
    for (int k = 0; k < chains; ++k) sums[k] = Vector{} + static_cast<float>(k);
    const Vector factor = Vector{} + 0.999f, addend = Vector{} + 0.001f;
    for (int64_t i = 0; i < steps; ++i) {
#pragma GCC unroll 12
        for (int k = 0; k < chains; ++k) sums[k] = sums[k] * factor + addend;
    }
    Vector sum = {};
    for (int k = 0; k < chains; ++k) sum += sums[k];
    return sum;
}

constexpr int kFmaOperations = 2 * 12 * kLanes;  // of one step of one thread

#if defined(__AMX_BF16__) && !defined(NO_MATRIX_UNIT)
// Four independent tiles of 16 x 16 sums; operands of zeros take as long as any.
constexpr int kPairOperations = 4 * 16 * 16 * 32 * 2;
static Vector multiply_pairs(int64_t steps) {
    struct alignas(64) Configuration {
        uint8_t palette = 1, start_row = 0, reserved[14] = {};
        uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
        uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    };
    const Configuration configuration;
    alignas(64) float sums[256];
    _tile_loadconfig(&configuration);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
    for (int64_t i = 0; i < steps; ++i) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, sums, 64);
    _tile_release();
    return load(sums);
}
#elif defined(__AVX512BF16__)
constexpr int kPairOperations = 12 * 2 * 32;
static Vector multiply_pairs(int64_t steps) {
    __m512 sums[12] = {};
    const __m512bh left = {}, right = {};
    for (int64_t i = 0; i < steps; ++i) {
        __m512bh a = left;
        __asm__ volatile("" : "+v"(a));  // else the products of one step would serve all
#pragma GCC unroll 12
        for (int k = 0; k < 12; ++k) sums[k] = _mm512_dpbf16_ps(sums[k], a, right);
    }
    __m512 sum = {};
    for (int k = 0; k < 12; ++k) sum += sums[k];
    return (Vector)sum;
}
#else
constexpr int kPairOperations = 0;
static Vector multiply_pairs(int64_t) { return Vector{}; }
#endif

// `n` floats in each array (steps of arithmetic in modes 4 and 5). `sink` receives a value per
// thread, so that nothing is optimised away.
extern "C" int kernel(const float* a, const float* b, float* c, float* sink, int64_t n,
                      int64_t mode, int64_t streams, const void*, void*, int64_t, void*) {
#pragma omp parallel
    {
        int64_t thread = 0, threads = 1;
#if defined(_OPENMP)
        thread = omp_get_thread_num();
        threads = omp_get_num_threads();
#endif
        const int64_t begin = n / kLine * thread / threads * kLine;
        const int64_t end = n / kLine * (thread + 1) / threads * kLine;
        Vector sum = {};
        switch (mode) {
            case kRead: sum = walk<kRead>(a, b, c, begin, end, streams); break;
            case kCopy: sum = walk<kCopy>(a, b, c, begin, end, streams); break;
            case kTriad: sum = walk<kTriad>(a, b, c, begin, end, streams); break;
            case kWrite: sum = walk<kWrite>(a, b, c, begin, end, streams); break;
            case kFma: sum = multiply_add(n); break;
            default: sum = multiply_pairs(n); break;
        }
        float total = 0;
        for (int i = 0; i < kLanes; ++i) total += sum[i];
        sink[thread * kLine] = total;
#if defined(__x86_64__)
        _mm_sfence();
#endif
    }
    return 0;
}

// Operations of one step of one thread in an arithmetic mode; 0: no unit for them.
extern "C" int64_t kernel_workspace(int64_t mode) {
    return mode == kFma ? kFmaOperations : kPairOperations;
}
