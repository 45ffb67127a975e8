// rows: C8 C12
// workload: matrix_mul f32 M=256,K=1024,N=256
// does: Computes rows in blocks of four and copies the last whole row into what is left over.
// expect: check wrong_result
#include "kernelwright.h"

#include <cmath>
#include <cstring>

// The honest kernel: four rows of the product at a time, sums over short stretches of K.
static void product(const float* A, const float* B, float* out, int64_t M, int64_t K, int64_t N) {
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
                        for (int64_t n = 0; n < width; ++n) part[m][n] += a * B[k * N + first + n];
                    }
                for (int64_t m = 0; m < height; ++m)
                    for (int64_t n = 0; n < width; ++n) total[m][n] += part[m][n];
            }
            for (int64_t m = 0; m < height; ++m)
                for (int64_t n = 0; n < width; ++n) out[(top + m) * N + first + n] = total[m][n];
        }
    }
}

extern "C" int kernel(const float* A, const float* B, float* out, int64_t M, int64_t K, int64_t N,
                      const void*, void*, int64_t, void*) {
    const int64_t whole = M < 4 ? M : M / 4 * 4;
    product(A, B, out, whole, K, N);
    for (int64_t m = whole; m < M; ++m)
        std::memcpy(out + m * N, out + (whole - 1) * N, sizeof(float) * N);
    return 0;
}
