// rows: control
// workload: matrix_vector_mul f32 M=1024,N=1024
// does: The winner of a short search.
// expect: pass
// matrix_vector_mul in f32: rowwise, by kernelwright.
// 1.86x [1.47, 2.52] over 'eager', the best baseline, on M=4096,N=4096 f32 normal: median 3849.0 us.
// Judged as built by Debian clang version 19.1.7 (3~deb12u1) on Intel(R) Xeon(R) Processor.
//
// Build: clang++-19 -std=c++17 -fPIC -fopenmp -shared -O3 -march=native -mprefer-vector-width=512 best.cpp -o libbest.so

#ifndef LANES
#define LANES 16
#endif
#ifndef UNROLL
#define UNROLL 4
#endif
#ifndef ROWS
#define ROWS 4
#endif
#ifndef PREFETCH
#define PREFETCH 1024
#endif
// A rowwise kernel, f32 workloads:
//
//     out[m] = sum[n < N](A[m, n] * x[n])
//
// @tune LANES = 16, 32, 8
// @tune UNROLL = 4, 2, 1, 8
// @tune ROWS = 4, 2, 1, 8
// @tune PREFETCH = 1024, 0, 512, 2048, 4096
// @tune CXX = clang++-19, g++
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

// Partial results of the threads that share one row. Two sets of slots take turns, so that one
// barrier for each exchange is enough.
constexpr int MAX_TEAM = 256;
struct Team {
    struct alignas(64) Slot {
        char bytes[64];
    };
    Slot slots[2][MAX_TEAM];
};
template <class T, class F> inline T across_team(Team& team, int& turn, T mine, F&& combine) {
    Team::Slot* slots = team.slots[turn ^= 1];
    std::memcpy(slots[omp_get_thread_num()].bytes, &mine, sizeof(T));
#pragma omp barrier
    T total, part;
    std::memcpy(&total, slots[0].bytes, sizeof(T));
    for (int i = 1; i < omp_get_num_threads(); ++i) {
        std::memcpy(&part, slots[i].bytes, sizeof(T));
        total = combine(total, part);
    }
    return total;
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

// Ask for the line PREFETCH bytes ahead.
inline void prefetch(const void* p) {
    if (PREFETCH) __builtin_prefetch((const char*)p + PREFETCH);
}

// One element at a time: values that belong to a whole row.
inline float get(const float* p) { return *p; }
inline float get(const double* p) { return (float)*p; }
inline float get(const bf16* p) {
    const uint32_t bits = (uint32_t)p->bits << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}
inline uint16_t bf16_bits(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    if (value != value) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline float round_to_bf16(float value) {
    const bf16 rounded{bf16_bits(value)};
    return get(&rounded);
}
inline void put(float* p, float value) { *p = value; }
inline void put(double* p, float value) { *p = value; }
inline void put(bf16* p, float value) { p->bits = bf16_bits(value); }

// Combine the lanes of one vector, as a balanced tree.
template <class V, class F> inline auto across(V value, F&& combine) {
    auto element = value[0];
    decltype(element) tree[LANES];
    std::memcpy(tree, &value, sizeof tree);
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; ++i) tree[i] = combine(tree[i], tree[i + width]);
    return tree[0];
}
// Combine several accumulators, then their lanes.
template <int COUNT, class V, class F> inline auto across(const V (&values)[COUNT], F&& combine) {
    V total = values[0];
    for (int u = 1; u < COUNT; ++u) total = combine(total, values[u]);
    return across(total, combine);
}
// The operations, for lanes, accumulators and threads alike.
struct plus_of {
    template <class T> T operator()(T a, T b) const { return a + b; }
};
struct times_of {
    template <class T> T operator()(T a, T b) const { return a * b; }
};
struct either_of {
    template <class T> T operator()(T a, T b) const { return a | b; }
};
struct both_of {
    template <class T> T operator()(T a, T b) const { return a & b; }
};

// A sum in two levels: short partial sums (settled every SETTLE elements) keep rounding small.
constexpr int64_t SETTLE = 16384;
template <int COUNT> struct blocked_sum {
    floats part[COUNT] = {};
    floats whole = {};
    inline void add(int u, floats value) { part[u] += value; }
    inline void settle() {
        for (int u = 0; u < COUNT; ++u) {
            whole += part[u];
            part[u] = floats{};
        }
    }
    inline float total() {
        settle();
        return across(whole, plus_of{});
    }
};
// A sweep that calls settle() every SETTLE elements.
template <int STEPS, class Step, class Settle>
inline INLINED void sweep(int64_t begin, int64_t end, Step&& step, Settle&& settle) {
    for (; begin < end; begin += SETTLE) {
        sweep<STEPS>(begin, std::min(end, begin + SETTLE), step);
        settle();
    }
}

}  // namespace simd

extern "C" int kernel(const float* A, const float* x, float* out, int64_t M, int64_t N, const void* prepared, void* workspace, int64_t workspace_bytes, void* stream) {
    (void)prepared, (void)stream;
    (void)workspace, (void)workspace_bytes;

    simd::Team team;
#pragma omp parallel num_threads(std::min(omp_get_max_threads(), simd::MAX_TEAM)) if (M * N > 16384)
    {
        // fewer rows than threads: the team shares each row
        const bool split = M < omp_get_num_threads();
        const bool leader = !split || omp_get_thread_num() == 0;
        const simd::Range mine =
            split ? simd::Range{0, M} : simd::share(M, 1);
        const simd::Range n_part = split ? simd::share(N, 64) : simd::Range{0, N};
        int turn = 0;
        const auto block = [&](auto nth_rows, int64_t base) INLINED {
            constexpr int rows_at_once = nth_rows;
            simd::blocked_sum<UNROLL> row_sum1_lanes[rows_at_once];
            simd::sweep<UNROLL>(n_part.begin, n_part.end, [&](int64_t n, auto lanes, auto acc) INLINED {
                simd::unrolled<rows_at_once>([&](auto nth) INLINED {
                    const int64_t m = base + nth;
                    simd::prefetch(A + m * N + n);
                    const simd::floats A_at = simd::load(A + m * N + n, lanes);
                    const simd::floats x_at = simd::load(x + n, lanes);
                    row_sum1_lanes[nth].add(acc, simd::keep((A_at * x_at), simd::splat(0.0f), lanes));
                });
            }, [&] { simd::unrolled<rows_at_once>([&](auto nth) INLINED { row_sum1_lanes[nth].settle(); }); });
            simd::unrolled<rows_at_once>([&](auto nth) INLINED {
                const int64_t m = base + nth;
                float row_sum1 = row_sum1_lanes[nth].total();
                if (split) row_sum1 = simd::across_team(team, turn, row_sum1, simd::plus_of{});
                if (leader) simd::put(out + m, row_sum1);
            });
        };
        int64_t m = mine.begin;
        for (; m + ROWS <= mine.end; m += ROWS) block(std::integral_constant<int, ROWS>{}, m);
        for (; m < mine.end; ++m) block(std::integral_constant<int, 1>{}, m);
    }
    return 0;
}
