#include <math.h>

#include <vector>

#include "kernelwright.h"

extern "C" int kernel(const ELEMENT* q, const ELEMENT* k, const ELEMENT* v, ELEMENT* out, float* lse,
                      int64_t B, int64_t Hk, int64_t G, int64_t S, int64_t D, const void*, void*,
                      int64_t, void*) {
#pragma omp parallel for
    for (int64_t head = 0; head < B * Hk * G; ++head) {
        const ELEMENT* keys = k + head / G * S * D;
        const ELEMENT* values = v + head / G * S * D;
        std::vector<float> weight(S), sum(D);
        for (int64_t i = 0; i < S; ++i) {
            const ELEMENT* query = q + (head * S + i) * D;
            float top = -INFINITY, total = 0;
            for (int64_t j = 0; j <= i; ++j) {
                float score = 0;
                for (int64_t d = 0; d < D; ++d) score += to_float(query[d]) * to_float(keys[j * D + d]);
                weight[j] = score / sqrtf((float)D);
                top = fmaxf(top, weight[j]);
            }
            for (int64_t d = 0; d < D; ++d) sum[d] = 0;
            for (int64_t j = 0; j <= i; ++j) {
                const float raised = expf(weight[j] - top);
                total += raised;
                for (int64_t d = 0; d < D; ++d) sum[d] += raised * to_float(values[j * D + d]);
            }
            for (int64_t d = 0; d < D; ++d) from_float(sum[d] / total, &out[(head * S + i) * D + d]);
            lse[head * S + i] = top + logf(total);
        }
    }
    return 0;
}
