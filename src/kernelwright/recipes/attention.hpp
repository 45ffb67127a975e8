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

// Whether the vectors work beside the unit that multiplies.
#if DOT == 3
constexpr bool OVERLAP = true;
#else
constexpr bool OVERLAP = false;
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
        key_elements = BLOCK / NR * B_STEP * depth;
        value_elements = column_panels * B_STEP * BLOCK;
        query_elements = PANELS * A_STEP * depth;
        mixed_floats = TILE * column_panels * NR;
        partial_floats = round_up(mixed_floats + 2 * PANELS * PADDED, 16);
        const int64_t block_bytes = (key_elements + value_elements) * sizeof(element);
        ahead = tiles > 1 && p.batch_count * blocks * block_bytes <= MOST_AHEAD;
        const int64_t wanted = tiles == 1 ? ceil_div(p.key_count, SPLIT) : ceil_div(2 * threads, items);
        const int64_t room = MOST_PARTIAL / (4 * items * partial_floats);
        part_keys = round_up(ceil_div(p.key_count, std::max<int64_t>(1, least(wanted, room))), BLOCK);
        parts = ceil_div(p.key_count, part_keys);
        const int64_t line = round_up(std::max(p.depth_count, p.column_count), 16);
        own_bytes = 4 * (partial_floats + (OVERLAP ? 2 : 1) * BLOCK * MR + (P::plain ? 0 : NR * line)) +
                    sizeof(element) * (BLOCK * A_STEP + query_elements) + (ahead ? 0 : block_bytes) + 64 * 8;
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
        products = take<float>((OVERLAP ? 2 : 1) * BLOCK * MR);
        weights = take<element>(BLOCK * A_STEP);
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

template <class P>
inline void pack_keys(const P& p, int64_t batch, int64_t first, int64_t count, float* scratch, element* to) {
    const auto line_of = p.keys(batch);
    const int64_t depth = p.depth_count, size = round_up(depth, 16), panel = B_STEP * round_up(depth, STEP);
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
#if DOT == 3
    const int64_t size = round_up(p.column_count, 16);
    for (int64_t t = 0; t < count; t += STEP) {
        const int some = int(least(STEP, count - t));
        decltype(line_of(0, scratch)) lines[STEP];
        for (int c = 0; c < some; ++c) lines[c] = line_of(first + t + c, scratch + (P::plain ? 0 : c * size));
        pack_step_of_values(lines, some, t, p.column_count, to);
    }
#elif DOT
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

// One panel of queries and one block of keys.
struct Step {
    int panel, height;
    int64_t most;  // keys that any row sees
    const element* keys;
    float *products, *mixed;
    Rows rows;
};

// Work for each row of a panel, a few rows at a time where something else leaves room.
template <class Row> struct Turns {
    Row& row;
    int done;
    int64_t due = 0;
    Turns(Row& row, bool any) : row(row), done(any ? 0 : MR) {}
    // To be called CALLS times for each of so many blocks of steps, after which all rows are done.
    auto dealt(int64_t blocks) {
        const int64_t calls = blocks * contraction::CALLS;
        return [this, calls](int64_t) INLINED {
            if (!OVERLAP) return;
            for (due += MR; due >= calls && done < MR; due -= calls) row(done++);
        };
    }
    void finish() {
        while (done < MR) row(done++);
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
#if DOT == 3
        const int64_t size = round_up(p.depth_count, 16);
        for (int i = 0; i < count; i += MR) {
            const int some = int(least(MR, count - i));
            decltype(line_of(0, own.lines)) lines[MR];
            for (int r = 0; r < some; ++r) lines[r] = line_of(row + i + r, own.lines + (P::plain ? 0 : r * size));
            pack_panel_of_queries(lines, some, p.depth_count, own.queries + i / MR * A_STEP * plan.depth);
        }
#else
        for (int64_t i = 0; i < plan.query_elements; ++i) own.queries[i] = 0;
        for (int i = 0; i < count; ++i)
            pack_query(line_of(row + i, own.lines), i % MR, p.depth_count, own.queries + i / MR * MR * plan.depth);
#endif
    }

    // What a panel of rows has to do with a block of keys; nothing where it sees none of them.
    void begin(Step& step, int panel, int64_t first, const element* keys, float* partial) const {
        step.panel = panel;
        step.height = int(least(MR, count - panel * MR));
        step.most = 0;
        for (int i = 0; i < MR; ++i) {
            const int64_t end = i < step.height ? ends[panel * MR + i] - first : 0;
            step.rows.seen[i] = std::max<int64_t>(0, least(BLOCK, end));
            step.most = std::max(step.most, step.rows.seen[i]);
        }
        step.keys = keys;
        step.mixed = partial + panel * MR * plan.column_panels * NR;
        step.rows.first = first;
        step.rows.greatest = greatest(partial) + panel * PADDED;
        step.rows.total = total(partial) + panel * PADDED;
    }

    // Products of queries and keys.
    template <class Between> void meet(const Step& step, const Own& own, Between between) const {
        const element* queries = own.queries + step.panel * A_STEP * plan.depth;
        for (int64_t j = 0; j < step.most; j += NR)
            multiply(p.depth_count, queries, step.keys + j / NR * B_STEP * plan.depth, step.products + j * MR,
                     false, between);
    }

    // Sums of weighted values.
    template <class Between> void mix(const Step& step, const Own& own, Between between) const {
#if DOT == 3
        // weights are 1 at most, and of a row whose greatest is 1: those of no size do not matter
        for (int64_t k = 0; k < round_up(step.most, STEP); k += STEP)
            contraction::reach_of(own.weights + k / STEP * contraction::PANEL_BLOCK) = {127, 127};
#endif
        const element* values = step.keys + plan.key_elements;
        for (int64_t e = 0; e < plan.column_panels; ++e)
            multiply(step.most, own.weights, values + e * B_STEP * BLOCK, step.mixed + e * MR * NR, true,
                     between);
    }

    // Ends one step and begins the next one, either of which may be missing. Where the products have a
    // unit of their own, the vectors work for one step while the unit multiplies for the other.
    void advance(Step* last, Step* next, const Own& own) const {
        const auto scores_of = p.scores(batch);
        const auto scores = [&](const Step& step, int i) INLINED {
            return scores_of(row + step.panel * MR + least(i, step.height - 1));
        };
        const auto soften = [&](int i) __attribute__((noinline)) {
            last->rows.soften(i, scores(*last, i), last->products, round_up(last->most, STEP), own.weights,
                              last->mixed, plan.column_panels);
        };
        Turns softening(soften, last != nullptr);
        if (next) meet(*next, own, softening.dealt(ceil_div(next->most, NR) * ceil_div(plan.depth, STEP)));
        softening.finish();
        if (last) last->rows.softened();
        const auto survey = [&](int i) __attribute__((noinline)) {
            next->rows.survey(i, scores(*next, i), next->products);
        };
        Turns surveying(survey, next != nullptr);
        if (last) mix(*last, own, surveying.dealt(plan.column_panels * ceil_div(last->most, STEP)));
        surveying.finish();
        if (next) next->rows.surveyed();
    }

    void gather(int64_t begin_key, int64_t end, const element* packed, Own& own, float* partial) const {
        pack_queries(own);
        for (int64_t i = 0; i < plan.mixed_floats; ++i) partial[i] = 0.0f;
        for (int i = 0; i < PANELS * PADDED; ++i) greatest(partial)[i] = -INFINITY, total(partial)[i] = 0.0f;
        Step steps[2];
        Step *last = nullptr, *next = &steps[0];
        steps[0].products = own.products, steps[1].products = own.products + (OVERLAP ? BLOCK * MR : 0);
        for (int64_t first = begin_key; first < end; first += BLOCK) {
            const element* block = own.block;
            if (plan.ahead) {
                block = packed + (batch * plan.blocks + first / BLOCK) * plan.block_elements();
            } else {
                if (last) advance(last, nullptr, own);  // whose block is overwritten
                last = nullptr;
                pack_block(p, plan, batch, first, end, own.lines, own.block);
            }
            for (int panel = 0; panel * MR < count; ++panel) {
                begin(*next, panel, first, block, partial);
                if (next->most <= 0) continue;
                advance(last, next, own);
                if (!OVERLAP) advance(next, nullptr, own);
                last = OVERLAP ? next : nullptr;
                next = OVERLAP && next == &steps[0] ? &steps[1] : &steps[0];
            }
        }
        if (last) advance(last, nullptr, own);
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
#if DOT >= 2
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
