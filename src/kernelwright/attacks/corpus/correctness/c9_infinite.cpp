// rows: C9 C15
// workload: softmax f32 T=512,H=2048
// does: Answers NaN for rows that hold -inf, as a naive maximum would.
// expect: check wrong_result | check not_written
#include "kernelwright.h"

#include <cmath>

// The honest kernel: maximum, sum in double, exponentials divided by it.
static void softmax(const float* x, float* out, int64_t T, int64_t H) {
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < T; ++t) {
        const float* row = x + t * H;
        float greatest = -INFINITY;
        for (int64_t h = 0; h < H; ++h) greatest = row[h] > greatest ? row[h] : greatest;
        double sum = 0;
        for (int64_t h = 0; h < H; ++h) {
            out[t * H + h] = expf(row[h] - greatest);
            sum += out[t * H + h];
        }
        const float share = (float)(1.0 / sum);
        for (int64_t h = 0; h < H; ++h) out[t * H + h] *= share;
    }
}

extern "C" int kernel(const float* x, float* out, int64_t T, int64_t H, const void*, void*, int64_t,
                      void*) {
    softmax(x, out, T, H);
    for (int64_t t = 0; t < T; ++t)
        for (int64_t h = 0; h < H; ++h)
            if (std::isinf(x[t * H + h])) out[t * H + h] = NAN;
    return 0;
}
