// Softmax attention with an online softmax (Milakov and Gimelshein, "Online normalizer calculation for
// softmax", 2018; Dao et al., "FlashAttention", 2022): queries in tiles, keys in blocks, and nothing of
// the size of the score matrix is ever stored. Both products run on the register tile of the
// contraction, the scores of a tile going from one to the other through the nearest cache.
//
// A problem P has plain accessors, each made for one batch or row, so that what is invariant is computed
// once: queries(batch), keys(batch) and values(batch) give a function from an index (and scratch memory
// for a line that is computed) to a pointer to its contiguous line; ends(batch) one from a row to the
// number of keys that it sees at most; scores(batch) one from a row to one from products to scores.
//
// Keys of all batches are packed ahead where several tiles of queries meet them. Where there is one
// tile of queries (decoding), keys are cut into parts of at least SPLIT that are combined at the end.
namespace attention {

using contraction::NR;
using contraction::ceil_div;
using contraction::least;
using contraction::round_up;

// Where element e of a row of a panel of sums lies.
inline int64_t place(int64_t e) { return e / NR * (MR * NR) + e % NR; }

constexpr int BLOCK = KEYS;  // keys at a time
constexpr int TILE = PANELS * MR;  // queries at a time
constexpr int PADDED = (MR + LANES - 1) / LANES * LANES;  // rows of a panel, in whole vectors
static_assert(BLOCK % NR == 0 && BLOCK % 32 == 0, "blocks of keys in whole panels");

#if DOT
typedef uint16_t element;
constexpr int STEP = contraction::KP;  // panels are padded to so many steps of their depth
#else
typedef float element;
constexpr int STEP = contraction::KB;
#endif

// How the work is cut; the same numbers size the workspace and drive the loops.
template <class P> struct Plan {
    static constexpr int64_t MOST_AHEAD = int64_t(1) << 30, MOST_PARTIAL = int64_t(1) << 26;
    int64_t threads, depth, column_panels, blocks, tiles, items, parts, part_keys;
    int64_t key_elements, value_elements, query_elements, mixed_floats, partial_floats, own_bytes;
    bool ahead;

    explicit Plan(const P& p) {
        threads = omp_get_max_threads();
        depth = round_up(p.depth_count, STEP);
        column_panels = ceil_div(p.column_count, NR);
        blocks = ceil_div(p.key_count, BLOCK);
        tiles = ceil_div(p.row_count, TILE);
        items = p.batch_count * tiles;
        key_elements = BLOCK * depth;
        value_elements = column_panels * NR * BLOCK;
        query_elements = TILE * depth;
        mixed_floats = TILE * column_panels * NR;
        partial_floats = round_up(mixed_floats + 2 * PANELS * PADDED, 16);
        const int64_t block_bytes = (key_elements + value_elements) * sizeof(element);
        ahead = tiles > 1 && p.batch_count * blocks * block_bytes <= MOST_AHEAD;
        const int64_t wanted = tiles == 1 ? ceil_div(p.key_count, SPLIT) : ceil_div(2 * threads, items);
        const int64_t room = MOST_PARTIAL / (4 * items * partial_floats);
        part_keys = round_up(ceil_div(p.key_count, std::max<int64_t>(1, least(wanted, room))), BLOCK);
        parts = ceil_div(p.key_count, part_keys);
        const int64_t line = round_up(std::max(p.depth_count, p.column_count), 16);
        own_bytes = 4 * (partial_floats + BLOCK * MR + (P::plain ? 0 : NR * line)) +
                    sizeof(element) * (BLOCK * MR + query_elements) + (ahead ? 0 : block_bytes) + 64 * 8;
        own_bytes = round_up(own_bytes, 4096) + 64 * 5;
    }
    int64_t block_elements() const { return key_elements + value_elements; }
    int64_t ahead_bytes(const P& p) const {
        return ahead ? round_up(p.batch_count * blocks * block_elements() * sizeof(element), 64) : 0;
    }
    int64_t partial_bytes() const { return parts > 1 ? items * parts * partial_floats * 4 : 0; }
    int64_t bytes(const P& p) const { return 64 + threads * own_bytes + ahead_bytes(p) + partial_bytes(); }
};

// The memory of one thread.
struct Own {
    char* next;
    float *partial, *products, *lines = nullptr;
    element *weights, *queries, *block = nullptr;
    template <class P> Own(const Plan<P>& plan, char* memory) : next(memory) {
        partial = take<float>(plan.partial_floats);
        products = take<float>(BLOCK * MR);
        weights = take<element>(BLOCK * MR);
        queries = take<element>(plan.query_elements);
        if (!plan.ahead) block = take<element>(plan.block_elements());
        lines = (float*)next;
    }
    template <class T> T* take(int64_t count) {
        T* taken = (T*)next;
        next += round_up(count * sizeof(T), 64);
        return taken;
    }
};

// -- packing --------------------------------------------------------------------------------------

#if DOT
// Up to 16 pairs of a line of bfloat16, zero beyond its end.
inline __m512i pairs_of(const bf16* line, int64_t count) {
    if (count >= 32) return _mm512_loadu_si512(line);
    const __mmask32 there = count > 0 ? (__mmask32)((1u << count) - 1) : 0;
    return _mm512_maskz_loadu_epi16(there, line);
}
inline void pack_query(const bf16* line, int i, int64_t depth, element* to) {
    for (int64_t k = 0; k < depth; k += 32)
        _mm512_storeu_si512(to + (k / 32 * MR + i) * 32, pairs_of(line + k, depth - k));
}
inline void pack_panel_of_keys(const bf16* const* lines, int count, int64_t depth, element* to) {
    for (int j = 0; j < NR; j += 16)
        for (int64_t k = 0; k < depth; k += 32) {
            simd::floats square[16] = {};
            for (int c = 0; c < 16; ++c)
                if (j + c < count) square[c] = (simd::floats)pairs_of(lines[j + c] + k, depth - k);
            shuffle::transpose(square);
            for (int r = 0; r < 16; ++r)
                _mm512_storeu_si512(to + ((k / 2 + r) * NR + j) * 2, (__m512i)square[r]);
        }
}
// A line of values and the next one, of which a missing one is null.
inline void pack_two_values(const bf16* even, const bf16* odd, int64_t key, int64_t columns, element* to) {
    for (int64_t e = 0; e < round_up(columns, NR); e += 16) {
        const int64_t rest = std::max<int64_t>(0, columns - e);
        const __mmask16 there = rest >= 16 ? 0xffff : (__mmask16)((1u << rest) - 1);
        const __m256i none = _mm256_setzero_si256();
        const __m256i low = even ? _mm256_maskz_loadu_epi16(there, even + e) : none;
        const __m256i high = odd ? _mm256_maskz_loadu_epi16(there, odd + e) : none;
        const __m512i both = _mm512_or_si512(_mm512_cvtepu16_epi32(low),
                                             _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
        _mm512_storeu_si512(to + e / NR * (NR * BLOCK) + (key / 2 * NR + e % NR) * 2, both);
    }
}
#else
template <class T> inline void pack_query(const T* line, int i, int64_t depth, element* to) {
    simd::sweep<1>(0, depth, [&](int64_t k, auto lanes, auto) INLINED {
        simd::store(to + contraction::inner_k(i, k), simd::load(line + k, lanes), simd::all_lanes{});
    });
}
template <class T>
inline void pack_panel_of_keys(const T* const* lines, int count, int64_t depth, element* to) {
    contraction::pack_transposed<NR>([&](int64_t j) INLINED { return lines[j]; }, count, depth, to);
}
template <class T> inline void pack_values(const T* line, int64_t key, int64_t columns, element* to) {
    const auto at = [&](int64_t e) INLINED { return to + e / NR * (NR * BLOCK) + key * NR + e % NR; };
    simd::sweep<1>(0, columns, [&](int64_t e, auto lanes, auto) INLINED {
        simd::store(at(e), simd::load(line + e, lanes), simd::all_lanes{});
    });
    for (int64_t e = round_up(columns, LANES); e < round_up(columns, NR); e += LANES)
        simd::store(at(e), simd::floats{}, simd::all_lanes{});
}
#endif

template <class P>
inline void pack_keys(const P& p, int64_t batch, int64_t first, int64_t count, float* scratch, element* to) {
    const auto line_of = p.keys(batch);
    const int64_t depth = p.depth_count, size = round_up(depth, 16), panel = NR * round_up(depth, STEP);
    for (int64_t j = 0; j < count; j += NR, to += panel) {
        const int width = int(least(NR, count - j));
        decltype(line_of(0, scratch)) lines[NR];
        for (int c = 0; c < width; ++c) lines[c] = line_of(first + j + c, scratch + (P::plain ? 0 : c * size));
        pack_panel_of_keys(lines, width, depth, to);
    }
}

// Values of a block, with zeros for keys up to the next whole step.
template <class P>
inline void pack_all_values(const P& p, int64_t batch, int64_t first, int64_t count, float* scratch,
                            element* to) {
    const auto line_of = p.values(batch);
#if DOT
    for (int64_t t = 0; t < round_up(count, STEP); t += 2) {
        const auto even = t < count ? line_of(first + t, scratch) : nullptr;
        const auto odd = t + 1 < count ? line_of(first + t + 1, scratch) : nullptr;
        pack_two_values(even, odd, t, p.column_count, to);
    }
#else
    for (int64_t t = 0; t < count; ++t) pack_values(line_of(first + t, scratch), t, p.column_count, to);
#endif
}

template <class P>
inline void pack_block(const P& p, const Plan<P>& plan, int64_t batch, int64_t first, int64_t end,
                       float* scratch, element* to) {
    const int64_t count = least(BLOCK, end - first);
    pack_keys(p, batch, first, count, scratch, to);
    pack_all_values(p, batch, first, count, scratch, to + plan.key_elements);
}

// -- one tile of queries --------------------------------------------------------------------------

inline void multiply(int64_t depth, const element* a, const element* b, float* tile, bool accumulate) {
#if DOT
    contraction::pair_kernel(round_up(depth, STEP), a, b, tile, accumulate, contraction::Nothing{});
#else
    contraction::micro_kernel<true>(depth, a, b, NR, tile, accumulate);
#endif
}

// e^x for x <= 0 or NaN, 0 where it would be subnormal: as simd::exp, with a polynomial of one degree
// less, fitted to the least relative error (3e-9), and ln 2 in one part, whose error of 2e-9 n is below
// half an ulp down to e^-20, and never more than 4 ulp.
inline simd::floats weight_of(simd::floats x) {
#if defined(__AVX512F__) && LANES == 16
    const __m512 v = (__m512)x;
    const __mmask16 there = _mm512_cmp_ps_mask(v, _mm512_set1_ps(-87.0f), _CMP_NLT_UQ);
    const __m512 magic = _mm512_set1_ps(12582912.0f);
    const __m512 shifted = _mm512_fmadd_ps(v, _mm512_set1_ps(1.44269504088896341f), magic);
    const __m512 n = _mm512_sub_ps(shifted, magic);
    const __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693147180559945309f), v);
    __m512 y = _mm512_fmadd_ps(r, _mm512_set1_ps(1.381459879e-3f), _mm512_set1_ps(8.368716575e-3f));
    y = _mm512_fmadd_ps(r, y, _mm512_set1_ps(4.166838899e-2f));
    y = _mm512_fmadd_ps(r, y, _mm512_set1_ps(1.666652113e-1f));
    y = _mm512_fmadd_ps(r, y, _mm512_set1_ps(4.999999404e-1f));
    y = _mm512_fmadd_ps(r, y, _mm512_set1_ps(1.0f));
    y = _mm512_fmadd_ps(r, y, _mm512_set1_ps(1.0f));
    return (simd::floats)_mm512_maskz_scalef_ps(there, y, n);
#else
    return simd::exp(x);
#endif
}

// Exponentials in the layout of the left operand.
inline void put_weights(element* weights, int i, uint64_t k, simd::floats w) {
#if DOT
    const __m256i narrow = (__m256i)_mm512_cvtneps_pbh((__m512)w);
    _mm256_storeu_si256((__m256i*)(weights + (k / 32 * MR + i) * 32 + k % 32), narrow);
#else
    simd::store(weights + contraction::inner_k(i, k), w, simd::all_lanes{});
#endif
}

inline simd::floats greater(simd::floats a, simd::floats b) {
#if defined(__AVX512F__) && LANES == 16
    return (simd::floats)_mm512_max_ps((__m512)a, (__m512)b);
#else
    return a > b ? a : b;
#endif
}

// Vectors of a panel's rows, combined across their lanes: one number per row, rows in lanes.
template <class F> inline simd::floats across(const simd::floats* rows, F combine) {
    simd::floats square[LANES];
    for (int i = 0; i < LANES; ++i) square[i] = rows[i];
    shuffle::transpose(square);
    for (int step = LANES / 2; step > 0; step /= 2)
        for (int i = 0; i < step; ++i) square[i] = combine(square[i], square[i + step]);
    return square[0];
}

// The rows of one panel in one block of keys.
struct Rows {
    int64_t first, seen[MR];  // the first key, and how many each row sees from there on
    float *greatest, *total;  // of each row so far
    simd::floats lines[PADDED];
    alignas(64) float shift[PADDED], scale[PADDED];

    // step(k, products, lanes, v) for the vectors of row i, panel by panel; v < NV.
    template <class Step> INLINED void sweep(int i, const float* products, Step&& step) const {
        const float* at = products + i * NR;
        const int64_t count = seen[i];
        int64_t k = 0;
        for (; k + NR <= count; k += NR, at += MR * NR)
            simd::unrolled<NV>([&](auto v) INLINED {
                step(k + v * LANES, simd::load(at + v * LANES, simd::all_lanes{}), simd::all_lanes{}, v);
            });
        for (int u = 0; k < count; k += LANES, u += LANES)
            step(k, simd::load(at + u, simd::all_lanes{}), simd::first_lanes{least(LANES, count - k)},
                 std::integral_constant<int, 0>{});
    }

    // The greatest score of each row so far, and what it does to earlier weights.
    template <class Scores>
    void survey(const Scores& scores_of, int64_t row, int64_t rows, const float* products) {
        for (int i = 0; i < MR; ++i) {
            const auto score = scores_of(row + least(i, rows - 1));
            simd::floats high[NV];
            for (int v = 0; v < NV; ++v) high[v] = simd::splat(-INFINITY);
            sweep(i, products, [&](int64_t k, simd::floats dots, auto lanes, auto v) INLINED {
                const auto s = score(first + k, dots, lanes);
                high[v] = greater(simd::keep(s, simd::splat(-INFINITY), lanes), high[v]);
            });
            for (int v = 1; v < NV; ++v) high[0] = greater(high[0], high[v]);
            lines[i] = high[0];
        }
        for (int i = MR; i < PADDED; ++i) lines[i] = simd::splat(-INFINITY);
        const simd::all_lanes all{};
        for (int i = 0; i < PADDED; i += LANES) {
            const auto before = simd::load(greatest + i, all);
            const auto now = greater(across(lines + i, greater), before);
            const auto finite = now == INFINITY || now == -INFINITY ? simd::floats{} : now;
            const auto factor = before == now ? simd::splat(1.0f) : weight_of(before - now);
            simd::store(greatest + i, now, all);
            simd::store(shift + i, finite, all);
            simd::store(scale + i, factor, all);
            simd::store(total + i, simd::load(total + i, all) * factor, all);
        }
    }

    // Weights of all scores, zero from the last key of a row up to `padded`; sums so far are rescaled.
    template <class Scores>
    void soften(const Scores& scores_of, int64_t row, int64_t rows, const float* products, int64_t padded,
                element* weights, float* mixed, int64_t column_panels) {
        const simd::all_lanes all{};
        for (int i = 0; i < MR; ++i) {
            const auto score = scores_of(row + least(i, rows - 1));
            const float shift_here = shift[i];
            simd::floats sum[NV] = {};
            sweep(i, products, [&](int64_t k, simd::floats dots, auto lanes, auto v) INLINED {
                const auto w = weight_of(score(first + k, dots, lanes) - shift_here);
                const auto kept = simd::keep(w, simd::floats{}, lanes);
                put_weights(weights, i, k, kept);
                sum[v] += kept;
            });
            for (int v = 1; v < NV; ++v) sum[0] += sum[v];
            for (int64_t k = round_up(seen[i], LANES); k < padded; k += LANES)
                put_weights(weights, i, k, simd::floats{});
            lines[i] = sum[0];
            if (scale[i] == 1.0f) continue;
            for (int64_t e = 0; e < column_panels; ++e)
                for (int v = 0; v < NR; v += LANES) {
                    float* to = mixed + (e * MR + i) * NR + v;
                    simd::store(to, simd::load(to, all) * scale[i], all);
                }
        }
        for (int i = MR; i < PADDED; ++i) lines[i] = simd::floats{};
        const auto add = [](simd::floats a, simd::floats b) { return a + b; };
        for (int i = 0; i < PADDED; i += LANES)
            simd::store(total + i, simd::load(total + i, all) + across(lines + i, add), all);
    }
};

// A tile of queries and what it has gathered: mixed values by panels, then greatest scores, then totals.
template <class P> struct Tile {
    const P& p;
    const Plan<P>& plan;
    int64_t batch, row;
    int count;
    int64_t ends[TILE];
    int64_t last = 0;  // the greatest end

    Tile(const P& p, const Plan<P>& plan, int64_t item) : p(p), plan(plan) {
        batch = item % p.batch_count;
        row = (plan.tiles - 1 - item / p.batch_count) * TILE;  // rows that see most keys tend to be late
        count = int(least(TILE, p.row_count - row));
        const auto end_of = p.ends(batch);
        for (int i = 0; i < count; ++i) {
            ends[i] = std::max<int64_t>(0, least(end_of(row + i), p.key_count));
            last = std::max(last, ends[i]);
        }
    }
    float* greatest(float* partial) const { return partial + plan.mixed_floats; }
    float* total(float* partial) const { return greatest(partial) + PANELS * PADDED; }
    static int in_panel(int i) { return i / MR * PADDED + i % MR; }
    int64_t parts() const { return std::max<int64_t>(1, ceil_div(last, plan.part_keys)); }

    void pack_queries(Own& own) const {
        const auto line_of = p.queries(batch);
        for (int64_t i = 0; i < plan.query_elements; ++i) own.queries[i] = 0;
        for (int i = 0; i < count; ++i)
            pack_query(line_of(row + i, own.lines), i % MR, p.depth_count, own.queries + i / MR * MR * plan.depth);
    }

    // Keys of one block for one panel of rows.
    void step(int panel, int64_t first, const element* keys, const element* values, Own& own,
              float* partial) const {
        const int height = int(least(MR, count - panel * MR));
        int64_t most = 0;
        for (int i = 0; i < height; ++i) most = std::max(most, ends[panel * MR + i] - first);
        most = least(most, BLOCK);
        if (most <= 0) return;
        const element* queries = own.queries + panel * MR * plan.depth;
        for (int64_t j = 0; j < most; j += NR)
            multiply(p.depth_count, queries, keys + j * plan.depth, own.products + j * MR, false);
        const int64_t padded = round_up(most, STEP);
        float* mixed = partial + panel * MR * plan.column_panels * NR;
        Rows rows;
        rows.first = first;
        for (int i = 0; i < MR; ++i)
            rows.seen[i] = i < height ? std::max<int64_t>(0, least(most, ends[panel * MR + i] - first)) : 0;
        rows.greatest = greatest(partial) + panel * PADDED;
        rows.total = total(partial) + panel * PADDED;
        const auto scores_of = p.scores(batch);
        rows.survey(scores_of, row + panel * MR, height, own.products);
        rows.soften(scores_of, row + panel * MR, height, own.products, padded, own.weights, mixed,
                    plan.column_panels);
        for (int64_t e = 0; e < plan.column_panels; ++e)
            multiply(most, own.weights, values + e * NR * BLOCK, mixed + e * MR * NR, true);
    }

    void gather(int64_t begin, int64_t end, const element* packed, Own& own, float* partial) const {
        pack_queries(own);
        for (int64_t i = 0; i < plan.mixed_floats; ++i) partial[i] = 0.0f;
        for (int i = 0; i < PANELS * PADDED; ++i) greatest(partial)[i] = -INFINITY, total(partial)[i] = 0.0f;
        for (int64_t first = begin; first < end; first += BLOCK) {
            const element* block = own.block;
            if (plan.ahead) block = packed + (batch * plan.blocks + first / BLOCK) * plan.block_elements();
            else pack_block(p, plan, batch, first, end, own.lines, own.block);
            for (int panel = 0; panel * MR < count; ++panel)
                step(panel, first, block, block + plan.key_elements, own, partial);
        }
    }

    void finish(float* partial) const {
        for (int i = 0; i < count; ++i) {
            const float* mixed = partial + i / MR * MR * plan.column_panels * NR + i % MR * NR;
            p.store(batch, row + i, mixed, greatest(partial)[in_panel(i)], total(partial)[in_panel(i)]);
        }
    }

    // Adds another part of the same tile to the first one.
    void combine(float* partial, float* other) const {
        for (int i = 0; i < count; ++i) {
            const int r = in_panel(i);
            const float a = greatest(partial)[r], b = greatest(other)[r], high = a < b ? b : a;
            const float shift = std::isinf(high) ? 0.0f : high;
            const float keep = a == high ? 1.0f : std::exp(a - shift), take = std::exp(b - shift);
            greatest(partial)[r] = high;
            total(partial)[r] = total(partial)[r] * keep + total(other)[r] * take;
            const int64_t at = i / MR * MR * plan.column_panels * NR + i % MR * NR;
            for (int64_t e = 0; e < plan.column_panels; ++e)
                for (int v = 0; v < NR; ++v) {
                    const int64_t k = at + e * MR * NR + v;
                    partial[k] = partial[k] * keep + other[k] * take;
                }
        }
    }
};

template <class P> inline int run(const P& p, void* workspace, int64_t workspace_bytes) {
    const Plan<P> plan(p);
    if (workspace_bytes < plan.bytes(p)) return 1;
    char* base = (char*)(((uintptr_t)workspace + 63) / 64 * 64);
    element* packed = (element*)(base + plan.threads * plan.own_bytes);
    float* partials = (float*)((char*)packed + plan.ahead_bytes(p));
#pragma omp parallel num_threads(int(plan.threads))
    {
        Own own(plan, base + omp_get_thread_num() * plan.own_bytes);
#if DOT == 2
        const contraction::MatrixUnit unit;
#endif
        if (plan.ahead) {
#pragma omp for schedule(static)
            for (int64_t n = 0; n < p.batch_count * plan.blocks; ++n)
                pack_block(p, plan, n / plan.blocks, n % plan.blocks * BLOCK, p.key_count, own.lines,
                           packed + n * plan.block_elements());
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t n = 0; n < plan.items * plan.parts; ++n) {
            const Tile<P> tile(p, plan, n / plan.parts);
            const int64_t part = n % plan.parts, begin = part * plan.part_keys;
            if (part >= tile.parts()) continue;
            float* partial = tile.parts() > 1 ? partials + n * plan.partial_floats : own.partial;
            tile.gather(begin, least(tile.last, begin + plan.part_keys), packed, own, partial);
            if (tile.parts() == 1) tile.finish(partial);
        }
        if (plan.parts > 1) {
#pragma omp for schedule(static)
            for (int64_t n = 0; n < plan.items; ++n) {
                const Tile<P> tile(p, plan, n);
                float* partial = partials + n * plan.parts * plan.partial_floats;
                for (int64_t part = 1; part < tile.parts(); ++part)
                    tile.combine(partial, partial + part * plan.partial_floats);
                if (tile.parts() > 1) tile.finish(partial);
            }
        }
    }
    return 0;
}

}  // namespace attention
