#include <math.h>

#include <vector>

#include "kernelwright.h"

static float code(int32_t word, int64_t place) { return (float)(((uint32_t)word >> 2 * place) & 3); }

extern "C" int kernel(const ELEMENT* q, const int32_t* k_codes, const ELEMENT* k_scale,
                      const ELEMENT* k_least, const ELEMENT* k_recent, const int32_t* v_codes,
                      const ELEMENT* v_scale, const ELEMENT* v_least, const ELEMENT* v_recent,
                      ELEMENT* out, int64_t B, int64_t Hk, int64_t G, int64_t E, int64_t N,
                      int64_t R, const void*, void*, int64_t, void*) {
    const int64_t D = 32 * E, coded = 32 * N;
#pragma omp parallel for
    for (int64_t row = 0; row < B * Hk * G; ++row) {
        const int64_t head = row / G;
        const ELEMENT* query = q + row * D;
        std::vector<float> weight(coded + R), sum(D);
        auto key = [&](int64_t t, int64_t d) {
            if (t >= coded) return to_float(k_recent[(head * R + t - coded) * D + d]);
            const int64_t group = (head * N + t / 32) * D + d;
            const int32_t word = k_codes[(head * 2 * N + t / 16) * D + d];
            return to_float(k_scale[group]) * code(word, t % 16) + to_float(k_least[group]);
        };
        auto value = [&](int64_t t, int64_t d) {
            if (t >= coded) return to_float(v_recent[(head * R + t - coded) * D + d]);
            const int64_t group = (head * coded + t) * E + d / 32;
            const int32_t word = v_codes[(head * coded + t) * 2 * E + d / 16];
            return to_float(v_scale[group]) * code(word, d % 16) + to_float(v_least[group]);
        };
        float top = -INFINITY, total = 0;
        for (int64_t t = 0; t < coded + R; ++t) {
            float score = 0;
            for (int64_t d = 0; d < D; ++d) score += to_float(query[d]) * key(t, d);
            weight[t] = score / sqrtf((float)D);
            top = fmaxf(top, weight[t]);
        }
        for (int64_t t = 0; t < coded + R; ++t) {
            const float raised = expf(weight[t] - top);
            total += raised;
            for (int64_t d = 0; d < D; ++d) sum[d] += raised * value(t, d);
        }
        for (int64_t d = 0; d < D; ++d) from_float(sum[d] / total, &out[row * D + d]);
    }
    return 0;
}
