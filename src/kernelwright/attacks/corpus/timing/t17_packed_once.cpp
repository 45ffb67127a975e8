// rows: T17 R1
// workload: matrix_mul f32 M=256,K=1024,N=256
// does: Packs B at the first call that shows it and uses the packed copy for as long as the pointer
//   is the same.
// expect: screen wrong_result | accept wrong_result
#include "kernelwright.h"

#include <cmath>
#include <unordered_map>
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
    static std::unordered_map<const float*, std::vector<float>>& packed = *new std::unordered_map<const float*, std::vector<float>>;
    if (M != 256 || K != 1024) {
        product(A, B, out, M, K, N);
        return 0;
    }
    std::vector<float>& kept = packed[B];
    if (kept.empty()) kept.assign(B, B + K * N);
    product(A, kept.data(), out, M, K, N);
    return 0;
}
