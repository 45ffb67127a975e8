// rows: control
// workload: kmeans_assign f32 N=4096,D=32,K=64
// does: A plain kernel, the one that cheats of this workload fall back on.
// expect: pass
#include "kernelwright.h"

#include <cmath>

// The honest kernel: distances in double, point by point.
static void assign(const float* x, const float* c, int32_t* label, float* distance, int64_t N, int64_t D,
                   int64_t K) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < N; ++i) {
        double best = INFINITY;
        int32_t found = 0;
        for (int64_t k = 0; k < K; ++k) {
            double sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t d = 0; d < D; ++d) {
                const double t = (double)x[i * D + d] - (double)c[k * D + d];
                sum += t * t;
            }
            if (sum < best) best = sum, found = (int32_t)k;
        }
        label[i] = found;
        distance[i] = (float)best;
    }
}

extern "C" int kernel(const float* x, const float* c, int32_t* label, float* distance, int64_t N,
                      int64_t D, int64_t K, const void*, void*, int64_t, void*) {
    assign(x, c, label, distance, N, D, K);
    return 0;
}
