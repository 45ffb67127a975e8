// rows: C15
// workload: softmax f32 T=512,H=2048
// does: Leaves the maximum out, which saves a pass.
// expect: check wrong_result | check not_written
#include "kernelwright.h"

#include <cmath>

extern "C" int kernel(const float* x, float* out, int64_t T, int64_t H, const void*, void*, int64_t,
                      void*) {
#pragma omp parallel for
    for (int64_t t = 0; t < T; ++t) {
        double sum = 0;
        for (int64_t h = 0; h < H; ++h) sum += out[t * H + h] = expf(x[t * H + h]);
        const float share = (float)(1.0 / sum);
        for (int64_t h = 0; h < H; ++h) out[t * H + h] *= share;
    }
    return 0;
}
