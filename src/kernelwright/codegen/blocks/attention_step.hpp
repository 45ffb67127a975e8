// One step of attention: panels of queries, keys and values for the register tile of the contraction, and
// the online softmax between its two products (Milakov and Gimelshein, "Online normalizer calculation for
// softmax", 2018). Products of a panel of MR queries and BLOCK keys become weights in the layout of the
// left operand, relative to the greatest score of each row so far; what a row has gathered is rescaled.
namespace attention {

using contraction::A_STEP;
using contraction::B_STEP;
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

// -- packing --------------------------------------------------------------------------------------

#if DOT == 3
// Blocks of `KP` steps of a panel, from lines that lie across it.
template <class Lines>
inline void pack_panel_of_queries(const Lines& lines, int count, int64_t depth, element* to) {
    alignas(64) float block[MR * contraction::KP] = {};
    for (int64_t k = 0; k < depth; k += STEP, to += contraction::PANEL_BLOCK) {
        for (int i = 0; i < count; ++i)
            simd::sweep<1>(0, STEP, [&](int64_t u, auto, auto) INLINED {
                const simd::first_lanes there{std::max<int64_t>(0, least(LANES, depth - k - u))};
                const auto values = simd::load(lines[i] + k + u, there);
                simd::store(block + contraction::inner_k(i, u), values, simd::all_lanes{});
            });
        contraction::part_rows<true>(block, to);
    }
}
template <class T>
inline void pack_panel_of_keys(const T* const* lines, int count, int64_t depth, element* to) {
    alignas(64) float block[NR * contraction::KP];
    for (int64_t k = 0; k < depth; k += STEP, to += contraction::PANEL_BLOCK) {
        if (depth - k < STEP) std::fill(block, block + NR * STEP, 0.0f);
        const auto line_of = [&](int64_t j) INLINED { return lines[j] + k; };
        contraction::pack_transposed<NR>(line_of, count, least(STEP, depth - k), block);
        contraction::part_columns(block, to);
    }
}
// Up to STEP lines of values, of the keys from `key` on.
template <class Lines>
inline void pack_step_of_values(const Lines& lines, int count, int64_t key, int64_t columns, element* to) {
    alignas(64) float block[NR * contraction::KP] = {};
    to += key / STEP * contraction::PANEL_BLOCK;
    for (int64_t e = 0; e < columns; e += NR, to += contraction::B_STEP * BLOCK) {
        for (int t = 0; t < count; ++t)
            for (int v = 0; v < NR; v += LANES) {
                const simd::first_lanes there{std::max<int64_t>(0, least(LANES, columns - e - v))};
                simd::store(block + t * NR + v, simd::load(lines[t] + e + v, there), simd::all_lanes{});
            }
        contraction::part_columns(block, to);
    }
}
#elif DOT
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

// -- weights --------------------------------------------------------------------------------------

template <class Between>
inline void multiply(int64_t depth, const element* a, const element* b, float* tile, bool accumulate,
                     Between between) {
#if DOT
    contraction::pair_kernel(round_up(depth, STEP), a, b, tile, accumulate, between);
#else
    contraction::micro_kernel<true>(depth, a, b, NR, tile, accumulate, nullptr, between);
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
#if DOT == 3
    weights += k / STEP * contraction::PANEL_BLOCK + i * STEP;
    contraction::put_half(w, k % STEP >= LANES, weights);
#elif DOT
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

    // Scores of row i are looked at for the greatest.
    template <class Score> void survey(int i, const Score& score, const float* products) {
        simd::floats high[NV];
        for (int v = 0; v < NV; ++v) high[v] = simd::splat(-INFINITY);
        sweep(i, products, [&](int64_t k, simd::floats dots, auto lanes, auto v) INLINED {
            const auto s = score(first + k, dots, lanes);
            high[v] = greater(simd::keep(s, simd::splat(-INFINITY), lanes), high[v]);
        });
        for (int v = 1; v < NV; ++v) high[0] = greater(high[0], high[v]);
        lines[i] = high[0];
    }

    // After all rows: the greatest score of each so far, and what it does to earlier weights.
    void surveyed() {
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

    // Weights of all scores of row i, zero from its last key up to `padded`; sums so far are rescaled.
    template <class Score>
    void soften(int i, const Score& score, const float* products, int64_t padded, element* weights,
                float* mixed, int64_t column_panels) {
        const simd::all_lanes all{};
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
        if (scale[i] == 1.0f) return;
        for (int64_t e = 0; e < column_panels; ++e)
            for (int v = 0; v < NR; v += LANES) {
                float* to = mixed + (e * MR + i) * NR + v;
                simd::store(to, simd::load(to, all) * scale[i], all);
            }
    }

    // After all rows.
    void softened() {
        const simd::all_lanes all{};
        for (int i = MR; i < PADDED; ++i) lines[i] = simd::floats{};
        const auto add = [](simd::floats a, simd::floats b) { return a + b; };
        for (int i = 0; i < PADDED; i += LANES)
            simd::store(total + i, simd::load(total + i, all) + across(lines + i, add), all);
    }
};

}  // namespace attention
