// Counts of keys. Every thread counts its part in tables of its own, which are added up at the end.
// Keys that follow one another go to different copies of the table, so that equal ones do not wait
// for each other's counter; a block of keys that are all equal is counted at once.
// A key beyond the last bin is counted behind it, in a counter that nobody reads.
namespace histogram {

constexpr int64_t BLOCK = 64;                   // keys at a time
constexpr int64_t SERIAL_BELOW = 32768;         // keys that are not worth a team of threads
constexpr int64_t ROUND = INT64_C(1) << 31;     // a counter of 32 bits holds that many

template <class P> constexpr int64_t table_size(int64_t bins) {
    return P::BYTES ? 256 + 16 : (bins + 1 + 15) / 16 * 16 + 16;
}

struct Sizes {
    int64_t table, totals;
    template <class P> explicit Sizes(const P& p)
        : table(table_size<P>(p.bin_count)), totals((p.bin_count * 2 + 15) / 16 * 16) {}
    int64_t own() const { return table * COPIES + 32; }
    int64_t bytes() const { return 64 + 4 * (totals + omp_get_max_threads() * own()); }
};

inline void count_one(uint32_t* table, int64_t size, int copy, uint32_t key) {
    ++table[(copy % COPIES) * size + key];
}

template <class P> inline void count_bytes(const P& p, int64_t begin, int64_t end, uint32_t* table) {
    constexpr int64_t size = table_size<P>(0);
    const uint8_t* x = p.bytes();
    int64_t i = begin;
    for (; i + 16 <= end; i += 16) {
        uint64_t first, second;
        std::memcpy(&first, x + i, 8);
        std::memcpy(&second, x + i + 8, 8);
        if (PREFETCH) __builtin_prefetch(x + i + PREFETCH);
        if (RUNS && first == second && first == (first & 0xff) * UINT64_C(0x0101010101010101)) {
            table[first & 0xff] += 16;
            continue;
        }
        simd::unrolled<8>([&](auto j) INLINED {
            count_one(table, size, j, (uint8_t)(first >> (8 * j)));
            count_one(table, size, j + COPIES / 2, (uint8_t)(second >> (8 * j)));
        });
    }
    for (; i < end; ++i) count_one(table, size, 0, x[i]);
}

template <class P> inline void count_keys(const P& p, int64_t begin, int64_t end, uint32_t* table) {
    using Key = typename P::Key;
    const int64_t size = table_size<P>(p.bin_count);
    const Key bins = (Key)p.bin_count;
    int64_t i = begin;
    for (; i + BLOCK <= end; i += BLOCK) {
        uint32_t keys[BLOCK], differing = 0;
        for (int64_t j = 0; j < BLOCK; ++j) keys[j] = (uint32_t)std::min(p.key(i + j), bins);
        if (RUNS) {
            for (int64_t j = 0; j < BLOCK; ++j) differing |= keys[j] ^ keys[0];
            if (differing == 0) {
                table[keys[0]] += BLOCK;
                continue;
            }
        }
        simd::unrolled<BLOCK>([&](auto j) INLINED { count_one(table, size, j, keys[j]); });
    }
    for (; i < end; ++i) count_one(table, size, 0, (uint32_t)std::min(p.key(i), bins));
}

// Adds up the counts of some bins over all tables.
inline void merge(const Sizes& sizes, const uint32_t* tables, int64_t team, int64_t begin, int64_t end,
                  int64_t* totals) {
    for (int64_t t = 0; t < team; ++t)
        for (int copy = 0; copy < COPIES; ++copy) {
            const uint32_t* table = tables + t * sizes.own() + copy * sizes.table;
            for (int64_t bin = begin; bin < end; ++bin) totals[bin] += table[bin];
        }
}

template <class P> inline int run(const P& p, void* workspace, int64_t workspace_bytes) {
    const Sizes sizes(p);
    if (workspace_bytes < sizes.bytes() || p.bin_count >= ROUND) return 1;
    int64_t* totals = (int64_t*)(((uintptr_t)workspace + 63) / 64 * 64);
    uint32_t* tables = (uint32_t*)totals + sizes.totals;
    const int64_t counted = P::BYTES ? std::min<int64_t>(p.bin_count, 256) : p.bin_count;
#pragma omp parallel if (p.key_count > SERIAL_BELOW)
    {
        const int64_t team = omp_get_num_threads(), me = omp_get_thread_num();
        uint32_t* table = tables + me * sizes.own();
        const int64_t first = p.bin_count * me / team, last = p.bin_count * (me + 1) / team;
        for (int64_t bin = first; bin < last; ++bin) totals[bin] = 0;
        for (int64_t begin = 0; begin < p.key_count; begin += ROUND) {
            const int64_t count = std::min(ROUND, p.key_count - begin);
            const int64_t from = begin + count * me / team, to = begin + count * (me + 1) / team;
            std::memset(table, 0, (size_t)(sizes.table * COPIES) * 4);
            if constexpr (P::BYTES) count_bytes(p, from, to, table);
            else count_keys(p, from, to, table);
#pragma omp barrier
            merge(sizes, tables, team, std::min(first, counted), std::min(last, counted), totals);
#pragma omp barrier
        }
        for (int64_t bin = first; bin < last; ++bin) p.store(bin, totals[bin]);
    }
    return 0;
}

}  // namespace histogram
