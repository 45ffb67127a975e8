// Sums over the segments of a long vector. Threads get equal shares of elements and segments together,
// cut wherever they end (Merrill and Garland, "Merge-based parallel sparse matrix-vector multiplication",
// 2016), so that neither one long segment nor many empty ones keep a thread longer than the others.
// The values of a chunk are computed in whole vectors, wherever segments begin, and then summed from the
// nearest cache. Within a chunk sums run in float32, beyond in double.
namespace segments {

constexpr int64_t SERIAL_BELOW = 16384;
constexpr int MAX_TEAM = 256;

// p[index] in each lane; missing lanes have index 0, which exists.
template <class Lanes> inline simd::floats gather(const float* p, simd::ints index, Lanes lanes) {
#if GATHER && defined(__AVX512F__) && LANES == 16
    return (simd::floats)_mm512_i32gather_ps((__m512i)index, p, 4);
#elif GATHER && defined(__AVX2__) && LANES == 8
    return (simd::floats)_mm256_i32gather_ps(p, (__m256i)index, 4);
#else
    return simd::each<simd::floats>(lanes, [&](int64_t i) { return p[index[i]]; });
#endif
}
template <class Lanes> inline simd::floats gather(const bf16* p, simd::ints index, Lanes lanes) {
#if GATHER && ((defined(__AVX512F__) && LANES == 16) || (defined(__AVX2__) && LANES == 8))
    // the aligned pair that an element is in
    const simd::ints pair = (simd::ints)gather((const float*)p, index >> 1, lanes);
    return (simd::floats)((index & 1) ? pair & (int32_t)0xffff0000 : pair << 16);
#else
    return simd::each<simd::floats>(lanes, [&](int64_t i) { return simd::get(p + index[i]); });
#endif
}
template <class Lanes> inline simd::floats gather(const f16* p, simd::ints index, Lanes lanes) {
    return simd::each<simd::floats>(lanes, [&](int64_t i) { return to_float(p[index[i]]); });
}

// A place on the way through all segments and elements: what is done before it.
struct Place {
    int64_t segment, element;
};

// Where `steps` segments and elements are done; a segment is done after its elements.
template <class P> inline Place place(const P& p, int64_t steps) {
    int64_t low = std::max<int64_t>(0, steps - p.element_count), high = std::min(steps, p.segment_count);
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (p.start(middle + 1) + middle + 1 <= steps) low = middle + 1;
        else high = middle;
    }
    return {low, steps - low};
}

inline float sum(const float* values, int64_t begin, int64_t end) {
    simd::floats total = {};
    for (; begin + LANES <= end; begin += LANES) total += simd::load(values + begin, simd::all_lanes{});
    // without a branch: most segments are short, and no two of the same length
    total += simd::load(values + begin, simd::first_lanes{end - begin});
    return shuffle::sum(total)[0];
}

// What a thread leaves to be put together: of its first segment, which others may have begun, and of
// its last, which others go on with.
struct alignas(64) Ends {
    int64_t first = 0, last = 0;
    double head = 0.0, tail = 0.0;
};

template <class P> inline Ends work(const P& p, Place from, Place to) {
    alignas(64) float values[CHUNK + LANES];
    Ends ends{from.segment, to.segment, 0.0, 0.0};
    int64_t segment = from.segment, element = from.element;
    double before = 0.0;
    do {
        const int64_t base = element, stop = std::min(base + CHUNK, to.element);
        simd::sweep<UNROLL>(base, stop, [&](int64_t at, auto lanes, auto) INLINED {
            simd::store(values + (at - base), p.value(at, lanes), simd::all_lanes{});
        });
        for (; segment < to.segment; ++segment) {
            if (segment + LANES <= to.segment && segment != ends.first && p.start(segment + LANES) == element) {
                p.store(segment, (float)before);  // the next ones have no elements here
                for (int i = 1; i < LANES; ++i) p.store(segment + i, 0.0f);
                before = 0.0, segment += LANES - 1;
                continue;
            }
            const int64_t end = p.start(segment + 1);
            if (end > stop) break;
            const double total = before + (double)sum(values, element - base, end - base);
            if (segment == ends.first) ends.head = total;
            else p.store(segment, (float)total);
            before = 0.0, element = end;
        }
        before += (double)sum(values, element - base, stop - base);
        element = stop;
    } while (element < to.element);
    ends.tail = before;
    return ends;
}

template <class P> inline int run(const P& p) {
    if (!p.fits()) return 1;
    Ends ends[MAX_TEAM];
    int64_t team = 1;
    const int64_t steps = p.segment_count + p.element_count;
#pragma omp parallel num_threads(std::min(omp_get_max_threads(), MAX_TEAM)) if (steps > SERIAL_BELOW)
    {
        const int64_t count = omp_get_num_threads(), me = omp_get_thread_num();
        if (me == 0) team = count;
        ends[me] = work(p, place(p, steps * me / count), place(p, steps * (me + 1) / count));
    }
    double before = 0.0;
    for (int64_t t = 0; t < team; ++t) {
        if (ends[t].first < ends[t].last) {
            p.store(ends[t].first, (float)(before + ends[t].head));
            before = 0.0;
        }
        before += ends[t].tail;
    }
    return 0;
}

}  // namespace segments
