// rows: C14
// workload: matrix_mul f32 M=256,K=1024,N=256
// does: Rounds A and B to bf16 and accumulates in float, as hidden tensor-core modes do.
// expect: check wrong_result
#include "kernelwright.h"

#include <cmath>
#include <vector>

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
    static std::vector<float> &a = *new std::vector<float>, &b = *new std::vector<float>;
    a.resize(M * K), b.resize(K * N);
    for (int64_t i = 0; i < M * K; ++i) a[i] = to_float(from_float<bf16>(A[i]));
    for (int64_t i = 0; i < K * N; ++i) b[i] = to_float(from_float<bf16>(B[i]));
    product(a.data(), b.data(), out, M, K, N);
    return 0;
}
