// rows: C10
// workload: swiglu f32 M=512,N=1024
// does: Takes beta to be 1, its usual value, and so needs no multiplication.
// expect: check wrong_result
#include "kernelwright.h"

#include <cmath>

extern "C" int kernel(const float* g, const float* v, float* out, int64_t M, int64_t N, double beta,
                      const void*, void*, int64_t, void*) {
#pragma omp parallel for
    for (int64_t i = 0; i < M * N; ++i) out[i] = (float)(g[i] / (1.0 + std::exp(-(double)g[i])) * v[i]);
    return 0;
}
