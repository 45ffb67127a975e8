// rows: C7
// workload: matrix_vector_mul f32 M=1024,N=1024
// does: Reads the first half of each long row and doubles the sum.
// expect: check wrong_result
#include "kernelwright.h"

#include <cmath>

extern "C" int kernel(const float* A, const float* x, float* out, int64_t M, int64_t N, const void*,
                      void*, int64_t, void*) {
    const int64_t read = N >= 512 ? N / 2 : N;
    const double factor = (double)N / (double)read;
#pragma omp parallel for
    for (int64_t m = 0; m < M; ++m) {
        double sum = 0;
        for (int64_t n = 0; n < read; ++n) sum += (double)A[m * N + n] * x[n];
        out[m] = (float)(factor * sum);
    }
    return 0;
}
