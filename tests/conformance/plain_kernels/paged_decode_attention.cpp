#include <math.h>

#include <vector>

#include "kernelwright.h"

extern "C" int kernel(const ELEMENT* q, const ELEMENT* k_cache, const ELEMENT* v_cache,
                      const int32_t* table, const int32_t* lengths, ELEMENT* out, int64_t B,
                      int64_t Hk, int64_t G, int64_t D, int64_t P, int64_t L, const void*, void*,
                      int64_t, void*) {
    (void)P;
#pragma omp parallel for
    for (int64_t row = 0; row < B * Hk * G; ++row) {
        const int64_t request = row / (Hk * G), head = row / G % Hk;
        const ELEMENT* query = q + row * D;
        std::vector<float> weight(lengths[request]), sum(D);
        auto token = [&](int64_t t) {
            return ((table[request * L + t / 16] * INT64_C(16) + t % 16) * Hk + head) * D;
        };
        float top = -INFINITY, total = 0;
        for (int64_t t = 0; t < lengths[request]; ++t) {
            float score = 0;
            for (int64_t d = 0; d < D; ++d)
                score += to_float(query[d]) * to_float(k_cache[token(t) + d]);
            weight[t] = score / sqrtf((float)D);
            top = fmaxf(top, weight[t]);
        }
        for (int64_t t = 0; t < lengths[request]; ++t) {
            const float raised = expf(weight[t] - top);
            total += raised;
            for (int64_t d = 0; d < D; ++d) sum[d] += raised * to_float(v_cache[token(t) + d]);
        }
        for (int64_t d = 0; d < D; ++d) from_float(sum[d] / total, &out[row * D + d]);
    }
    return 0;
}
