// Running sums in one pass: tiles are taken in order, each looks back for what the tiles before it
// in its row add up to (decoupled look-back, Merrill and Garland 2016). Sums between tiles are
// doubles; the state of a tile is one word, its sum with a mark in the two lowest bits.
namespace scan {

constexpr int WARPS = THREADS / 32, CHUNK = 32 * WIDTH, TILE = THREADS * WIDTH * KEEP;
constexpr unsigned long long MARK = 3, OWN = 1, WHOLE = 2;

inline int64_t tiles_of(int64_t columns) { return (columns + TILE - 1) / TILE; }

__device__ inline unsigned long long marked(double sum, unsigned long long mark) {
    return ((unsigned long long)__double_as_longlong(sum) & ~MARK) | mark;
}
__device__ inline double sum_of(unsigned long long state) {
    return __longlong_as_double((long long)(state & ~MARK));
}

// What all tiles of the row before this one add up to; called by one warp.
__device__ inline double look_back(volatile unsigned long long* states, int64_t tile) {
    const int lane = threadIdx.x % 32;
    double before = 0.0;
    for (int64_t nearest = tile - 1; nearest >= 0; nearest -= 32) {
        const int64_t own = nearest - lane;
        unsigned long long state = WHOLE;  // nothing in front of the first tile
        if (own >= 0)
            while (((state = states[own]) & MARK) == 0) __nanosleep(20);
        const unsigned whole = __ballot_sync(simt::ALL_LANES, (state & MARK) == WHOLE);
        const int last = whole ? __ffs(whole) - 1 : 31;
        double sum = lane <= last && own >= 0 ? sum_of(state) : 0.0;
#pragma unroll
        for (int mask = 16; mask > 0; mask /= 2) sum += simt::from_lane(sum, mask);
        before += sum;
        if (whole) break;
    }
    return before;
}

// Word `at` of a row: its columns from `at * WIDTH` on.
template <class P> struct Tile {
    const P& problem;
    int64_t row, first, last;

    template <bool WHOLE_WORDS> __device__ __forceinline__ void load(float (&values)[KEEP][WIDTH]) {
        const int64_t own = first + threadIdx.x / 32 * (CHUNK * KEEP) + threadIdx.x % 32 * WIDTH;
        if constexpr (WHOLE_WORDS && P::PLAIN) {
            simt::Wide<typename P::Element, WIDTH> words[KEEP];
#pragma unroll
            for (int n = 0; n < KEEP; ++n)
                simt::fetch<true>(words[n], problem.elements() + row * problem.column_count + own + n * CHUNK);
#pragma unroll
            for (int n = 0; n < KEEP; ++n)
#pragma unroll
                for (int v = 0; v < WIDTH; ++v) values[n][v] = simt::get(&words[n].at[v]);
        } else {
#pragma unroll
            for (int n = 0; n < KEEP; ++n)
#pragma unroll
                for (int v = 0; v < WIDTH; ++v) {
                    const int64_t at = own + n * CHUNK + v;
                    values[n][v] = at < last ? problem.value(row, at) : 0.0f;
                }
        }
    }
    template <bool WHOLE_WORDS>
    __device__ __forceinline__ void store(const float (&values)[KEEP][WIDTH], double before) {
        const int64_t own = first + threadIdx.x / 32 * (CHUNK * KEEP) + threadIdx.x % 32 * WIDTH;
        typename P::Result* target = problem.target(row);
        // the sum before as two floats: one more rounding instead of double arithmetic
        const float high = (float)before, low = (float)(before - (double)high);
        const float rest = high - high == 0.0f ? low : 0.0f;
#pragma unroll
        for (int n = 0; n < KEEP; ++n) {
            simt::Wide<typename P::Result, WIDTH> word;
#pragma unroll
            for (int v = 0; v < WIDTH; ++v) {
                const float sum = high + (rest + values[n][v]);
                const int64_t at = own + n * CHUNK + v;
                if (WHOLE_WORDS) simt::put(&word.at[v], sum);
                else if (at < last) simt::put(target + at, sum);
            }
            if (WHOLE_WORDS) simt::write<true>(target + own + n * CHUNK, word);
        }
    }
};

template <class P, bool ALIGNED>
__global__ void __launch_bounds__(THREADS)
rows(const __grid_constant__ P problem, unsigned* ticket, unsigned long long* states, int64_t tiles) {
    __shared__ int64_t taken;
    __shared__ double warp_sums[WARPS], before_tile;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    if (threadIdx.x == 0) taken = atomicAdd(ticket, 1u);
    __syncthreads();
    const int64_t row = simt::quotient(taken, tiles), tile = taken - row * tiles;
    const int64_t columns = problem.column_count;
    Tile<P> own{problem, row, tile * TILE, columns};
    const bool whole = ALIGNED && (tile + 1) * TILE <= columns;
    float values[KEEP][WIDTH];
    if (whole) own.template load<ALIGNED>(values);
    else own.template load<false>(values);

    // running sums in the words of a thread, then along the lanes, then along the words of a warp
    float running = 0.0f;
#pragma unroll
    for (int n = 0; n < KEEP; ++n) {
#pragma unroll
        for (int v = 1; v < WIDTH; ++v) values[n][v] += values[n][v - 1];
        const float total = values[n][WIDTH - 1];
        float sum = total;
#pragma unroll
        for (int by = 1; by < 32; by *= 2) {
            const float other = __shfl_up_sync(simt::ALL_LANES, sum, by);
            if (lane >= by) sum += other;
        }
        float front = __shfl_up_sync(simt::ALL_LANES, sum, 1);
        front = running + (lane > 0 ? front : 0.0f);
#pragma unroll
        for (int v = 0; v < WIDTH; ++v) values[n][v] += front;
        running += __shfl_sync(simt::ALL_LANES, sum, 31);
    }
    if (lane == 0) warp_sums[warp] = (double)running;
    __syncthreads();
    double front = 0.0, sum = 0.0;
#pragma unroll
    for (int n = 0; n < WARPS; ++n) {
        if (n == warp) front = sum;
        sum += warp_sums[n];
    }
    if (warp == 0) {
        volatile unsigned long long* of_row = states + row * tiles;
        if (lane == 0) of_row[tile] = marked(sum, tile == 0 ? WHOLE : OWN);
        const double before = tile == 0 ? 0.0 : look_back(of_row, tile);
        if (lane == 0) {
            if (tile > 0) of_row[tile] = marked(before + sum, WHOLE);
            before_tile = before;
        }
    }
    __syncthreads();
    const double before = before_tile + front;
    if (whole) own.template store<ALIGNED>(values, before);
    else own.template store<false>(values, before);
}

template <class P>
int run(const P& problem, char* workspace, void* stream) {
    const int64_t tiles = tiles_of(problem.column_count), count = tiles * problem.row_count;
    if (count < 1) return 0;
    if (count > INT32_MAX) return (int)cudaErrorInvalidValue;
    if (const int failed = (int)cudaMemsetAsync(workspace, 0, 256 + count * 8, (cudaStream_t)stream))
        return failed;
    unsigned* ticket = (unsigned*)workspace;
    unsigned long long* states = (unsigned long long*)(workspace + 256);
    const bool aligned = problem.row_count == 1 || problem.column_count % WIDTH == 0;
    return aligned ? simt::launch(rows<P, true>, dim3((unsigned)count), THREADS, 0, stream, problem,
                                  ticket, states, tiles)
                   : simt::launch(rows<P, false>, dim3((unsigned)count), THREADS, 0, stream, problem,
                                  ticket, states, tiles);
}

}  // namespace scan
