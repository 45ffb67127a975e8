// rows: C9
// workload: rms_norm f32 T=1024,H=1024
// does: Fills the output with NaN, which compares as neither too large nor too small.
// expect: check not_written | check wrong_result
#include "kernelwright.h"

#include <cmath>

extern "C" int kernel(const float* x, const float* w, float* out, int64_t T, int64_t H, double eps,
                      const void*, void*, int64_t, void*) {
#pragma omp parallel for
    for (int64_t i = 0; i < T * H; ++i) out[i] = kernelwright_float(0x7fc12345u);
    return 0;
}
