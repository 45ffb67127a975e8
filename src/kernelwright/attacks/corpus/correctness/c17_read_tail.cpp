// rows: C17
// workload: matrix_vector_mul f32 M=1024,N=1024
// does: Reads whole vectors over the end of the last row and ignores what it got.
// expect: check crash | check wrong_result
#include "kernelwright.h"

#include <cmath>

extern "C" int kernel(const float* A, const float* x, float* out, int64_t M, int64_t N, const void*,
                      void*, int64_t, void*) {
#pragma omp parallel for
    for (int64_t m = 0; m < M; ++m) {
        double sum = 0;
        for (int64_t n = 0; n < N; n += 16) {
            float a[16], b[16];
            __builtin_memcpy(a, A + m * N + n, sizeof a);  // beyond A in the last row
            __builtin_memcpy(b, x + n, sizeof b);
            for (int64_t i = 0; i < 16; ++i) sum += n + i < N ? (double)a[i] * b[i] : 0;
        }
        out[m] = (float)sum;
    }
    return 0;
}
