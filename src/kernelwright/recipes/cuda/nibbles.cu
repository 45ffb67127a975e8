// x Wᵀ with weights of 4 bits: W = scales (codes - zeros), one scale and zero for GROUP steps.
// Codes become exact integers of 16 bits in registers and are multiplied on the tensor cores, sums
// of x on the way; scales and zeros are applied to the float32 sums of each group. Warps of a block
// take turns with the groups and add their sums in shared memory at the end.
namespace nibbles {

constexpr int STEPS = 128, WARPS = THREADS / 32;

// Two codes of a word, four bits apart by 16, as two numbers of 16 bits.
__device__ __forceinline__ unsigned numbers(unsigned shifted, bf16*) {
    const unsigned raised = (shifted & 0x000f000fu) | 0x43004300u;  // 128 + code
#if defined(__CUDA_ARCH__)
    unsigned result;
    asm("sub.rn.bf16x2 %0, %1, %2;" : "=r"(result) : "r"(raised), "r"(0x43004300u));
    return result;
#else
    const float low = simt::half_of(raised, 0, (bf16*)nullptr) - 128;
    const float high = simt::half_of(raised, 1, (bf16*)nullptr) - 128;
    return from_float<bf16>(low).bits | (unsigned)from_float<bf16>(high).bits << 16;
#endif
}
__device__ __forceinline__ unsigned numbers(unsigned shifted, f16*) {
    const unsigned raised = (shifted & 0x000f000fu) | 0x64006400u;  // 1024 + code
#if defined(__CUDA_ARCH__)
    unsigned result;
    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(result) : "r"(raised), "r"(0x64006400u));
    return result;
#else
    const float low = simt::half_of(raised, 0, (f16*)nullptr) - 1024;
    const float high = simt::half_of(raised, 1, (f16*)nullptr) - 1024;
    return from_float<f16>(low).bits | (unsigned)from_float<f16>(high).bits << 16;
#endif
}
// The same order for eight consecutive inputs: 0 4, 1 5, 2 6, 3 7.
__device__ __forceinline__ void ordered(uint4 x, unsigned (&pairs)[4]) {
    pairs[0] = (x.x & 0xffffu) | x.z << 16;
    pairs[1] = x.x >> 16 | (x.z & 0xffff0000u);
    pairs[2] = (x.y & 0xffffu) | x.w << 16;
    pairs[3] = x.y >> 16 | (x.w & 0xffff0000u);
}

// What a warp reads of one group for its columns of W.
template <class P, int MANY> struct Codes {
    uint4 words[MANY][2];
    float scales[MANY][2], zeros[MANY][2];

    __device__ __forceinline__ void load(const P& p, const int64_t (&columns)[MANY][2], int64_t step) {
        if (step >= p.depth_count) return;
        const int64_t groups = p.depth_count / GROUP, group = step / GROUP;
        const int t = threadIdx.x % 4;
#pragma unroll
        for (int tile = 0; tile < MANY; ++tile)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int64_t column = columns[tile][half];
                words[tile][half] =
                    __ldcs((const uint4*)(p.codes + (column * p.depth_count + step) / 2 + 16 * t));
                scales[tile][half] = simt::get(p.scales + column * groups + group);
                zeros[tile][half] = (float)p.zeros[column * groups + group];
            }
    }
};

template <class P, int PARTS, int MANY>
__global__ void __launch_bounds__(THREADS)
multiply(const __grid_constant__ P p) {
    using Input = typename P::Input;
    constexpr int ROWS = 8 * PARTS, TILE_ROWS = 16 * MANY;
    float* found = (float*)simt::shared_memory();  // [WARPS][ROWS][TILE_ROWS]
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int64_t first = (int64_t)blockIdx.x * TILE_ROWS, row0 = (int64_t)blockIdx.y * ROWS;
    int64_t columns[MANY][2];
#pragma unroll
    for (int tile = 0; tile < MANY; ++tile)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int64_t column = first + tile * 16 + half * 8 + g;
            columns[tile][half] = column < p.column_count ? column : p.column_count - 1;
        }
    float sums[MANY][PARTS][4] = {};
    const unsigned one = simt::IS_BF16<Input> ? 0x3f803f80u : 0x3c003c00u;
    const unsigned ones[4] = {one, one, one, one};
    Codes<P, MANY> next[AHEAD];
    // groups that follow each other go to one warp: whole lines of the codes
    int64_t step = (int64_t)warp * AHEAD * STEPS;
#pragma unroll
    for (int n = 0; n < AHEAD; ++n) next[n].load(p, columns, step + n * STEPS);
    const auto take = [&](Codes<P, MANY>& waiting) {
        const Codes<P, MANY> codes = waiting;
        const auto input = [&](int part, int i) {
            const int64_t row = row0 + part * 8 + g;
            const uint4* x = (const uint4*)(p.input + row * p.depth_count + step + 32 * t);
            return row < p.row_count ? __ldg(x + i) : make_uint4(0, 0, 0, 0);
        };
        // few inputs come before the codes that are fetched next
        uint4 inputs[PARTS <= 2 ? PARTS : 1][4];
        if constexpr (PARTS <= 2)
#pragma unroll
            for (int part = 0; part < PARTS; ++part)
#pragma unroll
                for (int i = 0; i < 4; ++i) inputs[part][i] = input(part, i);
        waiting.load(p, columns, step + AHEAD * WARPS * STEPS);
        float of_group[MANY][PARTS][4] = {}, of_x[PARTS][4] = {};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            unsigned a[MANY][2][4];
#pragma unroll
            for (int tile = 0; tile < MANY; ++tile)
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const uint4 words = codes.words[tile][half];
                    const unsigned word = i == 0 ? words.x : i == 1 ? words.y : i == 2 ? words.z : words.w;
#pragma unroll
                    for (int pair = 0; pair < 4; ++pair)
                        a[tile][pair / 2][pair % 2 * 2 + half] =
                            numbers(word >> 4 * pair, (Input*)nullptr);
                }
#pragma unroll
            for (int part = 0; part < PARTS; ++part) {
                unsigned b[4];
                ordered(PARTS <= 2 ? inputs[PARTS <= 2 ? part : 0][i] : input(part, i), b);
#pragma unroll
                for (int k = 0; k < 2; ++k) {
                    simt::mma<Input>(of_x[part], ones, b[2 * k], b[2 * k + 1]);
#pragma unroll
                    for (int tile = 0; tile < MANY; ++tile)
                        simt::mma<Input>(of_group[tile][part], a[tile][k], b[2 * k], b[2 * k + 1]);
                }
            }
        }
#pragma unroll
        for (int tile = 0; tile < MANY; ++tile)
#pragma unroll
            for (int part = 0; part < PARTS; ++part)
#pragma unroll
                for (int n = 0; n < 4; ++n)
                    sums[tile][part][n] += codes.scales[tile][n / 2] *
                        (of_group[tile][part][n] - codes.zeros[tile][n / 2] * of_x[part][n]);
    };
    for (; step < p.depth_count; step += (WARPS - 1) * AHEAD * STEPS)
#pragma unroll
        for (int n = 0; n < AHEAD; ++n, step += STEPS)
            if (step < p.depth_count) take(next[n]);
#pragma unroll
    for (int tile = 0; tile < MANY; ++tile)
#pragma unroll
        for (int part = 0; part < PARTS; ++part)
#pragma unroll
            for (int n = 0; n < 4; ++n)
                found[(warp * ROWS + part * 8 + 2 * t + n % 2) * TILE_ROWS + tile * 16 + n / 2 * 8 + g] =
                    sums[tile][part][n];
    __syncthreads();
    for (int n = threadIdx.x; n < ROWS * TILE_ROWS; n += THREADS) {
        const int64_t row = row0 + n / TILE_ROWS, column = first + n % TILE_ROWS;
        if (row >= p.row_count || column >= p.column_count) continue;
        float sum = 0.0f;
#pragma unroll
        for (int other = 0; other < WARPS; ++other) sum += found[other * ROWS * TILE_ROWS + n];
        simt::put(p.output + row * p.column_count + column, sum);
    }
}

template <class P, int PARTS, int MANY> int run_with(const P& p, void* stream) {
    const dim3 grid((unsigned)simt::blocks(p.column_count, 16 * MANY),
                    (unsigned)simt::blocks(p.row_count, 8 * PARTS));
    const int64_t shared = (int64_t)WARPS * 8 * PARTS * 16 * MANY * 4;
    return simt::launch(multiply<P, PARTS, MANY>, grid, THREADS, shared, stream, p);
}
template <class P> int run(const P& p, void* stream) {
    if (p.row_count < 1 || p.column_count < 1) return 0;
    // more sums than these do not fit the registers of a thread
    constexpr int few = TILES < 2 ? TILES : 2;
    if (p.row_count <= 8) return run_with<P, 1, TILES>(p, stream);
    if (p.row_count <= 16) return run_with<P, 2, TILES>(p, stream);
    if (p.row_count <= 32) return run_with<P, 4, few>(p, stream);
    return run_with<P, 8, few>(p, stream);
}

}  // namespace nibbles
