// Attention of few rows that share their keys (decoding): the keys of each batch are split over
// blocks, groups of lanes take a key each and keep a softmax of their own (online, Milakov and
// Gimelshein 2018), what the groups found is joined in shared memory, what the blocks found by a
// last launch.
namespace attention {

constexpr int WARPS = THREADS / 32;

inline int64_t splits_of(int64_t keys) { return keys < 1 ? 1 : (keys + CHUNK - 1) / CHUNK; }
inline int64_t stride_of(int64_t columns) { return columns + 2; }

// What a row has of some keys: the greatest score, the sum of weights, weighted values.
__device__ __forceinline__ float base_of(float greatest) {
    return greatest - greatest == 0.0f ? greatest : 0.0f;  // where it is infinite, none
}
__device__ __forceinline__ float rescale(float from, float to) { return expf(base_of(from) - base_of(to)); }

// Words of a line in the lanes of a group: lane n has words n, n + GROUP, ...
template <int GROUP, int WORDS, bool ALIGNED, class Element>
__device__ __forceinline__ void fetch_line(
    simt::Wide<Element, WIDTH> (&to)[WORDS], const Element* line, int lane, int64_t count) {
#pragma unroll
    for (int w = 0; w < WORDS; ++w) {
        const int64_t at = (int64_t)(w * GROUP + lane) * WIDTH;
        if constexpr (ALIGNED) {
            if (at < count) simt::fetch<false>(to[w], line + at);
            else to[w] = {};
        } else {
#pragma unroll
            for (int v = 0; v < WIDTH; ++v) to[w].at[v] = at + v < count ? line[at + v] : Element{};
        }
    }
}

template <class P, int MANY, int GROUP, int WORDS, bool ALIGNED>
__global__ void __launch_bounds__(THREADS)
partial(const __grid_constant__ P p, float* __restrict__ found, int64_t splits) {
    constexpr int GROUPS = WARPS * (32 / GROUP);
    using Key = typename P::Key;
    using Item = typename P::Item;
    float* shared = (float*)simt::shared_memory();  // [GROUPS][MANY][columns + 2]
    const int lane = threadIdx.x % GROUP, group = threadIdx.x / GROUP;
    const int64_t batch = blockIdx.y, first_row = (int64_t)blockIdx.z * MANY;
    const int64_t split = blockIdx.x, depth = p.depth_count, columns = p.column_count;
    const int64_t begin = split * CHUNK;

    int64_t rows[MANY], ends[MANY], last = 0;
#pragma unroll
    for (int r = 0; r < MANY; ++r) {
        rows[r] = first_row + r < p.row_count ? first_row + r : p.row_count - 1;
        const int64_t end = p.end(batch, rows[r]);
        ends[r] = end < p.key_count ? end : p.key_count;
        last = ends[r] > last ? ends[r] : last;
    }
    last = last < begin + CHUNK ? last : begin + CHUNK;
    if (begin >= last && split > 0) return;  // nobody asks for it

    float query[MANY][WORDS][WIDTH], mixed[MANY][WORDS][WIDTH] = {};
    float greatest[MANY], weights[MANY];
#pragma unroll
    for (int r = 0; r < MANY; ++r) {
        greatest[r] = -INFINITY, weights[r] = 0.0f;
#pragma unroll
        for (int w = 0; w < WORDS; ++w)
#pragma unroll
            for (int v = 0; v < WIDTH; ++v) {
                const int64_t at = (int64_t)(w * GROUP + lane) * WIDTH + v;
                query[r][w][v] = at < depth ? p.query(batch, rows[r], at) : 0.0f;
            }
    }
    for (int64_t key0 = begin; key0 < last; key0 += UNROLL * GROUPS) {
        simt::Wide<Key, WIDTH> keys[UNROLL][WORDS];
        simt::Wide<Item, WIDTH> values[UNROLL][WORDS];
#pragma unroll
        for (int u = 0; u < UNROLL; ++u) {
            // beyond the last key it is read again and has no weight
            const int64_t own = key0 + u * GROUPS + group, key = own < last ? own : last - 1;
            fetch_line<GROUP, WORDS, ALIGNED>(keys[u], p.keys(batch, key), lane, depth);
            fetch_line<GROUP, WORDS, ALIGNED>(values[u], p.values(batch, key), lane, columns);
        }
        float scores[UNROLL][MANY];
#pragma unroll
        for (int u = 0; u < UNROLL; ++u)
#pragma unroll
            for (int r = 0; r < MANY; ++r) {
                float dot = 0.0f;
#pragma unroll
                for (int w = 0; w < WORDS; ++w)
#pragma unroll
                    for (int v = 0; v < WIDTH; ++v) dot += query[r][w][v] * simt::get(&keys[u][w].at[v]);
                scores[u][r] = dot;
            }
#pragma unroll
        for (int mask = GROUP / 2; mask > 0; mask /= 2)
#pragma unroll
            for (int u = 0; u < UNROLL; ++u)
#pragma unroll
                for (int r = 0; r < MANY; ++r) scores[u][r] += simt::from_lane(scores[u][r], mask);
#pragma unroll
        for (int r = 0; r < MANY; ++r) {
            float most = greatest[r];
#pragma unroll
            for (int u = 0; u < UNROLL; ++u) {
                const int64_t key = key0 + u * GROUPS + group;
                scores[u][r] = p.score(batch, rows[r], key < last ? key : last - 1, scores[u][r]);
                if (key < ends[r] && key < last) most = simt::maximum(scores[u][r], most);
            }
            const float scale = rescale(greatest[r], most), base = base_of(most);
            greatest[r] = most;
            weights[r] *= scale;
#pragma unroll
            for (int u = 0; u < UNROLL; ++u) {
                const int64_t key = key0 + u * GROUPS + group;
                scores[u][r] = key < ends[r] && key < last ? expf(scores[u][r] - base) : 0.0f;
                weights[r] += scores[u][r];
            }
#pragma unroll
            for (int w = 0; w < WORDS; ++w)
#pragma unroll
                for (int v = 0; v < WIDTH; ++v) mixed[r][w][v] *= scale;
        }
#pragma unroll
        for (int u = 0; u < UNROLL; ++u) {
            // what was read twice must not bring its infinities
            const bool there = key0 + u * GROUPS + group < last;
#pragma unroll
            for (int w = 0; w < WORDS; ++w)
#pragma unroll
                for (int v = 0; v < WIDTH; ++v) {
                    const float value = there ? simt::get(&values[u][w].at[v]) : 0.0f;
#pragma unroll
                    for (int r = 0; r < MANY; ++r)
                        mixed[r][w][v] += scores[u][r] * value;
                }
        }
    }
    // [group][row]: greatest, weights, values
    const int64_t stride = columns + 2;
#pragma unroll
    for (int r = 0; r < MANY; ++r) {
        float* own = shared + (group * MANY + r) * stride;
        if (lane == 0) own[0] = greatest[r], own[1] = weights[r];
#pragma unroll
        for (int w = 0; w < WORDS; ++w)
#pragma unroll
            for (int v = 0; v < WIDTH; ++v) {
                const int64_t at = (int64_t)(w * GROUP + lane) * WIDTH + v;
                if (at < columns) own[2 + at] = mixed[r][w][v];
            }
    }
    __syncthreads();
    for (int r = 0; r < MANY && first_row + r < p.row_count; ++r) {
        float most = -INFINITY;
#pragma unroll 4
        for (int g = 0; g < GROUPS; ++g) most = simt::maximum(shared[(g * MANY + r) * stride], most);
        float total = 0.0f;
#pragma unroll 4
        for (int g = 0; g < GROUPS; ++g) {
            const float* other = shared + (g * MANY + r) * stride;
            total += other[1] * rescale(other[0], most);
        }
        float* target = found + ((batch * p.row_count + first_row + r) * splits + split) * stride;
        for (int64_t at = threadIdx.x; at < columns; at += THREADS) {
            float sum = 0.0f;
#pragma unroll 4
            for (int g = 0; g < GROUPS; ++g) {
                const float* other = shared + (g * MANY + r) * stride;
                sum += other[2 + at] * rescale(other[0], most);
            }
            target[2 + at] = sum;
        }
        if (threadIdx.x == 0) target[0] = most, target[1] = total;
    }
}

template <class P>
__global__ void __launch_bounds__(128)
join(const __grid_constant__ P p, const float* __restrict__ found, int64_t splits) {
    const int64_t batch = simt::quotient(blockIdx.x, p.row_count), row = blockIdx.x - batch * p.row_count;
    const int64_t stride = p.column_count + 2;
    const int64_t asked = p.end(batch, row), end = asked < p.key_count ? asked : p.key_count;
    int64_t used = (end + CHUNK - 1) / CHUNK;
    used = used < 1 ? 1 : used < splits ? used : splits;
    const float* own = found + (int64_t)blockIdx.x * splits * stride;
    float most = -INFINITY, total = 0.0f;
    for (int64_t n = 0; n < used; ++n) most = simt::maximum(own[n * stride], most);
    for (int64_t n = 0; n < used; ++n) total += own[n * stride + 1] * rescale(own[n * stride], most);
    for (int64_t at = threadIdx.x; at < p.column_count; at += 128) {
        float sum = 0.0f;
        for (int64_t n = 0; n < used; ++n)
            sum += own[n * stride + 2 + at] * rescale(own[n * stride], most);
        p.store(batch, row, at, sum, most, total);
    }
}

template <class P> int run(const P& p, char* workspace, void* stream) {
    const int64_t batches = p.batch_count, rows = p.row_count, columns = p.column_count;
    if (batches < 1 || rows < 1 || columns < 1) return 0;
    const int64_t splits = splits_of(p.key_count);
    const int64_t longest = p.depth_count > columns ? p.depth_count : columns;
    const bool aligned = p.depth_count % WIDTH == 0 && columns % WIDTH == 0 && p.aligned();
    const bool fits = aligned && longest <= (int64_t)LANES * WIDTH;
    if (longest > 32 * 8 * WIDTH || batches > 65535 || batches * rows > INT32_MAX)
        return (int)cudaErrorInvalidValue;
    const auto launched = [&](auto kernel, int many, int groups) {
        const dim3 grid((unsigned)splits, (unsigned)batches, (unsigned)simt::blocks(rows, many));
        return simt::launch(kernel, grid, THREADS, (int64_t)groups * many * (columns + 2) * 4, stream, p,
                            (float*)workspace, splits);
    };
    const int failed = fits ? launched(partial<P, ROWS, LANES, 1, true>, ROWS, THREADS / LANES)
                            : launched(partial<P, 1, 32, 8, false>, 1, THREADS / 32);
    if (failed) return failed;
    return simt::launch(join<P>, dim3((unsigned)(batches * rows)), 128, 0, stream, p,
                        (const float*)workspace, splits);
}

}  // namespace attention
