// Pointwise work whose inputs are contiguous across the rows of the output. A tile is read in rows of
// the inputs, transposed in registers and written in rows of the output: whole lines on both sides.
// Tiles are taken along the rows of the input, so that a thread reads few long streams.
namespace turned {

constexpr int64_t SERIAL_BELOW = 16384;
constexpr int64_t WIDE = SPAN * LANES;  // columns of a tile

// LANES rows (axis n) by WIDE columns (axis m) from (n, m) on, of which some may be missing.
template <bool FULL, bool STREAMED, class P>
INLINED inline void tile(const P& p, int64_t outer, int64_t n, int64_t m, int64_t rows, int64_t columns) {
    simd::floats values[P::CROSSED][SPAN][LANES];
    simd::unrolled<P::CROSSED>([&](auto load) INLINED {
        for (int s = 0; s < SPAN; ++s) {
            simd::unrolled<LANES>([&](auto i) INLINED {
                const int64_t at = m + s * LANES + i;
                if constexpr (FULL) values[load][s][i] = p.crossed(load, outer, n, at, simd::all_lanes{});
                else if (s * LANES + i < columns)
                    values[load][s][i] = p.crossed(load, outer, n, at, simd::first_lanes{rows});
                else values[load][s][i] = simd::floats{};
            });
            shuffle::transpose(values[load][s]);
        }
    });
    const int64_t count = FULL ? LANES : rows;
    for (int64_t r = 0; r < count; ++r) {
        for (int s = 0; s < SPAN; ++s) {
            simd::floats own[P::CROSSED];
            for (int load = 0; load < P::CROSSED; ++load) own[load] = values[load][s][r];
            const int64_t at = m + s * LANES;
            if constexpr (FULL) p.template store<STREAMED>(outer, n + r, at, own, simd::all_lanes{});
            else if (s * LANES < columns)
                p.template store<false>(outer, n + r, at, own,
                                        simd::first_lanes{std::min<int64_t>(LANES, columns - s * LANES)});
        }
    }
}

// LANES rows by 2 * LANES columns of elements of 16 bits that are only moved: two columns travel
// together in lanes of 32 bits, and a row is a whole line.
typedef uint16_t shorts __attribute__((vector_size(LANES * 2)));
inline simd::uints widen(const uint16_t* p) {
#if defined(__AVX512F__) && LANES == 16
    return (simd::uints)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p));
#else
    shorts values;
    std::memcpy(&values, p, sizeof values);
    return __builtin_convertvector(values, simd::uints);
#endif
}
template <bool STREAMED, class P>
INLINED inline void pairs(const P& p, int64_t outer, int64_t n, int64_t m) {
    simd::floats values[LANES];
    simd::unrolled<LANES>([&](auto i) INLINED {
        const simd::uints first = widen(p.place(outer, n, m + 2 * i));
        values[i] = (simd::floats)(first | widen(p.place(outer, n, m + 2 * i + 1)) << 16);
    });
    shuffle::transpose(values);
    simd::unrolled<LANES>([&](auto r) INLINED {
        uint16_t* to = p.target(outer, n + r, m);
        if constexpr (STREAMED) simd::stream_bytes(to, values[r]);
        else std::memcpy(to, &values[r], sizeof values[r]);
    });
}

// A tile that lacks nothing.
template <bool STREAMED, class P>
INLINED inline void whole(const P& p, int64_t outer, int64_t n, int64_t m) {
    if constexpr (P::PAIRS && SPAN % 2 == 0) {
        for (int64_t at = m; at < m + WIDE; at += 2 * LANES) pairs<STREAMED>(p, outer, n, at);
    } else {
        tile<true, STREAMED>(p, outer, n, m, LANES, WIDE);
    }
}

template <bool STREAMED, class P>
inline void strip(const P& p, int64_t outer, int64_t first, int64_t last, int64_t begin, int64_t end) {
    for (int64_t n = first; n < last; n += LANES) {
        const int64_t rows = std::min<int64_t>(LANES, last - n);
        for (int64_t m = begin; m < end; m += WIDE) {
            const int64_t columns = std::min(WIDE, end - m);
            if (PREFETCH)
                for (int64_t i = 0; i < columns; ++i) p.prefetch(outer, n + PREFETCH, m + i);
            if (rows == LANES && columns == WIDE) whole<STREAMED>(p, outer, n, m);
            else tile<false, STREAMED>(p, outer, n, m, rows, columns);
        }
    }
}

template <class P> inline int run(const P& p) {
    const int64_t height = p.across_count, width = p.column_count;
    const int64_t strips = (width + STRIP - 1) / STRIP, parts = (height + PART - 1) / PART;
    const int64_t works = p.outer_count * strips * parts;
    // whole lines can only be written around the cache where every row begins at one
    const bool lines = STREAM && width * P::BYTES % 64 == 0 && STRIP * P::BYTES % 64 == 0;
#pragma omp parallel if (p.outer_count * height * width > SERIAL_BELOW)
    {
        const simd::Range mine = simd::share(works, 1);
        for (int64_t work = mine.begin; work < mine.end; ++work) {
            const int64_t first = work % parts * PART, begin = work / parts % strips * STRIP;
            const int64_t last = std::min(height, first + PART), end = std::min(width, begin + STRIP);
            const int64_t outer = work / parts / strips;
            if (lines) strip<true>(p, outer, first, last, begin, end);
            else strip<false>(p, outer, first, last, begin, end);
        }
        if (STREAM) simd::stream_fence();
    }
    return 0;
}

}  // namespace turned
