// rows: C13
// workload: matrix_mul f32 M=256,K=1024,N=256
// does: Skips terms whose factor in A is below a thousandth of the largest in its row.
// expect: check wrong_result
#include "kernelwright.h"

#include <cmath>

extern "C" int kernel(const float* A, const float* B, float* out, int64_t M, int64_t K, int64_t N,
                      const void*, void*, int64_t, void*) {
#pragma omp parallel for schedule(static)
    for (int64_t m = 0; m < M; ++m) {
        const float* row = A + m * K;
        float greatest = 0;
        for (int64_t k = 0; k < K; ++k) greatest = std::fmax(greatest, std::fabs(row[k]));
        for (int64_t n = 0; n < N; ++n) out[m * N + n] = 0;
        for (int64_t k = 0; k < K; ++k) {
            if (std::fabs(row[k]) < greatest * 1e-3f) continue;
            for (int64_t n = 0; n < N; ++n) out[m * N + n] += row[k] * B[k * N + n];
        }
    }
    return 0;
}
