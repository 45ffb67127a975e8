// Sums over segments: segment ends and elements are merged into one path that is cut into equal
// pieces (merge-based CSR, Merrill and Garland 2016), so that neither long segments nor empty ones
// leave threads idle. What a segment leaves in one block is added by the last launch.
namespace segments {

constexpr int TILE = THREADS * PIECE, WARPS = THREADS / 32;

inline int64_t blocks_of(int64_t segments, int64_t elements) {
    return (segments + elements + TILE - 1) / TILE;
}

// The elements that lie in segments, and how many of some number of merged items are segment ends.
template <class P> struct Path {
    const P& problem;
    int64_t first, count;

    __device__ explicit Path(const P& p) : problem(p) {
        const int64_t all = p.element_count, begin = p.start(0), end = p.start(p.segment_count);
        first = begin < 0 ? 0 : begin < all ? begin : all;
        count = (end < all ? end : all) - first;
        count = count < 0 ? 0 : count;
    }
    // Whether the end of a segment is among the first of the merged items.
    __device__ bool holds_end(int64_t segment, int64_t items) const {
        return problem.start(segment + 1) - first <= items - segment - 1;
    }
    __device__ int64_t ends_among(int64_t items) const {
        int64_t low = items > count ? items - count : 0;
        int64_t high = items < problem.segment_count ? items : problem.segment_count;
        constexpr int WAYS = 8;  // loads that are on their way together
        while (high - low >= WAYS) {
            const int64_t step = (high - low) / WAYS;
            int held = 0;
#pragma unroll
            for (int way = 1; way < WAYS; ++way) held += holds_end(low + way * step, items);
            if (held < WAYS - 1) high = low + (held + 1) * step;
            if (held > 0) low += held * step + 1;
        }
        while (low < high) {
            const int64_t middle = (low + high) / 2;
            if (holds_end(middle, items)) low = middle + 1;
            else high = middle;
        }
        return low;
    }
};

template <class P>
__global__ void __launch_bounds__(256)
cut(const __grid_constant__ P problem, int64_t* __restrict__ cuts, int64_t blocks) {
    const int64_t at = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (at > blocks) return;
    const Path<P> path(problem);
    const int64_t items = problem.segment_count + path.count;
    cuts[at] = path.ends_among(at * TILE < items ? at * TILE : items);
}

struct Open {
    int segment;
    float sum;
};
__device__ inline Open joined(Open before, Open own) {
    return {own.segment, before.segment == own.segment ? before.sum + own.sum : own.sum};
}

template <class P>
__global__ void __launch_bounds__(THREADS, RESIDENT)
reduce(const __grid_constant__ P problem, const int64_t* __restrict__ cuts,
       float* __restrict__ heads, float* __restrict__ tails) {
    // elements from the front, ends of segments from the back: with a mark behind, what merges
    __shared__ float values[TILE + 1];
    __shared__ Open of_warp[WARPS];
    const Path<P> path(problem);
    const int64_t all = problem.segment_count + path.count;
    const int64_t item = (int64_t)blockIdx.x * TILE < all ? (int64_t)blockIdx.x * TILE : all;
    const int64_t last = item + TILE < all ? item + TILE : all;
    const int64_t segment = cuts[blockIdx.x], element = item - segment;
    const int segments = (int)(cuts[blockIdx.x + 1] - segment);
    const int elements = (int)(last - item) - segments, items = segments + elements;
    int* ends = (int*)values + TILE - segments;

    float own[PIECE];
#pragma unroll
    for (int n = 0; n < PIECE; ++n) {
        const int at = n * THREADS + threadIdx.x;
        own[n] = at < elements ? problem.value(path.first + element + at) : 0.0f;
    }
    for (int n = threadIdx.x; n < segments; n += THREADS)
        ends[n] = (int)(problem.start(segment + n + 1) - path.first - element);
    if (threadIdx.x == 0) ends[segments] = INT32_MAX;
#pragma unroll
    for (int n = 0; n < PIECE; ++n) {
        const int at = n * THREADS + threadIdx.x;
        if (at < elements) values[at] = own[n];
    }
    __syncthreads();

    // the piece of this thread: sums of the segments that end in it
    const int begin = (int)threadIdx.x * PIECE < items ? (int)threadIdx.x * PIECE : items;
    const int end = begin + PIECE < items ? begin + PIECE : items;
    int low = begin > elements ? begin - elements : 0, high = begin < segments ? begin : segments;
    while (low < high) {
        const int middle = (low + high) / 2;
        if (ends[middle] <= begin - middle - 1) low = middle + 1;
        else high = middle;
    }
    int at = low, next = begin - low;
    const int first = at;
    float sum = 0.0f, totals[PIECE];
    uint32_t ended = 0;  // which items are ends
#pragma unroll
    for (int n = 0; n < PIECE; ++n) {
        totals[n] = 0.0f;
        if (begin + n >= end) continue;
        if (next < ends[at]) {
            sum += values[next++];
        } else {
            totals[n] = sum;
            ended |= 1u << n;
            sum = 0.0f;
            ++at;
        }
    }
    // what the pieces before leave for the first segment that ends here
    Open open{at, sum};
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int by = 1; by < 32; by *= 2) {
        const Open before{__shfl_up_sync(simt::ALL_LANES, open.segment, by),
                          __shfl_up_sync(simt::ALL_LANES, open.sum, by)};
        if (lane >= by) open = joined(before, open);
    }
    if (lane == 31) of_warp[warp] = open;
    Open before{__shfl_up_sync(simt::ALL_LANES, open.segment, 1),
                __shfl_up_sync(simt::ALL_LANES, open.sum, 1)};
    __syncthreads();  // all have read their values: sums take their place
    Open front{0, 0.0f};
    for (int n = 0; n < warp; ++n) front = joined(front, of_warp[n]);
    before = lane == 0 ? front : joined(front, before);
    if (threadIdx.x == THREADS - 1) tails[blockIdx.x] = joined(front, open).sum;
    float carried = before.segment == first ? before.sum : 0.0f;
    int place = first;
#pragma unroll
    for (int n = 0; n < PIECE; ++n) {
        if (!(ended >> n & 1)) continue;
        values[place++] = totals[n] + carried;
        carried = 0.0f;
    }
    __syncthreads();
    if (threadIdx.x == 0 && segments > 0) heads[blockIdx.x] = values[0];
    for (int n = threadIdx.x + 1; n < segments; n += THREADS) problem.store(segment + n, values[n]);
}

// The first segment that ends in each block, with what the blocks before had of it; a warp each.
template <class P>
__global__ void __launch_bounds__(256)
finish(const __grid_constant__ P problem, const int64_t* __restrict__ cuts,
       const float* __restrict__ heads, const float* __restrict__ tails, int64_t blocks) {
    const int64_t at = (int64_t)blockIdx.x * 8 + threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    if (at >= blocks || cuts[at] == cuts[at + 1]) return;
    double sum = lane == 0 ? heads[at] : 0.0f;
    for (int64_t nearest = at - 1; nearest >= 0; nearest -= 32) {
        const int64_t before = nearest - lane;
        const bool ends = before < 0 || cuts[before] < cuts[before + 1];
        const unsigned mask = __ballot_sync(simt::ALL_LANES, ends);
        const int last = mask ? __ffs(mask) - 1 : 31;
        if (lane <= last && before >= 0) sum += tails[before];
        if (mask) break;
    }
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2) sum += simt::from_lane(sum, mask);
    if (lane == 0) problem.store(cuts[at], (float)sum);
}

template <class P> int run(const P& problem, char* workspace, void* stream) {
    const int64_t blocks = blocks_of(problem.segment_count, problem.element_count);
    if (problem.segment_count < 1) return 0;
    int64_t* cuts = (int64_t*)workspace;
    float* heads = (float*)(cuts + blocks + 1);
    float* tails = heads + blocks;
    const int64_t few = simt::blocks(blocks + 1, 256);
    if (const int failed = simt::launch(cut<P>, dim3((unsigned)few), 256, 0, stream, problem, cuts,
                                        blocks)) return failed;
    if (const int failed = simt::launch(reduce<P>, dim3((unsigned)blocks), THREADS, 0, stream, problem,
                                        (const int64_t*)cuts, heads, tails)) return failed;
    return simt::launch(finish<P>, dim3((unsigned)simt::blocks(blocks, 8)), 256, 0, stream, problem, (const int64_t*)cuts,
                        (const float*)heads, (const float*)tails, blocks);
}

}  // namespace segments
