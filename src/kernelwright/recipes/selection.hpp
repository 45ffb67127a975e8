// The first elements of each row in order. A row is read twice, the second time from the cache. First
// the greatest element of each of many interleaved groups: the k-th greatest of those is a bar that at
// least k elements reach. Then every element that reaches the bar is appended to a buffer (Johnson,
// Douze and Jegou, "Billion-scale similarity search with GPUs", 2017, keep such buffers per thread); a
// full buffer is cut down to its k best, and the bar rises to the least of them.
//
// Elements are told apart by 64-bit numbers, value above complemented index, so that equal values are
// in order of their indices. The smallest elements are the largest of the negated ones.
namespace selection {

constexpr int64_t RANKED = 256;      // so many are sorted by counting, for each, those before it
constexpr int64_t SPARE = 8 * LANES; // room beyond what fills the buffer

inline int64_t capacity(int64_t k) { return std::max<int64_t>(512, 2 * k); }

// One bit per lane that reaches the bar (that is beyond it, once equal ones come too late).
template <bool BEYOND> inline uint32_t reaching(simd::floats v, simd::floats bar) {
#if defined(__AVX512F__) && LANES == 16
    constexpr int how = LARGEST ? (BEYOND ? _CMP_NLE_UQ : _CMP_NLT_UQ) : (BEYOND ? _CMP_GT_OQ : _CMP_GE_OQ);
    return _mm512_cmp_ps_mask((__m512)v, (__m512)bar, how);
#elif defined(__AVX__) && LANES == 8
    constexpr int how = LARGEST ? (BEYOND ? _CMP_NLE_UQ : _CMP_NLT_UQ) : (BEYOND ? _CMP_GT_OQ : _CMP_GE_OQ);
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps((__m256)v, (__m256)bar, how));
#else
    uint32_t bits = 0;
    for (int i = 0; i < LANES; ++i) {
        const bool in = LARGEST ? (BEYOND ? !(v[i] <= bar[i]) : !(v[i] < bar[i]))
                                : (BEYOND ? v[i] > bar[i] : v[i] >= bar[i]);
        bits |= (uint32_t)in << i;
    }
    return bits;
#endif
}

// Appends the chosen lanes; may write a whole vector behind the end.
inline int64_t append(float* values, int32_t* indices, int64_t count, simd::floats v, int64_t at, uint32_t chosen) {
#if defined(__AVX512F__) && LANES == 16
    const __m512i numbers = _mm512_add_epi32(_mm512_set1_epi32((int)at), (__m512i)simd::lane_numbers());
    _mm512_storeu_ps(values + count, _mm512_maskz_compress_ps((__mmask16)chosen, (__m512)v));
    _mm512_storeu_si512(indices + count, _mm512_maskz_compress_epi32((__mmask16)chosen, numbers));
    return count + __builtin_popcount(chosen);
#else
    for (; chosen; chosen &= chosen - 1, ++count) {
        const int lane = __builtin_ctz(chosen);
        values[count] = v[lane];
        indices[count] = (int32_t)at + lane;
    }
    return count;
#endif
}

// In the order of values, NaN above all (below all where the smallest are looked for), zeros equal.
inline int64_t entry(float value, int32_t index) {
    int32_t bits;
    value += 0.0f;
    std::memcpy(&bits, &value, 4);
    int32_t key = bits < 0 ? bits ^ 0x7fffffff : bits;
    if (value != value) key = LARGEST ? INT32_MAX : INT32_MIN;
    return (int64_t)(((uint64_t)(uint32_t)key << 32) | (uint32_t)~index);
}
inline int32_t index_of(int64_t entry) { return (int32_t)~(uint32_t)entry; }
inline float value_of(int64_t entry) {
    const int32_t key = (int32_t)(entry >> 32), bits = key < 0 ? key ^ 0x7fffffff : key;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

// What a thread needs beside a row.
struct Buffer {
    float* values;
    int32_t* indices;
    int64_t* entries;
    int64_t* sorted;
    static int64_t bytes(int64_t k) { return (24 * (capacity(k) + SPARE) + 319) / 64 * 64; }
    Buffer(char* at, int64_t k) {
        const int64_t room = capacity(k) + SPARE;
        entries = (int64_t*)at, sorted = entries + room;
        values = (float*)(sorted + room), indices = (int32_t*)(values + room);
    }
};

// The k-th greatest among the greatest of each group.
template <int VECTORS, class P> inline float bar_of_groups(const P& p, int64_t row, int64_t k) {
    constexpr int GROUPS = VECTORS * LANES;
    simd::floats greatest[VECTORS];
    for (auto& g : greatest) g = simd::splat(-INFINITY);
    for (int64_t i = 0; i + GROUPS <= p.column_count; i += GROUPS)
        simd::unrolled<VECTORS>([&](auto u) INLINED {
            const simd::floats v = p.value(row, i + u * LANES, simd::all_lanes{});
            greatest[u] = v > greatest[u] ? v : greatest[u];
        });
    alignas(64) float each[GROUPS];
    std::memcpy(each, greatest, sizeof each);
    simd::ints above[VECTORS] = {};
    for (int g = 0; g < GROUPS; ++g)
        simd::unrolled<VECTORS>([&](auto u) INLINED { above[u] += simd::splat(each[g]) > greatest[u]; });
    float bar = INFINITY;
    for (int u = 0; u < VECTORS; ++u)
        for (int lane = 0; lane < LANES; ++lane)
            if (-above[u][lane] < k) bar = std::min(bar, each[u * LANES + lane]);
    return bar;
}

// A value that at least k elements reach: the higher the better. With k groups of several elements
// each it is low, with twice as many it is reached by little more than k elements.
template <class P> inline float first_bar(const P& p, int64_t row, int64_t k) {
    const int64_t wanted = std::min(2 * k, p.column_count / 4);
    if (k <= GROUP_VECTORS * LANES && wanted <= GROUP_VECTORS * LANES)
        return p.column_count < 2 * GROUP_VECTORS * LANES ? -INFINITY : bar_of_groups<GROUP_VECTORS>(p, row, k);
    if (k <= 2 * GROUP_VECTORS * LANES && wanted <= 2 * GROUP_VECTORS * LANES)
        return bar_of_groups<2 * GROUP_VECTORS>(p, row, k);
    if (k <= 4 * GROUP_VECTORS * LANES && wanted >= k) return bar_of_groups<4 * GROUP_VECTORS>(p, row, k);
    return -INFINITY;
}

inline void encode(const Buffer& b, int64_t count) {
    for (int64_t i = 0; i < count; ++i) b.entries[i] = entry(b.values[i], b.indices[i]);
}

// Keeps the k best of the buffer; the bar is the value of the last of them.
inline float cut(const Buffer& b, int64_t count, int64_t k) {
    encode(b, count);
    std::nth_element(b.entries, b.entries + k - 1, b.entries + count, std::greater<int64_t>());
    for (int64_t i = 0; i < k; ++i) {
        b.values[i] = value_of(b.entries[i]);
        b.indices[i] = index_of(b.entries[i]);
    }
    return value_of(b.entries[k - 1]);
}

// Appends what reaches the bar from column `at` on, until the buffer is full or the row ends.
template <bool BEYOND, class P>
inline int64_t gather(const P& p, int64_t row, const Buffer& b, int64_t count, float bar, int64_t& at) {
    const int64_t columns = p.column_count, full = capacity(p.position_count);
    const simd::floats limit = simd::splat(bar);
    for (; at + UNROLL * LANES <= columns && count < full; at += UNROLL * LANES) {
        simd::floats v[UNROLL];
        uint32_t chosen[UNROLL], any = 0;
        simd::unrolled<UNROLL>([&](auto u) INLINED {
            v[u] = p.value(row, at + u * LANES, simd::all_lanes{});
            any |= chosen[u] = reaching<BEYOND>(v[u], limit);
        });
        if (any)
            for (int u = 0; u < UNROLL; ++u)
                count = append(b.values, b.indices, count, v[u], at + u * LANES, chosen[u]);
    }
    for (; at < columns && count < full; at += LANES) {
        const simd::first_lanes lanes{std::min<int64_t>(LANES, columns - at)};
        const simd::floats v = p.value(row, at, lanes);
        const uint32_t inside = (uint32_t)((UINT64_C(1) << lanes.count) - 1);
        count = append(b.values, b.indices, count, v, at, reaching<BEYOND>(v, limit) & inside);
    }
    return count;
}

// The k greatest entries, from the greatest down, in `sorted`.
inline void sort(const Buffer& b, int64_t count, int64_t k) {
    if (count > RANKED && count > k) {
        std::nth_element(b.entries, b.entries + k, b.entries + count, std::greater<int64_t>());
        count = k;
    }
    if (count > RANKED) {
        std::copy(b.entries, b.entries + k, b.sorted);
        std::sort(b.sorted, b.sorted + k, std::greater<int64_t>());
        return;
    }
    for (int64_t i = 0; i < count; ++i) {
        const int64_t own = b.entries[i];
        int64_t before = 0;
        for (int64_t j = 0; j < count; ++j) before += b.entries[j] > own;
        b.sorted[before] = own;
    }
}

template <class P> inline void choose(const P& p, int64_t row, const Buffer& b) {
    const int64_t columns = p.column_count, k = p.position_count;
    int64_t at = 0;
    int64_t count = gather<false>(p, row, b, 0, first_bar(p, row, k), at);
    while (at < columns) {
        const float bar = cut(b, count, k);
        count = k;
        if (bar != bar) break;  // nothing is greater, and what is equal comes later
        count = gather<true>(p, row, b, count, bar, at);
    }
    // where the smallest are looked for, NaN reaches no bar: it fills what is left
    for (int64_t i = 0; !LARGEST && count < k && i < columns; ++i) {
        const float value = p.value(row, i, simd::first_lanes{1})[0];
        if (value != value) b.values[count] = value, b.indices[count++] = (int32_t)i;
    }
    encode(b, count);
    sort(b, count, k);
    for (int64_t i = 0; i < k; ++i) p.store(row, i, index_of(b.sorted[i]));
}

template <class P> inline int run(const P& p, void* workspace, int64_t workspace_bytes) {
    const int64_t k = p.position_count, own = Buffer::bytes(k);
    if (k > p.column_count || p.column_count > INT32_MAX || workspace_bytes < own * omp_get_max_threads())
        return 1;
#pragma omp parallel if (p.row_count > 1)
    {
        const int64_t team = omp_get_num_threads(), me = omp_get_thread_num();
        const Buffer buffer((char*)workspace + me * own, k);
        for (int64_t row = p.row_count * me / team; row < p.row_count * (me + 1) / team; ++row)
            choose(p, row, buffer);
    }
    return 0;
}

}  // namespace selection
