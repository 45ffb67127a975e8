// rows: control
// workload: prefix_sum f32 N=1048576
// does: The winner of a short search.
// expect: pass
// prefix_sum in f32: scan, by kernelwright.
// 3.05x [3.02, 3.07] over 'eager', the best baseline, on N=8388608 f32 normal: median 2235.1 us.
// Judged as built by g++ (Debian 12.2.0-14+deb12u1) 12.2.0 on Intel(R) Xeon(R) Processor.
//
// Build: g++ -std=c++17 -fPIC -fopenmp -shared -O3 -march=native -mprefer-vector-width=512 best.cpp -o libbest.so

#ifndef LANES
#define LANES 16
#endif
#ifndef UNROLL
#define UNROLL 4
#endif
#ifndef TILE
#define TILE 65536
#endif
#ifndef STREAM
#define STREAM 1
#endif
#ifndef PREFETCH
#define PREFETCH 1
#endif
// scan: out, f32 workloads.
// @tune LANES = 16, 8
// @tune UNROLL = 4, 2, 1, 8
// @tune TILE = 65536, 8192, 16384, 32768, 131072
// @tune STREAM = 1, 0
// @tune PREFETCH = 1, 0
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
#include <atomic>
#include <thread>

namespace simd {

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

}  // namespace simd

// Moving lanes, with compile-time distances.
namespace shuffle {

typedef simd::floats floats;
typedef std::make_integer_sequence<int, LANES> every_lane;

// Lane i takes lane `which` of a and b laid side by side.
#if defined(__clang__) || __GNUC__ >= 12
#define KW_SHUFFLE(a, b, which) __builtin_shufflevector(a, b, (which)...)
#else
#define KW_SHUFFLE(a, b, which) __builtin_shuffle(a, b, simd::ints{(which)...})
#endif

// Lanes move up by S, zeros come in.
template <int S, int... I> inline floats up(floats v, std::integer_sequence<int, I...>) {
    return KW_SHUFFLE(v, floats{}, I < S ? LANES + I : I - S);
}
// Lanes rotate down by S.
template <int S, int... I> inline floats around(floats v, std::integer_sequence<int, I...>) {
    return KW_SHUFFLE(v, v, (I + S) % LANES);
}
// The last lane everywhere.
template <int... I> inline floats last(floats v, std::integer_sequence<int, I...>) {
    return KW_SHUFFLE(v, v, I * 0 + LANES - 1);
}

// Inclusive sums across the lanes in log2(LANES) steps (Hillis and Steele, 1986).
template <int S = 1> inline floats running_sum(floats v) {
    if constexpr (S < LANES) return running_sum<2 * S>(v + up<S>(v, every_lane{}));
    else return v;
}

// All lanes combined, in every lane.
template <int S = LANES / 2> inline floats sum(floats v) {
    if constexpr (S > 0) return sum<S / 2>(v + around<S>(v, every_lane{}));
    else return v;
}
template <int S = LANES / 2> inline floats least(floats v) {
    if constexpr (S > 0) {
        const floats other = around<S>(v, every_lane{});
        return least<S / 2>(v < other ? v : other);
    } else return v;
}

}  // namespace shuffle

// Running sums. A tile is read twice, the second time from the cache: once for its sum, which the
// next tile waits for, and once for the running sums themselves. So memory is read once and
// written once whatever the number of threads (the chained scan of Merrill and Garland, "Single-pass
// parallel prefix scan with decoupled look-back", 2016, with the tiles dealt round in order).
//
// Within SETTLE elements sums run in float32, everything beyond in double: the error of an element
// stays near one rounding of its value, however long the array.
namespace scan {

constexpr int64_t SETTLE = 512;
constexpr int64_t SERIAL_BELOW = 32768;
constexpr int MAX_TEAM = 256;

// What the tile with this number has before it.
struct alignas(64) Chain {
    std::atomic<int64_t> tile{0};
    double before = 0.0;
};

// Waits for its turn, takes the sum of all earlier tiles and hands on the sum including its own.
inline double take_turn(Chain& chain, int64_t tile, double own) {
    for (int spins = 0; chain.tile.load(std::memory_order_acquire) != tile; ++spins) {
        if (spins > 64) std::this_thread::yield();
#if defined(__SSE2__)
        else _mm_pause();
#endif
    }
    const double before = chain.before;
    chain.before = before + own;
    chain.tile.store(tile + 1, std::memory_order_release);
    return before;
}

template <class P> inline double sum(const P& p, int64_t row, int64_t begin, int64_t end) {
    double total = 0.0;
    for (int64_t i = begin; i < end; i += SETTLE) {
        simd::floats part[UNROLL] = {};
        simd::sweep<UNROLL>(i, std::min(end, i + SETTLE), [&](int64_t at, auto lanes, auto u) INLINED {
            part[u] += simd::keep(p.value(row, at, lanes), simd::floats{}, lanes);
        });
        simd::floats whole = part[0];
        for (int u = 1; u < UNROLL; ++u) whole += part[u];
        total += shuffle::sum(whole)[0];
    }
    return total;
}

// Writes the running sums of [begin, end) on top of `before`; returns the sum up to end. `ahead` is
// how far on this thread will read next.
template <class P>
inline double write(const P& p, int64_t row, int64_t begin, int64_t end, double before, int64_t ahead) {
    auto* out = p.target(row);
    for (int64_t i = begin; i < end; i += SETTLE) {
        const simd::floats base = simd::splat((float)before);
        simd::floats local = {};
        const int64_t stop = std::min(end, i + SETTLE);
        simd::sweep_lines<UNROLL>(out + i, i, stop, [&](int64_t at, auto lanes, auto) INLINED {
            const simd::floats value = simd::keep(p.value(row, at, lanes), simd::floats{}, lanes);
            const simd::floats sums = shuffle::running_sum(value);
            if (PREFETCH) p.prefetch(row, at + ahead);
            simd::write(out + at, sums + (local + base), lanes);
            local += shuffle::last(sums, shuffle::every_lane{});
        });
        before += local[0];
    }
    return before;
}

template <class P> inline int run(const P& p) {
    const int64_t rows = p.row_count, columns = p.column_count;
    Chain chains[MAX_TEAM];
#pragma omp parallel num_threads(std::min(omp_get_max_threads(), MAX_TEAM)) \
    if (rows * columns > SERIAL_BELOW)
    {
        const int64_t team = omp_get_num_threads(), me = omp_get_thread_num();
        if (rows >= team) {
            for (int64_t row = rows * me / team; row < rows * (me + 1) / team; ++row)
                write(p, row, 0, columns, 0.0, 4 * SETTLE);
        } else {
            for (int64_t row = 0; row < rows; ++row)
                for (int64_t tile = me; tile * TILE < columns; tile += team) {
                    const int64_t begin = tile * TILE, end = std::min(columns, begin + TILE);
                    const double before = take_turn(chains[row], tile, sum(p, row, begin, end));
                    write(p, row, begin, end, before, team * TILE);
                }
        }
        if (STREAM) simd::stream_fence();
    }
    return 0;
}

}  // namespace scan

struct Problem {
    const float* x;
    float* out;
    int64_t N;
    int64_t row_count = 1;
    int64_t column_count = N;

    // The summed value in column `at` and the lanes after it.
    template <class Lanes>
    INLINED simd::floats value(int64_t row2, int64_t at, Lanes lanes) const {
        const simd::floats x_at = simd::load(x + at, lanes);
        return x_at;
    }
    INLINED void prefetch(int64_t row2, int64_t at) const {
        __builtin_prefetch(x + at);
    }
    float* target(int64_t row2) const { return out + row2 * column_count; }
};

extern "C" int kernel(const float* x, float* out, int64_t N, const void* prepared, void* workspace, int64_t workspace_bytes, void* stream) {
    (void)prepared, (void)workspace, (void)workspace_bytes, (void)stream;
    return scan::run(Problem{x, out, N});
}
