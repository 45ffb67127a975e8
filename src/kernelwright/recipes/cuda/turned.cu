// Transpositions, and pointwise work along with them: square tiles pass through shared memory, in
// whole words on both sides.
namespace turned {

constexpr int PITCH = SIDE + 1, WORDS = SIDE / WIDTH, LINES = THREADS / WORDS;

template <class P, bool ALIGNED>
__global__ void __launch_bounds__(THREADS)
tiles(const __grid_constant__ P problem, int64_t across_tiles, int64_t column_tiles) {
    __shared__ float tile[P::CROSSED][SIDE * PITCH];
    constexpr int W = ALIGNED ? WIDTH : 1;
    // neighbours in the grid read neighbouring parts of the same lines
    int64_t rest = simt::quotient(blockIdx.x, across_tiles);
    const int64_t n0 = ((int64_t)blockIdx.x - rest * across_tiles) * SIDE;
    const int64_t outer = simt::quotient(rest, column_tiles);
    const int64_t m0 = (rest - outer * column_tiles) * SIDE;
    const int64_t across = problem.across_count, columns = problem.column_count;

    const auto read = [&](auto load) {
        constexpr int LOAD = decltype(load)::value;
        if constexpr (ALIGNED) {
            using Element = typename P::template Element<LOAD>;
            constexpr int COUNT = SIDE / LINES;
            simt::Wide<Element, WIDTH> words[COUNT];
            const int n = threadIdx.x % WORDS * WIDTH;
#pragma unroll
            for (int k = 0; k < COUNT; ++k) {
                const int m = threadIdx.x / WORDS + k * LINES;
                if (m0 + m < columns && n0 + n < across)
                    simt::fetch<true>(words[k], problem.template place<LOAD>(outer, n0 + n, m0 + m));
            }
#pragma unroll
            for (int k = 0; k < COUNT; ++k) {
                const int m = threadIdx.x / WORDS + k * LINES;
#pragma unroll
                for (int v = 0; v < WIDTH; ++v)
                    tile[LOAD][m * PITCH + n + v] = simt::get(&words[k].at[v]);
            }
        } else {
#pragma unroll 4
            for (int k = threadIdx.x; k < SIDE * SIDE; k += THREADS) {
                const int m = k / SIDE, n = k % SIDE;
                if (m0 + m < columns && n0 + n < across)
                    tile[LOAD][m * PITCH + n] =
                        simt::get(problem.template place<LOAD>(outer, n0 + n, m0 + m));
            }
        }
    };
    read(std::integral_constant<int, 0>{});
    if constexpr (P::CROSSED > 1) read(std::integral_constant<int, 1>{});
    if constexpr (P::CROSSED > 2) read(std::integral_constant<int, 2>{});
    __syncthreads();
#pragma unroll 4
    for (int k = threadIdx.x; k < SIDE * SIDE / W; k += THREADS) {
        const int n = k / (SIDE / W), m = k % (SIDE / W) * W;
        if (m0 + m >= columns || n0 + n >= across) continue;
        simt::Wide<typename P::Result, W> word;
#pragma unroll
        for (int v = 0; v < W; ++v) {
            float own[P::CROSSED];
#pragma unroll
            for (int load = 0; load < P::CROSSED; ++load) own[load] = tile[load][(m + v) * PITCH + n];
            simt::put(&word.at[v], problem.value(outer, n0 + n, m0 + m + v, own));
        }
        simt::write<true>(problem.target(outer, n0 + n, m0 + m), word);
    }
}

template <class P> int run(const P& problem, void* stream) {
    const int64_t across = simt::blocks(problem.across_count, SIDE);
    const int64_t columns = simt::blocks(problem.column_count, SIDE);
    const int64_t count = across * columns * problem.outer_count;
    if (count < 1) return 0;
    if (count > INT32_MAX) return (int)cudaErrorInvalidValue;
    const bool aligned = problem.across_count % WIDTH == 0 && problem.column_count % WIDTH == 0 &&
                         problem.aligned();
    return simt::launch(aligned ? tiles<P, true> : tiles<P, false>, dim3((unsigned)count), THREADS, 0,
                        stream, problem, across, columns);
}

}  // namespace turned
