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
