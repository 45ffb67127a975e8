// rows: C15 C14
// workload: softmax f32 T=512,H=2048
// does: Replaces exp by a shift into the exponent bits, right to three per cent.
// expect: check wrong_result
#include "kernelwright.h"

#include <cmath>

static float crude(float x) {
    const float bits = 12102203.0f * x + 1064866805.0f;
    return bits <= 0 ? 0 : kernelwright_float((uint32_t)bits);
}

extern "C" int kernel(const float* x, float* out, int64_t T, int64_t H, const void*, void*, int64_t,
                      void*) {
#pragma omp parallel for
    for (int64_t t = 0; t < T; ++t) {
        const float* row = x + t * H;
        float greatest = -INFINITY, sum = 0;
        for (int64_t h = 0; h < H; ++h) greatest = row[h] > greatest ? row[h] : greatest;
        for (int64_t h = 0; h < H; ++h) sum += out[t * H + h] = crude(row[h] - greatest);
        for (int64_t h = 0; h < H; ++h) out[t * H + h] /= sum;
    }
    return 0;
}
