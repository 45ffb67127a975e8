#include <math.h>

#include <vector>

#include "kernelwright.h"

static float sigmoid(float x) { return 1 / (1 + expf(-x)); }

extern "C" int kernel(const ELEMENT* a, const ELEMENT* r, const ELEMENT* bias, ELEMENT* hidden,
                      ELEMENT* cell, int64_t T, int64_t B, int64_t H, int64_t D, const void*, void*,
                      int64_t, void*) {
#pragma omp parallel for
    for (int64_t row = 0; row < B * H; ++row) {
        const int64_t b = row / H, h = row % H;
        std::vector<float> state(D), next(D), kept(D), gates(4 * D);
        for (int64_t t = 0; t < T; ++t) {
            for (int64_t g = 0; g < 4; ++g)
                for (int64_t e = 0; e < D; ++e) {
                    float sum = to_float(a[(((t * B + b) * 4 + g) * H + h) * D + e]) +
                                to_float(bias[(g * H + h) * D + e]);
                    for (int64_t d = 0; d < D; ++d)
                        sum += state[d] * to_float(r[(h * D + d) * 4 * D + g * D + e]);
                    gates[g * D + e] = sum;
                }
            for (int64_t e = 0; e < D; ++e) {
                kept[e] = sigmoid(gates[D + e]) * kept[e] +
                          sigmoid(gates[e]) * tanhf(gates[2 * D + e]);
                state[e] = sigmoid(gates[3 * D + e]) * tanhf(kept[e]);
                from_float(state[e], &hidden[((t * B + b) * H + h) * D + e]);
            }
        }
        for (int64_t e = 0; e < D; ++e) from_float(kept[e], &cell[row * D + e]);
    }
    return 0;
}
