// Sums over windows that move with the output. A thread copies a band of the signal, with its zero
// columns, into a buffer of its own; a tile of ROWS rows by VECTORS vectors of outputs stays in
// registers while each row of the band below it passes by: one load serves ROWS products.
namespace windows {

using simd::floats;

template <class P> struct Layout {
    int64_t rows, columns, row_bands, column_bands, pitch, signal_floats, tap_floats;

    Layout(const P& p, int64_t team) : rows(p.row_count), columns(std::min<int64_t>(p.column_count, COLUMNS)) {
        while (floats_of(p) > (1 << 18) && rows > ROWS) rows = smaller(rows, ROWS);
        while (units(p) < team && rows > ROWS) rows = smaller(rows, ROWS);
        while (units(p) < team && columns > 8 * LANES) columns = smaller(columns, LANES);
        row_bands = (p.row_count + rows - 1) / rows;
        column_bands = (p.column_count + columns - 1) / columns;
        pitch = pitch_of(p);
        signal_floats = floats_of(p);
        tap_floats = (p.window_rows * p.window_columns + 15) / 16 * 16;
    }
    // About half, as a multiple.
    static int64_t smaller(int64_t size, int64_t multiple) {
        return (size / 2 + multiple - 1) / multiple * multiple;
    }
    int64_t pitch_of(const P& p) const {
        return ((columns + LANES - 1) / LANES * LANES + p.window_columns - 1 + 15) / 16 * 16;
    }
    int64_t floats_of(const P& p) const {
        return std::min<int64_t>(rows + p.window_rows - 1, p.height) * pitch_of(p);
    }
    int64_t units(const P& p) const {
        return p.plane_count * ((p.row_count + rows - 1) / rows) *
               ((p.column_count + columns - 1) / columns);
    }
    int64_t own_floats() const { return signal_floats + tap_floats; }
};

template <class P> int64_t workspace(const P& p) {
    const int64_t team = omp_get_max_threads();
    return team * Layout<P>(p, team).own_floats() * (int64_t)sizeof(float) + 64;
}

// A band of outputs with its part of the signal.
struct Band {
    int64_t plane, row, row_end, column, column_end, first_row;
    const float* signal;
    const float* taps;
    int64_t pitch;
};

template <class P> inline int64_t clamped(int64_t at, int64_t end) {
    return std::max<int64_t>(0, std::min(at, end));
}

template <class P> void pack(const P& p, Band& band, float* signal) {
    const int64_t left = band.column - p.left, length = band.column_end - band.column;
    band.first_row = clamped<P>(band.row - p.top, p.height);
    const int64_t end = clamped<P>(band.row_end - 1 + p.window_rows - p.top, p.height);
    const int64_t begin = clamped<P>(left, p.width);
    const int64_t stop = std::max(begin, clamped<P>(left + length + p.window_columns - 1, p.width));
    for (int64_t y = band.first_row; y < end; ++y) {
        float* to = signal + (y - band.first_row) * band.pitch;
        std::memset(to, 0, (begin - left) * sizeof(float));
        p.pack_signal(band.plane, y, begin, stop, to + (begin - left));
        std::memset(to + (stop - left), 0, (band.pitch - (stop - left)) * sizeof(float));
    }
}

// Outputs of R rows by V vectors, from their first row and column.
template <int R, int V, class P>
__attribute__((noinline)) void tile(const P& p, const Band& band, int64_t row, int64_t column) {
    floats sums[R][V];
    simd::unrolled<R>([&](auto r) INLINED {
        simd::unrolled<V>([&](auto v) INLINED { sums[r][v] = floats{}; });
    });
    const int64_t taps = p.window_columns, rows = p.window_rows, up = row - p.top;
    const float* base = band.signal + (up - band.first_row) * band.pitch + (column - band.column);
    // the row `step` below the first one's window meets output rows LOW <= r < HIGH
    const auto meet = [&](auto low, auto high, int64_t step) INLINED {
        constexpr int LOW = low, HIGH = high;
        if (up + step < 0 || up + step >= p.height) return;
        const float* from = base + step * band.pitch;
        const float* weights = band.taps + step * taps;
        const auto product = [&](int64_t l) INLINED {
            floats x[V];
            simd::unrolled<V>([&](auto v) INLINED {
                x[v] = simd::load(from + l + v * LANES, simd::all_lanes{});
            });
            simd::unrolled<HIGH - LOW>([&](auto n) INLINED {
                constexpr int r = LOW + n;
                const floats weight = simd::splat(weights[l - r * taps]);
                simd::unrolled<V>([&](auto v) INLINED { sums[r][v] += weight * x[v]; });
            });
        };
        int64_t l = 0;
        for (; l + TAPS <= taps; l += TAPS)
            simd::unrolled<TAPS>([&](auto t) INLINED { product(l + t); });
        for (; l < taps; ++l) product(l);
    };
    constexpr std::integral_constant<int, 0> none{};
    constexpr std::integral_constant<int, R> all{};
    simd::unrolled<R - 1>([&](auto j) INLINED {
        meet(none, std::integral_constant<int, j + 1>{}, j);
    });
    for (int64_t step = R - 1; step < rows; ++step) meet(none, all, step);
    simd::unrolled<R - 1>([&](auto j) INLINED {
        meet(std::integral_constant<int, j + 1>{}, all, rows + j);
    });
    simd::unrolled<R>([&](auto r) INLINED {
        simd::unrolled<V>([&](auto v) INLINED {
            const int64_t at = column + v * LANES, left = band.column_end - at;
            if (left >= LANES) p.store(band.plane, row + r, at, sums[r][v], simd::all_lanes{});
            else if (left > 0) p.store(band.plane, row + r, at, sums[r][v], simd::first_lanes{left});
        });
    });
}

template <int R, int V, class P>
inline void narrow(const P& p, const Band& band, int64_t row, int64_t column, int64_t vectors) {
    if constexpr (V > 1)
        if (vectors < V) return narrow<R, V - 1>(p, band, row, column, vectors);
    tile<R, V>(p, band, row, column);
}

template <int R, class P> void across(const P& p, const Band& band, int64_t row) {
    for (int64_t at = band.column; at < band.column_end; at += VECTORS * LANES)
        narrow<R, VECTORS>(p, band, row, at, (band.column_end - at + LANES - 1) / LANES);
}

template <class P> int run(const P& p, void* workspace, int64_t workspace_bytes) {
    if (workspace_bytes < windows::workspace(p)) return 1;
    float* buffers = (float*)(((uintptr_t)workspace + 63) / 64 * 64);
    const Layout<P> layout(p, omp_get_max_threads());
#pragma omp parallel
    {
        float* signal = buffers + omp_get_thread_num() * layout.own_floats();
        float* taps = signal + layout.signal_floats;
        const simd::Range mine = simd::share(layout.units(p), 1);
        int64_t packed = -1;
        for (int64_t unit = mine.begin; unit < mine.end; ++unit) {
            const int64_t strip = unit / layout.column_bands, plane = strip / layout.row_bands;
            const int64_t row = strip % layout.row_bands * layout.rows;
            const int64_t column = unit % layout.column_bands * layout.columns;
            Band band{plane, row, std::min(row + layout.rows, p.row_count), column,
                      std::min(column + layout.columns, p.column_count), 0, signal, taps,
                      layout.pitch};
            if (packed != plane) p.pack_taps(packed = plane, taps);
            pack(p, band, signal);
            int64_t at = row;
            if (p.window_rows >= ROWS)
                for (; at + ROWS <= band.row_end; at += ROWS) across<ROWS>(p, band, at);
            for (; at < band.row_end; ++at) across<1>(p, band, at);
        }
    }
    return 0;
}

}  // namespace windows
