// Reductions over all pairs of a row and another. A block of rows sits in the lanes of a few
// vectors; what belongs to the others is packed side by side and broadcast, one other at a time.
namespace pairs {

constexpr int BLOCK = VECTORS * LANES;
using simd::floats;
using simd::ints;

// A sum in two levels: a part for each tile of others keeps rounding small.
template <class V, class Element> struct summed {
    V part[VECTORS], whole[VECTORS];
    INLINED summed() {
        simd::unrolled<VECTORS>([&](auto v) INLINED { part[v] = whole[v] = V{}; });
    }
    INLINED void offer(int v, V value, int64_t) { part[v] += value; }
    INLINED void settle() {
        simd::unrolled<VECTORS>([&](auto v) INLINED { whole[v] += part[v], part[v] = V{}; });
    }
    INLINED void finish(Element* to) const { std::memcpy(to, whole, sizeof whole); }
};

struct multiplied {
    floats whole[VECTORS];
    INLINED multiplied() {
        simd::unrolled<VECTORS>([&](auto v) INLINED { whole[v] = simd::splat(1.0f); });
    }
    INLINED void offer(int v, floats value, int64_t) { whole[v] *= value; }
    INLINED void settle() {}
    INLINED void finish(float* to) const { std::memcpy(to, whole, sizeof whole); }
};

// SIGN is 1 for the greatest and -1 for the least; NaN wins, as in the reference.
template <int SIGN> struct extreme {
    floats best[VECTORS];
    INLINED extreme() {
        simd::unrolled<VECTORS>([&](auto v) INLINED { best[v] = simd::splat(-SIGN * INFINITY); });
    }
    INLINED void offer(int v, floats value, int64_t) {
        const ints take = (SIGN > 0 ? value > best[v] : value < best[v]) | (value != value);
        best[v] = simd::select(take, value, best[v]);
    }
    INLINED void settle() {}
    INLINED void finish(float* to) const { std::memcpy(to, best, sizeof best); }
};

// The other with the greatest or least value, and the value; the first of equal ones.
template <int SIGN> struct winner {
    floats best[VECTORS];
    ints index[VECTORS];
    INLINED winner() {
        simd::unrolled<VECTORS>([&](auto v) INLINED {
            best[v] = simd::splat(-SIGN * INFINITY), index[v] = ints{};
        });
    }
    INLINED void offer(int v, floats value, int64_t other) {
        const ints ahead = SIGN > 0 ? value > best[v] : value < best[v];
        const ints take = ahead | ((value != value) & (best[v] == best[v]));
        best[v] = simd::select(take, value, best[v]);
        index[v] = simd::select(take, simd::splat((int32_t)other), index[v]);
    }
    INLINED void settle() {}
    INLINED void finish(int32_t* to) const { std::memcpy(to, index, sizeof index); }
};

template <class P> int64_t workspace(const P& p) {
    return p.other_count * P::OTHER_TERMS * (int64_t)sizeof(float) + 64;
}

template <class P> int run(const P& p, void* workspace, int64_t workspace_bytes) {
    if (workspace_bytes < pairs::workspace(p)) return 1;
    float* others = (float*)(((uintptr_t)workspace + 63) / 64 * 64);
    const int64_t blocks = (p.row_count + BLOCK - 1) / BLOCK;
#pragma omp parallel if (p.row_count * p.other_count > 4096)
    for (int64_t batch = 0; batch < p.batch_count; ++batch) {
        const simd::Range packed = simd::share(p.other_count, 16), mine = simd::share(blocks, 1);
        p.pack_others(batch, packed.begin, packed.end, others);
#pragma omp barrier
        for (int64_t block = mine.begin; block < mine.end; ++block) {
            const int64_t first = block * BLOCK;
            const int count = (int)std::min<int64_t>(BLOCK, p.row_count - first);
            alignas(64) typename P::Rows rows;
            alignas(64) typename P::Totals totals;
            p.pack_rows(batch, first, count, rows);
            p.reduce(first, rows, others, totals);
            p.store(batch, first, count, totals);
        }
#pragma omp barrier
    }
    return 0;
}

}  // namespace pairs
