// Histograms: counters in shared memory in several copies, so that lanes of a warp meet neither in
// a bank nor in a counter; each block leaves its counts in the workspace, a second launch adds them.
namespace histogram {

constexpr int64_t SHARED_BYTES = 200 * 1024;

// Keys of a byte fill no more counters than there are bytes.
template <class P> __host__ __device__ inline int64_t counted(const P& problem) {
    return P::BYTES && problem.bin_count > 256 ? 256 : problem.bin_count;
}
// Binary logarithm of the copies of each counter: as many as are wanted and fit.
inline int copies_log(int64_t bins) {
    int found = 0;
    while ((2 << found) <= COPIES && (bins * 4 << (found + 1)) <= SHARED_BYTES) ++found;
    return found;
}
inline int64_t workspace_bytes(int64_t bins) {
    const int64_t few = 256 * 4 * GRID;
    return bins * 4 <= SHARED_BYTES ? bins * 4 * GRID : bins * 8 > few ? bins * 8 : few;
}

template <class P>
__global__ void __launch_bounds__(THREADS)
count(const __grid_constant__ P problem, unsigned* __restrict__ partial, int copies_log) {
    unsigned* counters = (unsigned*)simt::shared_memory();
    const int64_t bins = counted(problem), keys = problem.key_count;
    const int total = (int)(bins << copies_log), copies = 1 << copies_log;
    for (int n = threadIdx.x; n < total; n += THREADS) counters[n] = 0;
    __syncthreads();
    unsigned* own = counters + (threadIdx.x & (copies - 1));
    const auto add = [&](typename P::Key key) {
        if ((uint64_t)key < (uint64_t)bins) atomicAdd(own + ((int64_t)key << copies_log), 1u);
    };
    const int64_t first = (int64_t)blockIdx.x * THREADS + threadIdx.x, step = (int64_t)GRID * THREADS;
    if constexpr (P::PLAIN) {
        using Element = typename P::Element;
        constexpr int WIDTH = 16 / sizeof(Element);
        const Element* elements = problem.elements();
        simt::Wide<Element, WIDTH> words[UNROLL];
        simt::sweep<false, UNROLL>(first, keys / WIDTH, step,
            [&](int64_t at, int slot) {
                simt::fetch<true>(words[slot], elements + at * WIDTH);
            },
            [&](int64_t, int slot) {
#pragma unroll
                for (int v = 0; v < WIDTH; ++v) add((typename P::Key)words[slot].at[v]);
            });
        for (int64_t at = keys / WIDTH * WIDTH + first; at < keys; at += step) add(problem.key(at));
    } else {
        for (int64_t at = first; at < keys; at += step) add(problem.key(at));
    }
    __syncthreads();
    for (int bin = threadIdx.x; bin < bins; bin += THREADS) {
        unsigned sum = 0;
        for (int n = 0; n < copies; ++n)
            sum += counters[(bin << copies_log) + ((n + threadIdx.x) & (copies - 1))];
        partial[blockIdx.x * bins + bin] = sum;
    }
}

// More bins than shared memory holds: counters in memory.
template <class P>
__global__ void __launch_bounds__(THREADS)
count_in_memory(const __grid_constant__ P problem, unsigned long long* counters) {
    const int64_t step = (int64_t)gridDim.x * THREADS;
    for (int64_t at = (int64_t)blockIdx.x * THREADS + threadIdx.x; at < problem.key_count; at += step) {
        const typename P::Key key = problem.key(at);
        if ((uint64_t)key < (uint64_t)problem.bin_count) atomicAdd(counters + key, 1ull);
    }
}

// Adds the counts of all blocks; 32 bins in a block of 8 warps.
template <class P>
__global__ void __launch_bounds__(256)
finish(const __grid_constant__ P problem, const unsigned* __restrict__ partial, int parts) {
    __shared__ int64_t sums[8][32];
    const int lane = threadIdx.x % 32, slice = threadIdx.x / 32;
    const int64_t bin = (int64_t)blockIdx.x * 32 + lane;
    int64_t sum = 0;
    if (bin < counted(problem))
#pragma unroll 4
        for (int part = slice; part < parts; part += 8) sum += partial[part * counted(problem) + bin];
    sums[slice][lane] = sum;
    __syncthreads();
    if (slice != 0 || bin >= problem.bin_count) return;
    for (int n = 1; n < 8; ++n) sum += sums[n][lane];
    problem.store(bin, sum);
}
template <class P>
__global__ void __launch_bounds__(256)
store_all(const __grid_constant__ P problem, const unsigned long long* counters) {
    const int64_t bin = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (bin < problem.bin_count) problem.store(bin, (int64_t)counters[bin]);
}

template <class P> int run(const P& problem, void* partial, void* stream) {
    const int64_t bins = problem.bin_count;
    if (bins < 1) return 0;
    if (counted(problem) * 4 > SHARED_BYTES) {
        if (const int failed =
                (int)cudaMemsetAsync(partial, 0, bins * 8, (cudaStream_t)stream)) return failed;
        if (const int failed = simt::launch(count_in_memory<P>, dim3(GRID), THREADS, 0, stream,
                                            problem, (unsigned long long*)partial)) return failed;
        return simt::launch(store_all<P>, dim3((unsigned)simt::blocks(bins, 256)), 256, 0, stream,
                            problem, (const unsigned long long*)partial);
    }
    const int copies = copies_log(counted(problem));
    if (const int failed = simt::launch(count<P>, dim3(GRID), THREADS,
                                        counted(problem) * 4 << copies, stream,
                                        problem, (unsigned*)partial, copies)) return failed;
    return simt::launch(finish<P>, dim3((unsigned)simt::blocks(bins, 32)), 256, 0, stream, problem,
                        (const unsigned*)partial, GRID);
}

}  // namespace histogram
