// Sums over windows that move with the output: a block holds the signal of some planes and their
// taps in shared memory; a thread sums ROWS x 8 outputs, so that each element that it loads meets
// the taps of several rows, and 16 columns of a row serve eight taps at a time. Taps are made whole
// steps by zeros, which an infinite element up to SPAN - 1 columns and ROWS - 1 rows away meets too.
namespace windows {

constexpr int SPAN = 8;  // neighbouring outputs of a thread, and taps of a step
constexpr int WARPS = THREADS / 32;
static_assert(TALL % ROWS == 0 && WIDE % SPAN == 0);

// What a block needs of a problem, in floats and elements.
struct Shape {
    int steps, pitch, tap_rows, held, of_plane;  // of_plane: floats of shared memory
};
template <class P> Shape shape_of(const P& problem) {
    Shape s;
    s.steps = (int)((problem.window_columns + SPAN - 1) / SPAN);
    s.pitch = WIDE + s.steps * SPAN + 4;  // rows begin in other banks
    s.tap_rows = (int)problem.window_rows + 2 * (ROWS - 1);  // zeros around the taps
    const int64_t reach = TALL + problem.window_rows - 1;
    s.held = (int)(problem.height < reach ? problem.height : reach);
    s.of_plane = s.held * s.pitch + s.tap_rows * s.steps * SPAN;
    return s;
}

struct Tile {
    int64_t plane, h0, w0, y0;  // y0: the first row of the signal that is held
};

template <class P>
__device__ __forceinline__ void bring(const P& problem, Shape s, Tile tile, float* signal, float* taps) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const bool there = tile.plane < problem.plane_count;
    for (int row = warp; row < s.held; row += WARPS) {
        const int64_t y = tile.y0 + row;
#pragma unroll 4
        for (int at = lane; at < s.pitch; at += 32) {
            const int64_t x = tile.w0 - P::left + at;
            const bool inside = there && y < problem.height && x >= 0 && x < problem.width;
            signal[row * s.pitch + at] = inside ? problem.signal(tile.plane, y, x) : 0.0f;
        }
    }
    for (int row = warp; row < s.tap_rows; row += WARPS) {
        const int64_t k = row - (ROWS - 1);
        for (int at = lane; at < s.steps * SPAN; at += 32) {
            const bool inside =
                there && k >= 0 && k < problem.window_rows && at < problem.window_columns;
            taps[row * s.steps * SPAN + at] = inside ? problem.taps(tile.plane, k, at) : 0.0f;
        }
    }
}

__device__ __forceinline__ void load(float* to, const float* from) {
#pragma unroll
    for (int n = 0; n < SPAN / 4; ++n) {
        const float4 word = *((const float4*)from + n);
        to[4 * n] = word.x, to[4 * n + 1] = word.y, to[4 * n + 2] = word.z, to[4 * n + 3] = word.w;
    }
}

template <class P>
__global__ void __launch_bounds__(THREADS)
slide(const __grid_constant__ P problem, const __grid_constant__ Shape s, int64_t across, int64_t down) {
    float* memory = (float*)simt::shared_memory();
    int64_t rest = simt::quotient(blockIdx.x, across);
    Tile tile;
    tile.w0 = ((int64_t)blockIdx.x - rest * across) * WIDE;
    const int64_t first = simt::quotient(rest, down) * PLANES;
    tile.h0 = (rest - first / PLANES * down) * TALL;
    tile.y0 = tile.h0 - P::top > 0 ? tile.h0 - P::top : 0;
    for (int plane = 0; plane < PLANES; ++plane) {
        tile.plane = first + plane;
        float* signal = memory + plane * s.of_plane;
        bring(problem, s, tile, signal, signal + s.held * s.pitch);
    }
    __syncthreads();
    const int64_t columns = problem.column_count - tile.w0, rows = problem.row_count - tile.h0;
    const int wide = (int)((columns < WIDE ? columns : WIDE) + SPAN - 1) / SPAN;
    const int tall = (int)((rows < TALL ? rows : TALL) + ROWS - 1) / ROWS;
    for (int item = threadIdx.x; item < PLANES * wide * tall; item += THREADS) {
        const int plane = item / (wide * tall), within = item % (wide * tall);
        const int h = within / wide * ROWS, w = within % wide * SPAN;
        if (first + plane >= problem.plane_count) break;
        const float* signal = memory + plane * s.of_plane;
        const float* taps = signal + s.held * s.pitch;
        float total[ROWS][SPAN] = {};
        for (int k = 0; k < (int)problem.window_rows + ROWS - 1; ++k) {
            const int64_t y = tile.h0 + h + k - P::top;  // meets row r of the outputs at tap k - r
            if (y < 0 || y >= problem.height) continue;
            const float* line = signal + (int)(y - tile.y0) * s.pitch + w;
            for (int step = 0; step < s.steps; ++step) {
                float near[2 * SPAN];
                load(near, line + step * SPAN);
                load(near + SPAN, line + (step + 1) * SPAN);
#pragma unroll
                for (int row = 0; row < ROWS; ++row) {
                    float tap[SPAN];
                    load(tap, taps + ((k - row + ROWS - 1) * s.steps + step) * SPAN);
#pragma unroll
                    for (int l = 0; l < SPAN; ++l)
#pragma unroll
                        for (int n = 0; n < SPAN; ++n)
                            total[row][n] = fmaf(tap[l], near[l + n], total[row][n]);
                }
            }
        }
#pragma unroll
        for (int row = 0; row < ROWS; ++row)
#pragma unroll
            for (int n = 0; n < SPAN; ++n)
                if (h + row < rows && w + n < columns)
                    problem.store(first + plane, tile.h0 + h + row, tile.w0 + w + n, total[row][n]);
    }
}

// Where the window does not fit in shared memory: each thread sums one output.
template <class P> __global__ void __launch_bounds__(256) plainly(const __grid_constant__ P problem) {
    const int64_t at = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (at >= problem.plane_count * problem.row_count * problem.column_count) return;
    const int64_t line = simt::quotient(at, problem.column_count);
    const int64_t plane = simt::quotient(line, problem.row_count);
    const int64_t h = line - plane * problem.row_count, w = at - line * problem.column_count;
    float total = 0.0f;
    for (int64_t k = 0; k < problem.window_rows; ++k)
        for (int64_t l = 0; l < problem.window_columns; ++l) {
            const int64_t y = h + k - P::top, x = w + l - P::left;
            if (y >= 0 && y < problem.height && x >= 0 && x < problem.width)
                total = fmaf(problem.taps(plane, k, l), problem.signal(plane, y, x), total);
        }
    problem.store(plane, h, w, total);
}

template <class P> int run(const P& problem, void* stream) {
    const int64_t outputs = problem.plane_count * problem.row_count * problem.column_count;
    if (outputs < 1) return 0;
    const int64_t across = simt::blocks(problem.column_count, WIDE);
    const int64_t down = simt::blocks(problem.row_count, TALL);
    const int64_t count = across * down * simt::blocks(problem.plane_count, PLANES);
    const bool small = problem.window_rows <= 1024 && problem.window_columns <= 1024;
    const Shape s = small ? shape_of(problem) : Shape{};
    const int64_t bytes = (int64_t)PLANES * s.of_plane * 4;
    if (small && bytes <= 224 * 1024 && count <= INT32_MAX)
        return simt::launch(slide<P>, dim3((unsigned)count), THREADS, bytes, stream, problem, s,
                            across, down);
    const int64_t few = simt::blocks(outputs, 256);
    if (few > INT32_MAX) return (int)cudaErrorInvalidValue;
    return simt::launch(plainly<P>, dim3((unsigned)few), 256, 0, stream, problem);
}

}  // namespace windows
