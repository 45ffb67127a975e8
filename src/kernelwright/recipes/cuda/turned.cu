// Transpositions, and pointwise work along with them: tiles pass through shared memory, in whole
// words on both sides.
//
// Elements of 16 bits lie in shared memory in pairs of neighbours along the result's lines, so that
// 32 bits are moved at a time. Lanes of a warp cover patches of several lines, whose words fall
// into different banks. Tiles begin where lines of the caches do, as arguments need not: a part of
// a line that is written alone is read before.
namespace turned {

constexpr int PITCH = ACROSS + 1, WARPS = THREADS / 32, LINE = 128;
static_assert(ACROSS % 32 == 0 && COLUMNS % 32 == 0 && THREADS % 32 == 0);

template <class P, int LOAD> struct Shared {
    using Element = typename P::template Element<LOAD>;
    static constexpr int PER = sizeof(Element) == 2 ? 2 : 1;  // elements of a cell
    using Cell = simt::Wide<Element, PER>;
    static constexpr int BYTES = COLUMNS / PER * PITCH * (int)sizeof(Cell);
};
// Where the cells of a load begin.
template <class P, int LOAD> struct Start {
    static constexpr int BYTES = Start<P, LOAD - 1>::BYTES + Shared<P, LOAD - 1>::BYTES;
};
template <class P> struct Start<P, 0> {
    static constexpr int BYTES = 0;
};

// How many elements before an address its line begins, in whole words.
template <class Element> __device__ __forceinline__ int into_line(const Element* at) {
    return (int)((uintptr_t)at % LINE / sizeof(Element)) / WIDTH * WIDTH;
}

struct Corner {
    int64_t outer, n0, m0;
};

// Everything that a tile needs of one load, all words on their way before the first is kept.
template <int LOAD, class P>
__device__ __forceinline__ void bring(const P& problem, char* memory, Corner at) {
    using Element = typename P::template Element<LOAD>;
    using Cell = typename Shared<P, LOAD>::Cell;
    constexpr int PER = Shared<P, LOAD>::PER, ROWS = 32 / LANES;
    constexpr int WIDE = ACROSS / (LANES * WIDTH), PATCHES = WIDE * (COLUMNS / PER / ROWS);
    constexpr int COUNT = (PATCHES + WARPS - 1) / WARPS;
    static_assert(ACROSS % (LANES * WIDTH) == 0 && COLUMNS % (PER * ROWS) == 0);
    Cell* cells = (Cell*)(memory + Start<P, LOAD>::BYTES);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    simt::Wide<Element, WIDTH> words[COUNT][PER];
#pragma unroll
    for (int k = 0; k < COUNT; ++k) {
        const int patch = warp + k * WARPS;
        const int n = (patch % WIDE * LANES + lane % LANES) * WIDTH;
        const int row = patch / WIDE * ROWS + lane / LANES;
        const bool here = patch < PATCHES && at.n0 + n >= 0 && at.n0 + n < problem.across_count;
#pragma unroll
        for (int one = 0; one < PER; ++one) {
            const int64_t m = at.m0 + row * PER + one;
            if (here && m >= 0 && m < problem.column_count)
                simt::fetch<true>(words[k][one], problem.template place<LOAD>(at.outer, at.n0 + n, m));
        }
    }
#pragma unroll
    for (int k = 0; k < COUNT; ++k) {
        const int patch = warp + k * WARPS;
        if (patch >= PATCHES) continue;
        const int n = (patch % WIDE * LANES + lane % LANES) * WIDTH;
        const int row = patch / WIDE * ROWS + lane / LANES;
#pragma unroll
        for (int v = 0; v < WIDTH; ++v) {
            Cell cell;
#pragma unroll
            for (int one = 0; one < PER; ++one) cell.at[one] = words[k][one].at[v];
            simt::write<false>((Element*)(cells + row * PITCH + n + v), cell);
        }
    }
}
// The same element by element, where words are not aligned.
template <int LOAD, class P>
__device__ __forceinline__ void bring_singly(const P& problem, char* memory, Corner at) {
    using Element = typename P::template Element<LOAD>;
    constexpr int PER = Shared<P, LOAD>::PER;
    Element* cells = (Element*)(memory + Start<P, LOAD>::BYTES);
#pragma unroll 4
    for (int k = threadIdx.x; k < ACROSS * COLUMNS; k += THREADS) {
        const int m = k / ACROSS, n = k % ACROSS;
        if (at.m0 + m < problem.column_count && at.n0 + n < problem.across_count)
            cells[(m / PER * PITCH + n) * PER + m % PER] =
                *problem.template place<LOAD>(at.outer, at.n0 + n, at.m0 + m);
    }
}

// W elements of a line of the result, as floats.
template <int LOAD, int W, class P>
__device__ __forceinline__ void take(float (&own)[W][P::CROSSED], const char* memory, int n, int m) {
    using Element = typename P::template Element<LOAD>;
    using Cell = typename Shared<P, LOAD>::Cell;
    constexpr int PER = Shared<P, LOAD>::PER;
    const Cell* cells = (const Cell*)(memory + Start<P, LOAD>::BYTES);
    if constexpr (W % PER == 0) {
#pragma unroll
        for (int v = 0; v < W / PER; ++v) {
            Cell cell;
            simt::fetch<false>(cell, (const Element*)(cells + (m / PER + v) * PITCH + n));
#pragma unroll
            for (int one = 0; one < PER; ++one) own[v * PER + one][LOAD] = simt::get(&cell.at[one]);
        }
    } else {
#pragma unroll
        for (int v = 0; v < W; ++v)
            own[v][LOAD] = simt::get((const Element*)cells +
                                     ((m + v) / PER * PITCH + n) * PER + (m + v) % PER);
    }
}

template <class P, bool ALIGNED>
__global__ void __launch_bounds__(THREADS)
tiles(const __grid_constant__ P problem, int64_t across_tiles, int64_t column_tiles) {
    __shared__ __align__(16) char memory[Start<P, P::CROSSED>::BYTES];
    constexpr int W = ALIGNED ? WIDTH : 1;
    // neighbours in the grid write neighbouring parts of GROUP tiles of a line, then read on
    const int64_t rest = simt::quotient(blockIdx.x, across_tiles * column_tiles);
    const int64_t tile = (int64_t)blockIdx.x - rest * across_tiles * column_tiles;
    const int64_t band = simt::quotient(tile, across_tiles * GROUP), first = band * GROUP;
    const int64_t within = tile - band * across_tiles * GROUP;
    const int64_t height = column_tiles - first < GROUP ? column_tiles - first : GROUP;
    const int64_t turn = simt::quotient(within, height);
    Corner at{rest, turn * ACROSS, (first + within - turn * height) * COLUMNS};
    if (ALIGNED) {
        at.n0 -= into_line(problem.template place<0>(rest, 0, 0));
        at.m0 -= into_line(problem.target(rest, 0, 0));
    }
    if constexpr (ALIGNED) {
        bring<0>(problem, memory, at);
        if constexpr (P::CROSSED > 1) bring<1>(problem, memory, at);
    } else {
        bring_singly<0>(problem, memory, at);
        if constexpr (P::CROSSED > 1) bring_singly<1>(problem, memory, at);
    }
    __syncthreads();
    constexpr int ALONG = 8, ROWS = 32 / ALONG, WIDE = COLUMNS / W / ALONG;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    static_assert(COLUMNS % (ALONG * W) == 0);
#pragma unroll 4
    for (int patch = warp; patch < WIDE * (ACROSS / ROWS); patch += WARPS) {
        const int m = (patch % WIDE * ALONG + lane % ALONG) * W;
        const int n = patch / WIDE * ROWS + lane / ALONG;
        if (at.m0 + m < 0 || at.m0 + m >= problem.column_count) continue;
        if (at.n0 + n < 0 || at.n0 + n >= problem.across_count) continue;
        float own[W][P::CROSSED];
        take<0, W, P>(own, memory, n, m);
        if constexpr (P::CROSSED > 1) take<1, W, P>(own, memory, n, m);
        simt::Wide<typename P::Result, W> word;
#pragma unroll
        for (int v = 0; v < W; ++v)
            simt::put(&word.at[v], problem.value(at.outer, at.n0 + n, at.m0 + m + v, own[v]));
        simt::write<true>(problem.target(at.outer, at.n0 + n, at.m0 + m), word);
    }
}

template <class P> int run(const P& problem, void* stream) {
    const bool aligned = problem.across_count % WIDTH == 0 && problem.column_count % WIDTH == 0 &&
                         problem.aligned();
    // as many elements as a tile may begin before the tensor does
    const int64_t before = aligned ? LINE / (int64_t)sizeof(typename P::Result) : 0;
    const int64_t across_before =
        aligned ? LINE / (int64_t)sizeof(typename P::template Element<0>) : 0;
    const int64_t across = simt::blocks(problem.across_count + across_before, ACROSS);
    const int64_t columns = simt::blocks(problem.column_count + before, COLUMNS);
    const int64_t count = across * columns * problem.outer_count;
    if (problem.across_count < 1 || problem.column_count < 1 || count < 1) return 0;
    if (count > INT32_MAX) return (int)cudaErrorInvalidValue;
    return simt::launch(aligned ? tiles<P, true> : tiles<P, false>, dim3((unsigned)count), THREADS, 0,
                        stream, problem, across, columns);
}

}  // namespace turned
