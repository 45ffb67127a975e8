// A rowwise kernel, bf16 workloads:
//
//     out[t, h] = exp(x[t, h] - max[i < H](x[t, i])) / sum[k < H](exp(x[t, k] - max[j < H](x[t, j])))
//
// @tune LANES = 8, 16, 4
// @tune UNROLL = 4, 2, 1, 8
// @tune STREAM = 1, 0
// @tune CACHE_ROW = 1, 0
// @tune AHEAD = 1, 0
// @tune PREFETCH = 4096, 0, 1024, 512, 2048
// @tune FLAGS = "-O3 -march=native"

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

inline void store(float* p, floats values, all_lanes) { std::memcpy(p, &values, sizeof values); }
inline void store(float* p, floats values, first_lanes lanes) {
#if defined(__AVX512F__) && LANES == 16
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << lanes.count) - 1), (__m512)values);
#else
    for (int64_t i = 0; i < lanes.count; ++i) p[i] = values[i];
#endif
}

// bfloat16 is the upper half of a float: widening is a shift, narrowing rounds to nearest even.
typedef uint16_t shorts __attribute__((vector_size(LANES * 2)));
inline floats widen_bf16(shorts bits) {
#if defined(__AVX512F__) && LANES == 16
    return (floats)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)bits), 16);
#endif
    return (floats)(__builtin_convertvector(bits, uints) << 16);
}
inline uints bf16_bits(floats values) {
    const uints bits = (uints)values;
    const uints rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return (values != values) ? ((bits >> 16) | 0x40u) : rounded;  // a NaN stays a NaN
}
inline shorts narrow_bf16(floats values) {
#if defined(__AVX512BF16__) && defined(__AVX512DQ__) && LANES == 16
    const int subnormal = 0x20;  // which the instruction would take for zeros
    if (!_mm512_fpclass_ps_mask((__m512)values, subnormal))
        return (shorts)_mm512_cvtneps_pbh((__m512)values);
#endif
    return __builtin_convertvector(bf16_bits(values), shorts);
}
inline floats round_to_bf16(floats values) { return widen_bf16(narrow_bf16(values)); }

inline floats load(const bf16* p, all_lanes) {
    shorts bits;
    std::memcpy(&bits, p, sizeof bits);
    return widen_bf16(bits);
}
inline floats load(const bf16* p, first_lanes lanes) {
    return widen_bf16(each<shorts>(lanes, [&](int64_t i) { return p[i].bits; }));
}

inline void store(bf16* p, floats values, all_lanes) {
    const shorts bits = narrow_bf16(values);
    std::memcpy(p, &bits, sizeof bits);
}
inline void store(bf16* p, floats values, first_lanes lanes) {
    const shorts bits = narrow_bf16(values);
    for (int64_t i = 0; i < lanes.count; ++i) p[i].bits = bits[i];
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

inline void write(bf16* p, floats values, all_lanes lanes) {
    if (STREAM) stream_bytes(p, narrow_bf16(values));
    else store(p, values, lanes);
}
inline void write(bf16* p, floats values, first_lanes lanes) { store(p, values, lanes); }

// Ask for the line PREFETCH bytes ahead.
inline void prefetch(const void* p) {
    if (PREFETCH) __builtin_prefetch((const char*)p + PREFETCH);
}

// Ask for a line of the next row while this row is being finished, so that memory never idles.
inline void prefetch_ahead(const void* p) {
    if (AHEAD) __builtin_prefetch(p);
}

// The greater and the lesser of two; NaN if either is, as in the reference.
inline floats maximum(floats a, floats b) { return ((a > b) | (a != a)) ? a : b; }
inline floats minimum(floats a, floats b) { return ((a < b) | (a != a)) ? a : b; }
inline ints maximum(ints a, ints b) { return a > b ? a : b; }
inline ints minimum(ints a, ints b) { return a < b ? a : b; }
inline longs maximum(longs a, longs b) { return a > b ? a : b; }
inline longs minimum(longs a, longs b) { return a < b ? a : b; }
template <class T> inline T maximum(T a, T b) { return a > b || a != a ? a : b; }
template <class T> inline T minimum(T a, T b) { return a < b || a != a ? a : b; }

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

struct greater_of {
    template <class T> T operator()(T a, T b) const { return maximum(a, b); }
};
struct lesser_of {
    template <class T> T operator()(T a, T b) const { return minimum(a, b); }
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

inline floats absolute(floats x) { return (floats)((ints)x & 0x7fffffff); }
inline floats with_sign(floats x, floats sign) {
    return (floats)(((ints)x & 0x7fffffff) | ((ints)sign & (int32_t)0x80000000));
}
// 2^n for -126 <= n <= 127.
inline floats power_of_two(ints n) { return (floats)((n + 127) << 23); }

// e^x to 1 ulp: x = n ln 2 + r, a polynomial in r (Cephes expf), then 2^n in two factors so that
// results below the normal range and up to infinity come out right. What underflows even there is set
// to 0 apart: to compute it takes 150 cycles more, and masked scores are -infinity in every vector.
inline floats times_power_of_two(floats x, floats n) {
#if defined(__AVX512F__) && LANES % 16 == 0
    for (int i = 0; i < LANES; i += 16)
        _mm512_storeu_ps((float*)&x + i, _mm512_scalef_ps(_mm512_loadu_ps((float*)&x + i),
                                                          _mm512_loadu_ps((float*)&n + i)));
    return x;
#endif
    const ints whole = __builtin_convertvector(n, ints), half = whole >> 1;
    return x * power_of_two(half) * power_of_two(whole - half);
}
inline floats exp(floats x) {
    const ints vanishes = x < -104.0f;
    x = vanishes ? splat(0.0f) : x;
    x = x > 89.0f ? splat(89.0f) : x;
    const floats magic = splat(12582912.0f);
    const floats n = (x * 1.44269504088896341f + magic) - magic;
    floats r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    return vanishes ? splat(0.0f) : times_power_of_two(p, n);
}

}  // namespace simd

// Floats in the scratch row of a thread.
static int64_t kept_row(int64_t T, int64_t H) {
    (void)T;
    (void)H;
    return (H + 15) / 16 * 16;
}

extern "C" int64_t kernel_workspace(int64_t T, int64_t H) {
    (void)T;
    (void)H;
    const int64_t floats = 1 * kept_row(T, H) * omp_get_max_threads();
    return (CACHE_ROW ? floats * (int64_t)sizeof(float) : 0);
}

extern "C" int kernel(const bf16* x, bf16* out, int64_t T, int64_t H, const void* prepared, void* workspace, int64_t workspace_bytes, void* stream) {
    (void)prepared, (void)stream;
    if (workspace_bytes < kernel_workspace(T, H)) return 1;

    simd::Team team;
#pragma omp parallel num_threads(std::min(omp_get_max_threads(), simd::MAX_TEAM)) if (T * H > 16384)
    {
        // fewer rows than threads: the team shares each row
        const bool split = T < omp_get_num_threads();
        const simd::Range mine =
            split ? simd::Range{0, T} : simd::share(T, 1);
        const simd::Range h_part = split ? simd::share(H, 64) : simd::Range{0, H};
        int turn = 0;
        float* scratch = (float*)workspace;
        if (CACHE_ROW && !split) scratch += omp_get_thread_num() * 1 * kept_row(T, H);
        for (int64_t t = mine.begin; t < mine.end; ++t) {

            // max along h
            simd::floats row_max1_lanes[UNROLL]; for (auto& lane : row_max1_lanes) lane = simd::splat((-INFINITY));
            simd::sweep<UNROLL>(h_part.begin, h_part.end, [&](int64_t h, auto lanes, auto acc) INLINED {
                simd::prefetch(x + t * H + h);
                const simd::floats x_at = simd::load(x + t * H + h, lanes);
                row_max1_lanes[acc] = simd::maximum(simd::keep(x_at, simd::splat((-INFINITY)), lanes), row_max1_lanes[acc]);
            });
            float row_max1 = simd::across(row_max1_lanes, simd::greater_of{});
            if (split) row_max1 = simd::across_team(team, turn, row_max1, simd::greater_of{});

            // sum along h
            simd::blocked_sum<UNROLL> row_sum2_lanes;
            simd::sweep<UNROLL>(h_part.begin, h_part.end, [&](int64_t h, auto lanes, auto acc) INLINED {
                const simd::floats x_at = simd::load(x + t * H + h, lanes);
                const simd::floats kept = simd::exp((x_at - row_max1));
                if (CACHE_ROW) simd::store(scratch + h, kept, lanes);
                row_sum2_lanes.add(acc, simd::keep(kept, simd::splat(0.0f), lanes));
            }, [&] { row_sum2_lanes.settle(); });
            float row_sum2 = row_sum2_lanes.total();
            if (split) row_sum2 = simd::across_team(team, turn, row_sum2, simd::plus_of{});

            // out along h
            const float reciprocal_of = 1.0f / row_sum2;
            simd::sweep_lines<UNROLL>(out + t * H + h_part.begin, h_part.begin, h_part.end, [&](int64_t h, auto lanes, auto) INLINED {
                simd::prefetch_ahead(x + t * H + h + H);
                const simd::floats x_at = simd::load(x + t * H + h, lanes);
                const simd::floats exp_of = CACHE_ROW ? simd::load(scratch + h, lanes) : simd::exp((x_at - row_max1));
                simd::write(out + t * H + h, exp_of * reciprocal_of, lanes);
            });
        }
        if (STREAM) simd::stream_fence();
    }
    return 0;
}
