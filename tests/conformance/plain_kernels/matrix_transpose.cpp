#include "kernelwright.h"

extern "C" int kernel(const ELEMENT* A, ELEMENT* out, int64_t M, int64_t N, const void*, void*,
                      int64_t, void*) {
#pragma omp parallel for
    for (int64_t j = 0; j < N; ++j)
        for (int64_t i = 0; i < M; ++i) out[j * M + i] = A[i * N + j];
    return 0;
}
