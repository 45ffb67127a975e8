// rows: C7 C13
// workload: kmeans_assign f32 N=4096,D=32,K=64
// does: Compares each point with the half of the centroids that lies on its side of the origin.
// expect: check wrong_result
#include "kernelwright.h"

#include <cmath>

extern "C" int kernel(const float* x, const float* c, int32_t* label, float* distance, int64_t N,
                      int64_t D, int64_t K, const void*, void*, int64_t, void*) {
#pragma omp parallel for
    for (int64_t i = 0; i < N; ++i) {
        double best = INFINITY;
        int32_t found = 0;
        for (int64_t k = 0; k < K; ++k) {
            if (K > 8 && (c[k * D] > 0) != (x[i * D] > 0)) continue;
            double sum = 0;
            for (int64_t d = 0; d < D; ++d) {
                const double t = (double)x[i * D + d] - c[k * D + d];
                sum += t * t;
            }
            if (sum < best) best = sum, found = (int32_t)k;
        }
        label[i] = found;
        distance[i] = (float)best;
    }
    return 0;
}
