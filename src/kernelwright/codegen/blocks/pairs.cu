// All pairs: a thread has ROWS rows in registers and meets every other, which all threads of a
// block read from shared memory at the same time. Few rows: the others are split over blocks, and
// a second launch combines what they found.
namespace pairs {

constexpr int STEPS = UNROLL;

__device__ __forceinline__ float inverse_root(float x) {
#if FAST && defined(__CUDA_ARCH__)
    float result;
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
#else
    return rsqrtf(x);
#endif
}

template <class P> constexpr int padded() {
    return P::OTHER_TERMS <= 2 ? P::OTHER_TERMS : (P::OTHER_TERMS + 3) / 4 * 4;
}
template <class P> struct alignas(padded<P>() % 4 ? 4 * padded<P>() : 16) Other {
    float of[padded<P>()];
};

template <class P>
__global__ void __launch_bounds__(THREADS)
reduce(const __grid_constant__ P problem, typename P::Totals* __restrict__ found) {
    __shared__ Other<P> others[TILE];
    const int64_t batch = blockIdx.z, rows = problem.row_count, count = problem.other_count;
    const int64_t first_row = (int64_t)blockIdx.x * (THREADS * ROWS) + threadIdx.x;
    typename P::Row own[ROWS];
    typename P::Totals totals[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        const int64_t row = first_row + r * THREADS;
        // beyond the last row the last one is repeated and not stored
        problem.pack_row(batch, row < rows ? row : rows - 1, own[r]);
    }
    const int64_t share = ((count + SPLIT - 1) / SPLIT + TILE - 1) / TILE * TILE;
    const int64_t begin = share * blockIdx.y, last = begin + share < count ? begin + share : count;
    for (int64_t at = begin; at < last; at += TILE) {
        const int size = (int)(last - at < TILE ? last - at : TILE);
        __syncthreads();
        for (int j = threadIdx.x; j < size; j += THREADS) problem.pack_other(batch, at + j, others[j].of);
        __syncthreads();
        typename P::Totals of_tile[ROWS];
#pragma unroll STEPS
        for (int j = 0; j < size; ++j) {
            const Other<P> other = others[j];
#pragma unroll
            for (int r = 0; r < ROWS; ++r)
                problem.meet(own[r], other.of, first_row + r * THREADS, at + j, of_tile[r]);
        }
#pragma unroll
        for (int r = 0; r < ROWS; ++r) totals[r].add(of_tile[r]);
    }
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        const int64_t row = first_row + r * THREADS;
        if (row >= rows) continue;
        if (SPLIT == 1) problem.store(batch, row, totals[r]);
        else found[(blockIdx.y * problem.batch_count + batch) * rows + row] = totals[r];
    }
}

template <class P>
__global__ void __launch_bounds__(THREADS)
combine(const __grid_constant__ P problem, const typename P::Totals* __restrict__ found) {
    const int64_t count = problem.batch_count * problem.row_count;
    const int64_t at = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (at >= count) return;
    typename P::Totals totals = found[at];
#pragma unroll
    for (int part = 1; part < SPLIT; ++part) totals.add(found[part * count + at]);
    const int64_t batch = simt::quotient(at, problem.row_count);
    problem.store(batch, at - batch * problem.row_count, totals);
}

template <class P> int run(const P& problem, char* found, void* stream) {
    const int64_t rows = problem.row_count, batches = problem.batch_count;
    if (rows < 1 || batches < 1) return 0;
    if (batches > 65535) return (int)cudaErrorInvalidValue;
    typename P::Totals* totals = (typename P::Totals*)found;
    const dim3 grid((unsigned)simt::blocks(rows, THREADS * ROWS), SPLIT, (unsigned)batches);
    const int failed = simt::launch(reduce<P>, grid, THREADS, 0, stream, problem, totals);
    if (failed || SPLIT == 1) return failed;
    return simt::launch(combine<P>, dim3((unsigned)simt::blocks(rows * batches, THREADS)), THREADS, 0,
                        stream, problem, (const typename P::Totals*)totals);
}

}  // namespace pairs
