// The nearest centre of each point. Scores |c|^2 - 2 x.c order the centres as distances do and are
// a matrix product; they are computed tile by tile and never leave the nearest cache. Rounding may
// swap centres that are almost equally near, so every centre whose score is within the rounding
// error of the least one (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section
// 3.1) is measured again as the plain sum of squared differences; ties go to the lower index.
namespace nearest {

using contraction::NR;
using contraction::round_up;

#if DOT == 2
typedef uint16_t element;  // points and centres of bfloat16, multiplied in pairs
constexpr int KU = contraction::KP;
constexpr float FLUSHED = 0x1p-126f;  // up to which the unit takes a number for zero
#else
typedef float element;
constexpr int KU = 1;
constexpr float FLUSHED = 0.0f;
#endif

// One bit per lane that is at most the limit.
inline uint64_t at_most(simd::floats v, float limit) {
#if defined(__AVX512F__) && LANES == 16
    return _mm512_cmp_ps_mask((__m512)v, _mm512_set1_ps(limit), _CMP_LE_OQ);
#elif defined(__AVX__) && LANES == 8
    return (uint64_t)_mm256_movemask_ps(_mm256_cmp_ps((__m256)v, _mm256_set1_ps(limit), _CMP_LE_OQ));
#else
    uint64_t bits = 0;
    for (int i = 0; i < LANES; ++i) bits |= (uint64_t)(v[i] <= limit) << i;
    return bits;
#endif
}

struct Sizes {
    int64_t depth, panels, panel_elements, packed_floats, points_floats, pairs_floats, scores_floats;
    template <class P> explicit Sizes(const P& p)
        : depth(round_up(p.depth_count, KU)), panels((p.centre_count + NR - 1) / NR),
          panel_elements(depth * NR), packed_floats(panels * panel_elements * sizeof(element) / 4),
          points_floats(round_up(depth, contraction::KB) * MR), pairs_floats(KU > 1 ? depth * MR / 2 : 0),
          scores_floats(std::max(panels * NR * MR, KU > 1 ? depth * NR : 0)) {}
    int64_t own_floats() const { return (points_floats + pairs_floats + scores_floats + 63) / 16 * 16; }
    int64_t bytes() const {
        const int64_t shared = packed_floats + panels * NR;
        return 64 + 4 * ((shared + 15) / 16 * 16 + omp_get_max_threads() * own_floats());
    }
};

// What is known about all centres: their greatest norm, and whether every norm is finite.
struct Centres {
    const element* packed;
    const float* norms;
    float greatest;
    bool finite;
};

struct Best {
    int64_t index = 0;
    float distance = INFINITY;
    // Takes a centre; to be called in ascending order. NaN counts as nearest, as in the reference.
    void offer(int64_t j, float d) {
        if (d < distance || (d != d && distance == distance)) index = j, distance = d;
    }
};

// Every centre, one by one: for values beyond what rounding errors can be bounded for.
template <class P> __attribute__((noinline)) Best search(const P& p, int64_t row) {
    Best best;
    for (int64_t j = 0; j < p.centre_count; ++j) best.offer(j, p.distance(row, j));
    return best;
}

// The nearest centre of row r of a tile whose products are in `scores`.
template <class P>
inline Best choose(const P& p, const Sizes& sizes, const Centres& centres, int64_t row, int r,
                   const float* points, float* scores) {
    simd::floats least = simd::splat(INFINITY), square = {};
    const simd::all_lanes all{};
    for (int64_t k = 0; k < p.depth_count; k += contraction::KB)
        for (int u = 0; u < contraction::KB; u += LANES) {
            const auto x = simd::load(points + contraction::inner_k(r, k) + u, all);
            square += x * x;
        }
    for (int64_t panel = 0; panel < sizes.panels; ++panel)
        for (int v = 0; v < NR; v += LANES) {
            float* at = scores + (panel * MR + r) * NR + v;
            const auto score = simd::load(centres.norms + panel * NR + v, all) - 2.0f * simd::load(at, all);
            simd::store(at, score, all);
            least = score < least ? score : least;
        }
    const float x = std::sqrt(shuffle::sum(square)[0]), c = centres.greatest;
    const float guard = 2.0f * (float)(p.depth_count + 8) * 0x1p-24f * c * (2.0f * x + c);
    const float lost = 4.0f * std::sqrt((float)p.depth_count) * FLUSHED * (x + c);
    const float limit = shuffle::least(least)[0] + (guard + lost);
    if (!centres.finite || !(std::fabs(limit) < INFINITY)) return search(p, row);
    Best best;
    constexpr int WORD = 64 / LANES;
    const int64_t vectors = sizes.panels * NV;
    for (int64_t first = 0; first < vectors; first += WORD) {
        uint64_t bits = 0;
        const int64_t end = std::min(first + WORD, vectors);
        for (int64_t v = first; v < end; ++v) {
            const float* at = scores + (v / NV * MR + r) * NR + v % NV * LANES;
            bits |= at_most(simd::load(at, all), limit) << ((v - first) * LANES);
        }
        for (; bits; bits &= bits - 1) {
            const int64_t j = first * LANES + __builtin_ctzll(bits);
            best.offer(j, p.distance(row, j));
        }
    }
    return best;
}

// Packs panels of centres and their squared norms; beyond the last centre the norm is infinite.
template <class P>
inline void pack(const P& p, const Sizes& sizes, int64_t panel, element* packed, float* norms,
                 float* scratch) {
    const int64_t first = panel * NR;
    const int count = (int)std::min<int64_t>(NR, p.centre_count - first);
    element* panel_at = packed + panel * sizes.panel_elements;
#if DOT == 2
    float* to = scratch;
    for (int64_t i = p.depth_count * NR; i < sizes.depth * NR; ++i) to[i] = 0.0f;
    p.pack_centres(first, count, to);
    for (int64_t k = 0; k < sizes.depth; k += KU)
        contraction::interleave(to + k * NR, panel_at + k * NR);
#else
    float* to = panel_at;
    (void)scratch;
    p.pack_centres(first, count, to);
#endif
    for (int v = 0; v < NR; v += LANES) {
        simd::floats total = {};
        for (int64_t k = 0; k < p.depth_count; ++k) {
            const auto c = simd::load(to + k * NR + v, simd::all_lanes{});
            total += c * c;
        }
        simd::store(norms + first + v, total, simd::all_lanes{});
    }
    for (int j = count; j < NR; ++j) norms[first + j] = INFINITY;
}

inline Centres survey(const element* packed, const float* norms, int64_t count) {
    float greatest = 0.0f, total = 0.0f;
    for (int64_t j = 0; j < count; ++j) {
        greatest = std::max(greatest, norms[j]);
        total += norms[j] - norms[j];  // 0, or NaN when the norm is not finite
    }
    return {packed, norms, std::sqrt(greatest), total == 0.0f};
}

template <class P> inline int run(const P& p, void* workspace, int64_t workspace_bytes) {
    const Sizes sizes(p);
    if (workspace_bytes < sizes.bytes()) return 1;
    float* start = (float*)(((uintptr_t)workspace + 63) / 64 * 64);
    element* packed = (element*)start;
    float* norms = start + sizes.packed_floats;
    float* rest = start + (sizes.packed_floats + sizes.panels * NR + 15) / 16 * 16;
    const int64_t tiles = (p.row_count + MR - 1) / MR;
#pragma omp parallel
    {
        const int64_t team = omp_get_num_threads(), me = omp_get_thread_num();
#if DOT == 2
        const contraction::MatrixUnit unit;
#endif
        float* points = rest + me * sizes.own_floats();
        float* pairs = points + (sizes.points_floats + 15) / 16 * 16;
        float* scores = pairs + (sizes.pairs_floats + 15) / 16 * 16;
        for (int64_t i = 0; i < sizes.points_floats; ++i) points[i] = 0.0f;
        for (int64_t panel = me; panel < sizes.panels; panel += team)
            pack(p, sizes, panel, packed, norms, scores);
#pragma omp barrier
        const Centres centres = survey(packed, norms, p.centre_count);
        for (int64_t tile = tiles * me / team; tile < tiles * (me + 1) / team; ++tile) {
            const int64_t first = tile * MR;
            const int count = (int)std::min<int64_t>(MR, p.row_count - first);
            p.pack_points(first, count, points);
#if DOT == 2
            element* rows = (element*)pairs;
            for (int64_t k = 0; k < sizes.depth; k += KU)
                contraction::narrow_rows<true>(points + k * MR, rows + k * MR);
            for (int64_t panel = 0; panel < sizes.panels; ++panel)
                contraction::pair_kernel(sizes.depth, rows, packed + panel * sizes.panel_elements,
                                         scores + panel * MR * NR, false, contraction::Nothing());
#else
            for (int64_t panel = 0; panel < sizes.panels; ++panel)
                contraction::micro_kernel<true>(p.depth_count, points, packed + panel * sizes.panel_elements,
                                                NR, scores + panel * MR * NR, false);
#endif
            for (int r = 0; r < count; ++r) {
                const Best best = choose(p, sizes, centres, first + r, r, points, scores);
                p.store(first + r, best.index, best.distance);
            }
        }
    }
    return 0;
}

}  // namespace nearest
