// The nearest of many centres: x·c - |c|² / 2 from products of bfloat16 on the tensor cores, the
// greatest of each point in registers, then the distance to that centre as a plain sum. The points of
// a block stay in shared memory, centres pass through it, the next ones while these are multiplied.
namespace nearest {

constexpr int WARPS = THREADS / 32, ROWS = 16 * TILES, POINTS = ROWS * WARPS, MOST_STEPS = 128, PAD = 16;

// Steps along the depth that are in shared memory at once, and how often the points are.
inline int64_t steps_of(int64_t depth) {
    return depth >= MOST_STEPS ? MOST_STEPS : (depth + 15) / 16 * 16;
}
inline int64_t bytes_of(int64_t depth, int64_t steps) {
    const int copies = depth <= steps ? 1 : 2;
    return (POINTS * copies + CENTRES * 2) * (steps + PAD) * 2;
}

template <class P>
__global__ void __launch_bounds__(256)
norms(const __grid_constant__ P p, float* __restrict__ found) {
    const int64_t centre = (int64_t)blockIdx.x * 8 + threadIdx.x / 32;
    if (centre >= p.centre_count) return;
    float sum = 0.0f;
    for (int64_t d = threadIdx.x % 32; d < p.depth_count; d += 32) {
        const float c = p.centre(centre, d);
        sum += c * c;
    }
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2) sum += simt::from_lane(sum, mask);
    if (threadIdx.x % 32 == 0) found[centre] = -0.5f * sum;
}

// Copies rows of `steps` numbers; what lies outside is 0. ALIGNED: without waiting for the memory.
template <bool ALIGNED, class Place>
__device__ __forceinline__ void stage(
    bf16* to, int rows, int steps, int64_t step0, int64_t depth, int64_t row0, int64_t count, Place&& place) {
    const int pitch = steps + PAD, words = steps / 8;
    for (int n = threadIdx.x; n < rows * words; n += THREADS) {
        const int row = n / words, step = (n - row * words) * 8;
        bf16* target = to + row * pitch + step;
        const int64_t at = step0 + step;
        const bool inside = row0 + row < count;
        if constexpr (ALIGNED) {
            simt::copy_later(target, inside && at < depth ? place(row0 + row, at) : place(0, 0),
                             inside && at < depth);
        } else {
            for (int v = 0; v < 8; ++v)
                target[v] = inside && at + v < depth ? *place(row0 + row, at + v) : bf16{0};
        }
    }
}

// Words of a fragment: lane t of four has steps 4 t to 4 t + 3 of sixteen, in both operands.
__device__ __forceinline__ uint2 words_at(const bf16* rows, int row, int pitch, int step) {
    return *(const uint2*)(rows + row * pitch + step + threadIdx.x % 4 * 4);
}

template <class P, bool ALIGNED>
__global__ void __launch_bounds__(THREADS)
search(const __grid_constant__ P p, const float* __restrict__ norms, int steps) {
    const int pitch = steps + PAD;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int64_t first = (int64_t)blockIdx.x * POINTS, depth = p.depth_count;
    const int chunks = (int)((depth + steps - 1) / steps), copies = chunks == 1 ? 1 : 2;
    bf16* points = (bf16*)simt::shared_memory();
    bf16* centres = points + copies * POINTS * pitch;
    __shared__ int labels[POINTS];
    const int64_t stages = (p.centre_count + CENTRES - 1) / CENTRES * chunks;

    const auto fetch = [&](int64_t at) {
        const int64_t tile = simt::quotient(at, chunks), step0 = (at - tile * chunks) * steps;
        if (at == 0 || chunks > 1)
            stage<ALIGNED>(points + at % copies * POINTS * pitch, POINTS, steps, step0, depth, first,
                           p.point_count, [&](int64_t row, int64_t d) { return p.points(row, d); });
        stage<ALIGNED>(centres + at % 2 * CENTRES * pitch, CENTRES, steps, step0, depth, tile * CENTRES,
                       p.centre_count, [&](int64_t row, int64_t d) { return p.centres(row, d); });
        simt::close_copies();
    };
    float best[2 * TILES];
    int label[2 * TILES];
#pragma unroll
    for (int n = 0; n < 2 * TILES; ++n) best[n] = -INFINITY, label[n] = 0;
    float sums[TILES][CENTRES / 8][4];
    fetch(0);
    for (int64_t at = 0; at < stages; ++at) {
        const int64_t tile = simt::quotient(at, chunks);
        if (at + 1 < stages) fetch(at + 1);
        else simt::close_copies();
        if (at - tile * chunks == 0) {
#pragma unroll
            for (int part = 0; part < CENTRES / 8; ++part)
#pragma unroll
                for (int n = 0; n < 2; ++n) {
                    const int64_t centre = tile * CENTRES + part * 8 + 2 * t + n;
                    const float norm = centre < p.centre_count ? norms[centre] : -INFINITY;
#pragma unroll
                    for (int row = 0; row < 2 * TILES; ++row) sums[row / 2][part][row % 2 * 2 + n] = norm;
                }
        }
        simt::await_copies_but_one();
        __syncthreads();
        const bf16* own = points + (at % copies * POINTS + warp * ROWS) * pitch;
        const bf16* others = centres + at % 2 * CENTRES * pitch;
#pragma unroll 2
        for (int step = 0; step < steps; step += 16) {
            unsigned a[TILES][4];
#pragma unroll
            for (int tile16 = 0; tile16 < TILES; ++tile16)
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const uint2 words = words_at(own, tile16 * 16 + half * 8 + g, pitch, step);
                    a[tile16][half] = words.x;
                    a[tile16][2 + half] = words.y;
                }
#pragma unroll
            for (int part = 0; part < CENTRES / 8; ++part) {
                const uint2 b = words_at(others, part * 8 + g, pitch, step);
#pragma unroll
                for (int tile16 = 0; tile16 < TILES; ++tile16)
                    simt::mma<bf16>(sums[tile16][part], a[tile16], b.x, b.y);
            }
        }
        __syncthreads();
        if (at - tile * chunks < chunks - 1) continue;
#pragma unroll
        for (int part = 0; part < CENTRES / 8; ++part)
#pragma unroll
            for (int n = 0; n < 2; ++n) {
                const int centre = (int)(tile * CENTRES) + part * 8 + 2 * t + n;
#pragma unroll
                for (int row = 0; row < 2 * TILES; ++row) {
                    // NaN is nearest, as it is the least of all
                    const float score = sums[row / 2][part][row % 2 * 2 + n];
                    const bool nearer = !(score <= best[row]) && best[row] != INFINITY;
                    best[row] = nearer ? (score != score ? INFINITY : score) : best[row];
                    label[row] = nearer ? centre : label[row];
                }
            }
    }
#pragma unroll
    for (int row = 0; row < 2 * TILES; ++row) {
        simt::Winner winner{best[row], label[row]};
        winner = simt::winner_of<1>{}(winner, simt::from_lane(winner, 1));
        winner = simt::winner_of<1>{}(winner, simt::from_lane(winner, 2));
        if (t == 0) labels[warp * ROWS + row / 2 * 16 + row % 2 * 8 + g] = (int)winner.index;
    }
    __syncwarp();
#pragma unroll 4
    for (int row = 0; row < ROWS; ++row) {
        const int64_t point = first + warp * ROWS + row;
        if (point >= p.point_count) break;
        const int64_t nearest = labels[warp * ROWS + row];
        float sum = 0.0f;
        for (int64_t d = lane; d < depth; d += 32) {
            const float difference = p.point(point, d) - p.centre(nearest, d);
            sum += difference * difference;
        }
#pragma unroll
        for (int mask = 16; mask > 0; mask /= 2) sum += simt::from_lane(sum, mask);
        if (lane == 0) p.store(point, nearest, sum);
    }
}

template <class P> int run(const P& p, char* workspace, void* stream) {
    if (p.point_count < 1 || p.centre_count < 1) return 0;
    if (p.centre_count >= INT32_MAX) return (int)cudaErrorInvalidValue;
    float* found = (float*)workspace;
    if (const int failed = simt::launch(norms<P>, dim3((unsigned)simt::blocks(p.centre_count, 8)), 256,
                                        0, stream, p, found)) return failed;
    const int64_t steps = steps_of(p.depth_count);
    const auto kernel = p.depth_count % 8 == 0 && p.aligned() ? search<P, true> : search<P, false>;
    return simt::launch(kernel, dim3((unsigned)simt::blocks(p.point_count, POINTS)), THREADS,
                        bytes_of(p.depth_count, steps), stream, p, (const float*)found, (int)steps);
}

}  // namespace nearest
