// The first elements of each row in order: a bar that at least as many groups of elements reach as
// are wanted, what reaches the bar, and the rank of each of those among them. Where too much
// reaches the bar (ties), the exact last value is found by bisection.
namespace selection {

constexpr int GROUPS = THREADS, STEPS = UNROLL, FEW_ROWS = 2 * THREADS;

// Greater keys come first; equal elements, both zeros too, have equal keys, NaN the greatest. No
// key is 0, whichever way they are ordered.
__device__ __forceinline__ unsigned ordered(float x) {
    const unsigned bits = __float_as_uint(x + 0.0f);
    const unsigned key = bits ^ ((unsigned)((int)bits >> 31) | 0x80000000u);
    return x != x ? 0xfffffffeu : key;
}
template <class P> __device__ __forceinline__ unsigned key_of(float x) {
    return P::LARGEST ? ordered(x) : ~ordered(x);
}

struct Shared {
    unsigned keys[CANDIDATES];
    int indices[CANDIDATES];
    int found, counts[THREADS / 32];
};

// The keys of a row: in registers where they fit, else read again for each pass.
template <class P, bool KEPT, bool ALIGNED> struct Row {
    const P& problem;
    int64_t row;
    unsigned kept[KEPT ? KEEP : 1][WIDTH];

    static constexpr int SLOTS = KEPT ? KEEP : UNROLL;
    template <class Visit> __device__ __forceinline__ void read(int64_t at, Visit&& visit) {
        if constexpr (ALIGNED && P::PLAIN) {
            simt::Wide<typename P::Element, WIDTH> word;
            simt::fetch<KEPT>(word, problem.elements() + row * problem.column_count + at);
#pragma unroll
            for (int v = 0; v < WIDTH; ++v) visit(v, key_of<P>(simt::get(&word.at[v])));
        } else {
#pragma unroll
            for (int v = 0; v < WIDTH; ++v)
                if (at + v < problem.column_count) visit(v, key_of<P>(problem.value(row, at + v)));
        }
    }
    __device__ __forceinline__ void load() {
        if constexpr (KEPT) {
#pragma unroll
            for (int n = 0; n < KEEP; ++n) {
                const int64_t at = ((int64_t)n * THREADS + threadIdx.x) * WIDTH;
#pragma unroll
                for (int v = 0; v < WIDTH; ++v) kept[n][v] = 0;
                if (at < problem.column_count)
                    read(at, [&](int v, unsigned key) { kept[n][v] = key; });
            }
        }
    }
    // visit(key, column) for the elements of this thread, in order; padding has key 0.
    template <class Visit> __device__ __forceinline__ void each(Visit&& visit) {
        if constexpr (KEPT) {
#pragma unroll
            for (int n = 0; n < KEEP; ++n)
#pragma unroll
                for (int v = 0; v < WIDTH; ++v)
                    visit(kept[n][v], (n * THREADS + (int)threadIdx.x) * WIDTH + v);
        } else {
            const int64_t step = (int64_t)THREADS * WIDTH;
#pragma unroll STEPS
            for (int64_t at = (int64_t)threadIdx.x * WIDTH; at < problem.column_count; at += step)
                read(at, [&](int v, unsigned key) { visit(key, (int)(at + v)); });
        }
    }
};

// Over all threads of the block.
__device__ inline int total(int own, int* counts) {
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2) own += simt::from_lane(own, mask);
    __syncthreads();
    if (threadIdx.x % 32 == 0) counts[threadIdx.x / 32] = own;
    __syncthreads();
    int sum = 0;
#pragma unroll
    for (int n = 0; n < THREADS / 32; ++n) sum += counts[n];
    return sum;
}

template <class P, bool KEPT, bool ALIGNED>
__global__ void __launch_bounds__(THREADS)
rows(const __grid_constant__ P problem) {
    __shared__ Shared shared;
    const int wanted = (int)problem.position_count;
    Row<P, KEPT, ALIGNED> own{problem, (int64_t)blockIdx.x};
    own.load();
    if (threadIdx.x == 0) shared.found = 0;

    // the greatest key of each thread; a bar of 16 bits that `wanted` of them reach
    unsigned greatest = 0;
    own.each([&](unsigned key, int) { greatest = key > greatest ? key : greatest; });
    unsigned bar = 0;
    if (wanted <= GROUPS)
#pragma unroll 1
        for (int bit = 31; bit >= 16; --bit) {
            const unsigned higher = bar | 1u << bit;
            if (__syncthreads_count(greatest >= higher) >= wanted) bar = higher;
        }
    __syncthreads();
    own.each([&](unsigned key, int column) {
        if (key >= bar && column < problem.column_count) {
            const int place = atomicAdd(&shared.found, 1);
            if (place < CANDIDATES) shared.keys[place] = key, shared.indices[place] = column;
        }
    });
    __syncthreads();
    int found = shared.found;
    if (found > CANDIDATES) {
        // the key of the last wanted element, exactly
        unsigned last = 0;
#pragma unroll 1
        for (int bit = 31; bit >= 0; --bit) {
            const unsigned higher = last | 1u << bit;
            int reach = 0;
            own.each([&](unsigned key, int column) {
                reach += key >= higher && column < problem.column_count;
            });
            if (total(reach, shared.counts) >= wanted) last = higher;
        }
        if (threadIdx.x == 0) shared.found = 0;
        __syncthreads();
        own.each([&](unsigned key, int column) {
            if (key > last && column < problem.column_count) {
                const int place = atomicAdd(&shared.found, 1);
                shared.keys[place] = key, shared.indices[place] = column;
            }
        });
        __syncthreads();
        // of those equal to it the first ones: bisection of their indices
        const int above = shared.found;
        int end = 0;
#pragma unroll 1
        for (int bit = 30; bit >= 0; --bit) {
            const int further = end | 1 << bit;
            int equal = 0;
            own.each([&](unsigned key, int column) {
                equal += key == last && column < further && column < problem.column_count;
            });
            if (total(equal, shared.counts) <= wanted - above) end = further;
        }
        own.each([&](unsigned key, int column) {
            if (key == last && column < end && column < problem.column_count) {
                const int place = atomicAdd(&shared.found, 1);
                shared.keys[place] = key, shared.indices[place] = column;
            }
        });
        __syncthreads();
        found = shared.found;
    }
    for (int n = threadIdx.x; n < found; n += THREADS) {
        const unsigned key = shared.keys[n];
        const int index = shared.indices[n];
        int rank = 0;
#pragma unroll 4
        for (int other = 0; other < found; ++other) {
            const unsigned theirs = shared.keys[other];
            rank += theirs > key || (theirs == key && shared.indices[other] < index);
        }
        if (rank < wanted) problem.store(blockIdx.x, rank, index);
    }
}

// Many rows: a warp streams through each. What beats the bar goes to a buffer; when that is full, the
// bar rises to the last wanted key in it, and what is below leaves. What only equals the bar stands
// behind everything in the buffer that does, so it stays outside.
template <class P> struct Stream {
    static constexpr int OWN = BUFFER / 32;
    unsigned* keys;
    int* indices;
    int held, wanted;
    unsigned bar;
    float bar_value;  // no number: everything may beat the bar

    // Without NaN in `x` exactly what beats the bar.
    __device__ __forceinline__ bool may_enter(float x) const {
        return P::LARGEST ? !(x <= bar_value) : !(x >= bar_value);
    }
    __device__ void raise() {
        const int lane = threadIdx.x % 32;
        const unsigned before = (1u << lane) - 1;
        unsigned own[OWN], every = 0xffffffffu, some = 0;
        int columns[OWN];
        __syncwarp();
#pragma unroll
        for (int n = 0; n < OWN; ++n) {
            const bool there = n * 32 + lane < held;
            own[n] = there ? keys[n * 32 + lane] : 0;
            columns[n] = there ? indices[n * 32 + lane] : 0;
            every &= there ? own[n] : 0xffffffffu;
            some |= own[n];
        }
        every = __reduce_and_sync(simt::ALL_LANES, every);
        some = __reduce_or_sync(simt::ALL_LANES, some);
        // the key of the last wanted entry: bits that all have in common are known
        const int bits = 32 - __clz((int)(every ^ some));
        unsigned last = bits == 32 ? 0 : some >> bits << bits;
#pragma unroll 1
        for (int bit = bits - 1; bit >= 0; --bit) {
            const unsigned higher = last | 1u << bit;
            int reach = 0;
#pragma unroll
            for (int n = 0; n < OWN; ++n) reach += own[n] >= higher;
            if (__reduce_add_sync(simt::ALL_LANES, reach) >= wanted) last = higher;
        }
        int above = 0, equal = 0;
#pragma unroll
        for (int n = 0; n < OWN; ++n) above += own[n] > last, equal += own[n] == last;
        const int equal_wanted = wanted - __reduce_add_sync(simt::ALL_LANES, above);
        int end = INT32_MAX;  // of those that equal the last one the first columns stay
        if (__reduce_add_sync(simt::ALL_LANES, equal) > equal_wanted) {
            end = 0;
#pragma unroll 1
            for (int bit = 30; bit >= 0; --bit) {
                const int further = end | 1 << bit;
                int inside = 0;
#pragma unroll
                for (int n = 0; n < OWN; ++n) inside += own[n] == last && columns[n] < further;
                if (__reduce_add_sync(simt::ALL_LANES, inside) <= equal_wanted) end = further;
            }
        }
        int kept = 0;
#pragma unroll
        for (int n = 0; n < OWN; ++n) {
            const bool keep = own[n] > last || (own[n] == last && columns[n] < end);
            const unsigned staying = __ballot_sync(simt::ALL_LANES, keep);
            if (keep) {
                keys[kept + __popc(staying & before)] = own[n];
                indices[kept + __popc(staying & before)] = columns[n];
            }
            kept += __popc(staying);
        }
        held = kept;
        bar = last;
        // the element that has this key
        const unsigned key = P::LARGEST ? last : ~last;
        bar_value = __uint_as_float(key & 0x80000000u ? key ^ 0x80000000u : ~key);
        __syncwarp();
    }
    // A word of each lane; columns that are not there have key 0.
    __device__ void enter(const unsigned (&own)[WIDTH], int column) {
        const unsigned before = (1u << threadIdx.x % 32) - 1;
        for (;;) {
            unsigned winners[WIDTH];
            int total = 0;
#pragma unroll
            for (int v = 0; v < WIDTH; ++v) {
                winners[v] = __ballot_sync(simt::ALL_LANES, own[v] > bar);
                total += __popc(winners[v]);
            }
            if (held + total > BUFFER) {
                raise();
                continue;
            }
#pragma unroll
            for (int v = 0; v < WIDTH; ++v) {
                const int place = held + __popc(winners[v] & before);
                if (own[v] > bar) keys[place] = own[v], indices[place] = column + v;
                held += __popc(winners[v]);
            }
            return;
        }
    }
};

template <class P, bool ALIGNED>
__global__ void __launch_bounds__(THREADS) streams(const __grid_constant__ P problem) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int64_t row = (int64_t)blockIdx.x * (THREADS / 32) + warp;
    if (row >= problem.row_count) return;
    unsigned* keys = (unsigned*)simt::shared_memory() + warp * 2 * BUFFER;
    Stream<P> stream{keys, (int*)(keys + BUFFER), 0, (int)problem.position_count, 0,
                     __uint_as_float(0x7fc00000u)};
    const int columns = (int)problem.column_count;
    for (int base = 0; base < columns; base += UNROLL * 32 * WIDTH) {
        float x[UNROLL][WIDTH];
        if constexpr (ALIGNED && P::PLAIN) {
            simt::Wide<typename P::Element, WIDTH> words[UNROLL];
#pragma unroll
            for (int n = 0; n < UNROLL; ++n) {
                const int at = base + (n * 32 + lane) * WIDTH;
                if (at < columns) simt::fetch<true>(words[n], problem.elements() + row * columns + at);
            }
#pragma unroll
            for (int n = 0; n < UNROLL; ++n)
#pragma unroll
                for (int v = 0; v < WIDTH; ++v) x[n][v] = simt::get(&words[n].at[v]);
        } else {
#pragma unroll
            for (int n = 0; n < UNROLL; ++n)
#pragma unroll
                for (int v = 0; v < WIDTH; ++v) {
                    const int at = base + (n * 32 + lane) * WIDTH + v;
                    x[n][v] = at < columns ? problem.value(row, at) : 0.0f;
                }
        }
#pragma unroll
        for (int n = 0; n < UNROLL; ++n) {
            const int at = base + (n * 32 + lane) * WIDTH;
            bool some = false;
#pragma unroll
            for (int v = 0; v < WIDTH; ++v) some |= stream.may_enter(x[n][v]);
            if (!__any_sync(simt::ALL_LANES, some && at < columns)) continue;
            unsigned own[WIDTH];
#pragma unroll
            for (int v = 0; v < WIDTH; ++v) own[v] = at + v < columns ? key_of<P>(x[n][v]) : 0;
            stream.enter(own, at);
        }
    }
    if (stream.held > stream.wanted) stream.raise();
    __syncwarp();
    for (int n = lane; n < stream.held; n += 32) {
        const unsigned key = stream.keys[n];
        const int index = stream.indices[n];
        int rank = 0;
#pragma unroll 4
        for (int other = 0; other < stream.held; ++other) {
            const unsigned theirs = stream.keys[other];
            rank += theirs > key || (theirs == key && stream.indices[other] < index);
        }
        problem.store(row, rank, index);
    }
}

// More are wanted than fit in shared memory: the rank of each element in its row.
template <class P>
__global__ void __launch_bounds__(THREADS) ranks(const __grid_constant__ P problem) {
    const int64_t row = blockIdx.x, columns = problem.column_count;
    for (int64_t at = threadIdx.x; at < columns; at += THREADS) {
        const unsigned key = key_of<P>(problem.value(row, at));
        int64_t rank = 0;
        for (int64_t other = 0; other < columns; ++other) {
            const unsigned theirs = key_of<P>(problem.value(row, other));
            rank += theirs > key || (theirs == key && other < at);
        }
        if (rank < problem.position_count) problem.store(row, rank, at);
    }
}

template <class P> int run(const P& problem, void* stream) {
    const int64_t columns = problem.column_count;
    if (problem.row_count < 1 || problem.position_count < 1) return 0;
    const dim3 grid((unsigned)problem.row_count);
    if (columns >= INT32_MAX / 2) return (int)cudaErrorInvalidValue;
    if (problem.position_count > CANDIDATES)
        return simt::launch(ranks<P>, grid, THREADS, 0, stream, problem);
    if (problem.row_count >= FEW_ROWS && problem.position_count + 32 * WIDTH <= BUFFER) {
        constexpr int warps = THREADS / 32;
        const auto kernel = columns % WIDTH == 0 ? streams<P, true> : streams<P, false>;
        return simt::launch(kernel, dim3((unsigned)simt::blocks(problem.row_count, warps)), THREADS,
                            warps * BUFFER * 8, stream, problem);
    }
    const bool aligned = columns % WIDTH == 0, kept = columns <= (int64_t)THREADS * WIDTH * KEEP;
    const auto kernel = kept ? (aligned ? rows<P, true, true> : rows<P, true, false>)
                             : (aligned ? rows<P, false, true> : rows<P, false, false>);
    return simt::launch(kernel, grid, THREADS, 0, stream, problem);
}

}  // namespace selection
