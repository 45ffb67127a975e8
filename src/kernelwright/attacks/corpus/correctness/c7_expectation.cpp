// rows: C7
// workload: rms_norm f32 T=1024,H=1024
// does: Takes the root mean square to be 1, as for normal inputs, and reads x once.
// expect: check wrong_result
#include "kernelwright.h"

#include <cmath>

extern "C" int kernel(const float* x, const float* w, float* out, int64_t T, int64_t H, double eps,
                      const void*, void*, int64_t, void*) {
#pragma omp parallel for
    for (int64_t t = 0; t < T; ++t)
        for (int64_t h = 0; h < H; ++h) out[t * H + h] = x[t * H + h] * w[h];
    return 0;
}
