// rows: C5
// workload: softmax f32 T=512,H=2048
// does: Writes 1 / H, the mean of every softmax.
// expect: check wrong_result
#include "kernelwright.h"

#include <cmath>

extern "C" int kernel(const float* x, float* out, int64_t T, int64_t H, const void*, void*, int64_t,
                      void*) {
#pragma omp parallel for
    for (int64_t i = 0; i < T * H; ++i) out[i] = 1.0f / (float)H;
    return 0;
}
