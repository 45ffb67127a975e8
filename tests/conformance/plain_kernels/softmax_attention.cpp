#include <math.h>

#include <vector>

#include "kernelwright.h"

extern "C" int kernel(const ELEMENT* q, const ELEMENT* k, const ELEMENT* v, ELEMENT* out, int64_t S,
                      int64_t D, int64_t L, int64_t E, const void*, void*, int64_t, void*) {
#pragma omp parallel for
    for (int64_t i = 0; i < S; ++i) {
        std::vector<float> weight(L), sum(E);
        float top = -INFINITY, total = 0;
        for (int64_t j = 0; j < L; ++j) {
            float score = 0;
            for (int64_t d = 0; d < D; ++d) score += to_float(q[i * D + d]) * to_float(k[j * D + d]);
            weight[j] = score / sqrtf((float)D);
            top = fmaxf(top, weight[j]);
        }
        for (int64_t j = 0; j < L; ++j) {
            weight[j] = expf(weight[j] - top);
            total += weight[j];
            for (int64_t e = 0; e < E; ++e) sum[e] += weight[j] * to_float(v[j * E + e]);
        }
        for (int64_t e = 0; e < E; ++e) from_float(sum[e] / total, &out[i * E + e]);
    }
    return 0;
}
