// rows: control
// workload: swiglu f32 M=512,N=1024
// does: The winner of a short search.
// expect: pass
// swiglu in f32: pointwise, by kernelwright.
// 4.62x [4.59, 4.69] over 'eager', the best baseline, on M=2048,N=2048 f32 normal: median 1608.1 us.
// Judged as built by g++ (Debian 12.2.0-14+deb12u1) 12.2.0 on Intel(R) Xeon(R) Processor.
//
// Build: g++ -std=c++17 -fPIC -fopenmp -shared -O3 -march=native -mprefer-vector-width=512 best.cpp -o libbest.so

#ifndef LANES
#define LANES 16
#endif
#ifndef UNROLL
#define UNROLL 8
#endif
#ifndef STREAM
#define STREAM 1
#endif
#ifndef PREFETCH
#define PREFETCH 2048
#endif
// A pointwise kernel, f32 workloads:
//
//     out[m, n] = (g[m, n] * sigmoid(g[m, n] * beta)) * v[m, n]
//
// @tune LANES = 16, 32, 8
// @tune UNROLL = 8, 2, 4, 1
// @tune STREAM = 1, 0
// @tune PREFETCH = 2048, 1024, 0, 512, 4096
// @tune CXX = g++, clang++-19
// @tune FLAGS = "-O3 -march=native -mprefer-vector-width=512"

#include "kernelwright.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#include <omp.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace simd {

// A thread's own part of 0 <= i < count, in units of `grain`.
struct Range {
    int64_t begin, end;
};
inline Range share(int64_t count, int64_t grain) {
    const int64_t team = omp_get_num_threads(), me = omp_get_thread_num();
    const int64_t blocks = (count + grain - 1) / grain;
    return {std::min(count, blocks * me / team * grain),
            std::min(count, blocks * (me + 1) / team * grain)};
}

#define INLINED __attribute__((always_inline))

// LANES elements at once; comparisons give a mask: all ones where true, zero where false.
typedef float floats __attribute__((vector_size(LANES * 4)));
typedef int32_t ints __attribute__((vector_size(LANES * 4)));
typedef uint32_t uints __attribute__((vector_size(LANES * 4)));
typedef int64_t longs __attribute__((vector_size(LANES * 8)));

// Which lanes of a vector exist: all of them, or the first few at the end of a row.
struct all_lanes {
    static constexpr int64_t count = LANES;
};
struct first_lanes {
    int64_t count;
};

inline floats splat(float x) { return floats{} + x; }
inline ints splat(int32_t x) { return ints{} + x; }
inline longs splat(int64_t x) { return longs{} + x; }
inline ints splat(bool x) { return ints{} - (int32_t)x; }

inline floats select(ints mask, floats a, floats b) { return mask ? a : b; }
inline ints select(ints mask, ints a, ints b) { return mask ? a : b; }
inline longs select(ints mask, longs a, longs b) {
    return __builtin_convertvector(mask, longs) ? a : b;
}

// 0, 1, 2, ... across the lanes.
inline ints lane_numbers() {
    ints numbers = {};
    for (int i = 0; i < LANES; ++i) numbers[i] = i;
    return numbers;
}

// The value where a lane exists, the other (the identity of a reduction) elsewhere.
template <class V> inline V keep(V value, V, all_lanes) { return value; }
template <class V> inline V keep(V value, V other, first_lanes lanes) {
    return select(lane_numbers() < (int32_t)lanes.count, value, other);
}

// f(i) in lane i, for loads that are not contiguous; missing lanes are zero.
template <class V, class Lanes, class F> inline V each(Lanes lanes, F&& f) {
    V values = {};
    for (int64_t i = 0; i < lanes.count; ++i) values[i] = f(i);
    return values;
}

// f(0), f(1), ..., f(COUNT - 1), unrolled; the argument is a compile-time constant.
template <class F, int... I>
inline INLINED void unrolled_over(F& f, std::integer_sequence<int, I...>) {
    (f(std::integral_constant<int, I>{}), ...);
}
template <int COUNT, class F> inline INLINED void unrolled(F&& f) {
    unrolled_over(f, std::make_integer_sequence<int, COUNT>{});
}

// step(i, lanes, u) for each vector of begin <= i < end; u < STEPS tells accumulators apart.
template <int STEPS, class Step>
inline INLINED void sweep(int64_t begin, int64_t end, Step&& step) {
    constexpr std::integral_constant<int, 0> first{};
    int64_t i = begin;
    for (; i + STEPS * LANES <= end; i += STEPS * LANES)
        unrolled<STEPS>([&](auto u) INLINED { step(i + u * LANES, all_lanes{}, u); });
    for (; STEPS > 1 && i + LANES <= end; i += LANES) step(i, all_lanes{}, first);
    if (i < end) step(i, first_lanes{end - i}, first);
}

inline floats load(const float* p, all_lanes) {
    floats values;
    std::memcpy(&values, p, sizeof values);
    return values;
}
inline floats load(const float* p, first_lanes lanes) {
#if defined(__AVX512F__) && LANES == 16
    return (floats)_mm512_maskz_loadu_ps((__mmask16)((1u << lanes.count) - 1), p);
#else
    return each<floats>(lanes, [&](int64_t i) { return p[i]; });
#endif
}

inline void store(float* p, floats values, all_lanes) { std::memcpy(p, &values, sizeof values); }
inline void store(float* p, floats values, first_lanes lanes) {
#if defined(__AVX512F__) && LANES == 16
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << lanes.count) - 1), (__m512)values);
#else
    for (int64_t i = 0; i < lanes.count; ++i) p[i] = values[i];
#endif
}

// Non-temporal stores: whole lines go to memory without being read first. p is aligned to the
// width of the value, up to 64 bytes.
template <class V> inline void stream_bytes(void* p, V value) {
    char* to = (char*)p;
    const char* from = (const char*)&value;
#if defined(__AVX512F__)
    if constexpr (sizeof(V) % 64 == 0) {
        for (size_t i = 0; i < sizeof(V); i += 64)
            _mm512_stream_si512((__m512i*)(to + i), _mm512_loadu_si512(from + i));
        return;
    }
#endif
#if defined(__AVX__)
    if constexpr (sizeof(V) % 32 == 0) {
        for (size_t i = 0; i < sizeof(V); i += 32)
            _mm256_stream_si256((__m256i*)(to + i), _mm256_loadu_si256((const __m256i*)(from + i)));
        return;
    }
#endif
#if defined(__SSE2__)
    if constexpr (sizeof(V) % 16 == 0) {
        for (size_t i = 0; i < sizeof(V); i += 16)
            _mm_stream_si128((__m128i*)(to + i), _mm_loadu_si128((const __m128i*)(from + i)));
        return;
    }
#endif
    std::memcpy(to, from, sizeof(V));
}
inline void stream_fence() {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}
// Elements from p to the next 64-byte boundary, so that the stores after them are whole lines.
template <class T> inline int64_t to_boundary(const T* p) {
    return (int64_t)((64 - (uintptr_t)p % 64) % 64 / sizeof(T));
}

// A sweep whose whole vectors begin at a 64-byte boundary of the output p, which is where the
// element `begin` goes.
template <int STEPS, class T, class Step>
inline INLINED void sweep_lines(const T* p, int64_t begin, int64_t end, Step&& step) {
    const int64_t head = STREAM ? std::min(end, begin + to_boundary(p)) : begin;
    constexpr std::integral_constant<int, 0> first{};
    for (; begin < head; begin += LANES)
        step(begin, first_lanes{std::min<int64_t>(LANES, head - begin)}, first);
    sweep<STEPS>(head, end, step);
}

inline void write(float* p, floats values, all_lanes lanes) {
    if (STREAM) stream_bytes(p, values);
    else store(p, values, lanes);
}
inline void write(float* p, floats values, first_lanes lanes) { store(p, values, lanes); }

// Ask for the line PREFETCH bytes ahead.
inline void prefetch(const void* p) {
    if (PREFETCH) __builtin_prefetch((const char*)p + PREFETCH);
}

inline floats absolute(floats x) { return (floats)((ints)x & 0x7fffffff); }
inline floats with_sign(floats x, floats sign) {
    return (floats)(((ints)x & 0x7fffffff) | ((ints)sign & (int32_t)0x80000000));
}
// 2^n for -126 <= n <= 127.
inline floats power_of_two(ints n) { return (floats)((n + 127) << 23); }

// e^x to 1 ulp: x = n ln 2 + r, a polynomial in r (Cephes expf), then 2^n in two factors so that
// results below the normal range and up to infinity come out right.
inline floats times_power_of_two(floats x, ints n) {
#if defined(__AVX512F__) && LANES % 16 == 0
    const floats power = __builtin_convertvector(n, floats);
    for (int i = 0; i < LANES; i += 16)
        _mm512_storeu_ps((float*)&x + i, _mm512_scalef_ps(_mm512_loadu_ps((float*)&x + i),
                                                          _mm512_loadu_ps((float*)&power + i)));
    return x;
#endif
    const ints half = n >> 1;
    return x * power_of_two(half) * power_of_two(n - half);
}
inline floats exp(floats x) {
    x = x < -104.0f ? splat(-104.0f) : x;
    x = x > 89.0f ? splat(89.0f) : x;
    const floats magic = splat(12582912.0f);
    const floats shifted = x * 1.44269504088896341f + magic;
    const floats n = shifted - magic;
    floats r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    return times_power_of_two(p, (ints)shifted - (ints)magic);
}

// 1 / d for d >= 1: an estimate and one Newton step where division is slow; infinity gives 0.
inline floats reciprocal(floats d) {
#if defined(__AVX512F__) && LANES % 16 == 0
    floats result;
    for (int i = 0; i < LANES; i += 16) {
        const __m512 x = _mm512_loadu_ps((float*)&d + i), r = _mm512_rcp14_ps(x);
        const __m512 rest = _mm512_fnmadd_ps(x, r, _mm512_set1_ps(1.0f));
        const __mmask16 finite = _mm512_cmp_ps_mask(x, _mm512_set1_ps(INFINITY), _CMP_NEQ_UQ);
        _mm512_storeu_ps((float*)&result + i, _mm512_maskz_fmadd_ps(finite, r, rest, r));
    }
    return result;
#else
    return 1.0f / d;
#endif
}

inline floats sigmoid(floats x) { return reciprocal(1.0f + exp(-x)); }

}  // namespace simd

extern "C" int kernel(const float* g, const float* v, float* out, int64_t M, int64_t N, double beta, const void* prepared, void* workspace, int64_t workspace_bytes, void* stream) {
    (void)prepared, (void)stream;
    (void)workspace, (void)workspace_bytes;
    const float beta_f = (float)beta;

#pragma omp parallel if ((M * N) > 16384)
    {
        const simd::Range mine = simd::share((M * N), 64);
        simd::sweep_lines<UNROLL>(out + mine.begin, mine.begin, mine.end, [&](int64_t i, auto lanes, auto) INLINED {
            simd::prefetch(g + i);
            simd::prefetch(v + i);
            const simd::floats g_at = simd::load(g + i, lanes);
            const simd::floats sigmoid_of = simd::sigmoid((g_at * beta_f));
            const simd::floats v_at = simd::load(v + i, lanes);
            simd::write(out + i, (g_at * sigmoid_of) * v_at, lanes);
        });
        if (STREAM) simd::stream_fence();
    }
    return 0;
}
