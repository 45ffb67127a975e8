// What this machine's memory and arithmetic units reach at best, by modes of one kernel:
// 0 read, 1 streaming copy, 2 streaming triad c = a + 3 b, 3 streaming write, 4 fp32 multiply-add.
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

enum Mode { kRead, kCopy, kTriad, kWrite };

template <int mode, int streams>
static Vector walk(const float* a, const float* b, float* c, int64_t begin, int64_t end) {
    const int64_t step = (end - begin) / (streams * kLine) * kLine;
    Vector sums[streams][kParts] = {};
    const Vector three = Vector{} + 3.0f;
    for (int64_t i = 0; i < step; i += kLine)
        for (int s = 0; s < streams; ++s)
            for (int p = 0; p < kParts; ++p) {
                const int64_t at = begin + s * step + i + p * kLanes;
                if (mode == kRead) sums[s][p] += load(a + at);
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

// `n` floats in each array (steps of the multiply-add in mode 4). `sink` receives a value per
// thread, so that nothing is optimised away; 4 lanes × 12 chains × 2 operations a step at least.
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
            default: sum = multiply_add(n); break;
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

// Operations of one multiply-add step of one thread.
extern "C" int64_t kernel_workspace() { return 2 * 12 * kLanes; }
