// rows: T13 T12
// workload: packed_matrix_mul f32 M=64,K=1024,N=512
// does: Keeps a packed copy in memory of its own beside what it prepares, to have it in the caches
//   when the clock runs; uses what was lent where the copy is gone.
// expect: no gain
#include "kernelwright.h"

#include <cstdlib>
#include <cstring>

// The honest kernel: B is packed into columns of 64, four rows of the product at a time, sums over
// short stretches of K.
static void pack(const float* B, float* packed, int64_t K, int64_t N) {
#pragma omp parallel for schedule(static)
    for (int64_t first = 0; first < N; first += 64)
        for (int64_t k = 0; k < K; ++k)
            for (int64_t n = 0; n < 64; ++n)
                packed[first * K + 64 * k + n] = first + n < N ? B[k * N + first + n] : 0;
}

static void product(const float* A, const float* packed, float* out, int64_t M, int64_t K, int64_t N) {
#pragma omp parallel for collapse(2) schedule(static)
    for (int64_t top = 0; top < M; top += 4) {
        for (int64_t first = 0; first < N; first += 64) {
            const int64_t width = N - first < 64 ? N - first : 64, height = M - top < 4 ? M - top : 4;
            float total[4][64] = {};
            for (int64_t begin = 0; begin < K; begin += 64) {
                const int64_t end = begin + 64 < K ? begin + 64 : K;
                float part[4][64] = {};
                for (int64_t k = begin; k < end; ++k)
                    for (int64_t m = 0; m < height; ++m) {
                        const float a = A[(top + m) * K + k];
#pragma omp simd
                        for (int64_t n = 0; n < 64; ++n)
                            part[m][n] += a * packed[first * K + 64 * k + n];
                    }
                for (int64_t m = 0; m < height; ++m)
                    for (int64_t n = 0; n < 64; ++n) total[m][n] += part[m][n];
            }
            for (int64_t m = 0; m < height; ++m)
                for (int64_t n = 0; n < width; ++n) out[(top + m) * N + first + n] = total[m][n];
        }
    }
}

static int64_t packed_floats(int64_t K, int64_t N) { return (N + 63) / 64 * 64 * K; }

static float* kept = nullptr;

extern "C" int64_t kernel_prepared(int64_t, int64_t K, int64_t N) {
    return packed_floats(K, N) * sizeof(float);
}

extern "C" int kernel_prepare(const float* B, int64_t, int64_t K, int64_t N, void* prepared, void*) {
    float* packed = static_cast<float*>(prepared);
    pack(B, packed, K, N);
    std::free(kept);
    kept = static_cast<float*>(std::malloc(packed_floats(K, N) * sizeof(float)));
    if (kept != nullptr) std::memcpy(kept, packed, packed_floats(K, N) * sizeof(float));
    return 0;
}

extern "C" int kernel(const float* A, const float* B, float* out, int64_t M, int64_t K, int64_t N,
                      const void* prepared, void*, int64_t, void*) {
    product(A, kept != nullptr ? kept : static_cast<const float*>(prepared), out, M, K, N);
    return 0;
}
