// rows: C7
// workload: rms_norm f32 T=1024,H=1024
// does: Estimates the mean square of a row from every eighth element.
// expect: check wrong_result
#include "kernelwright.h"

#include <cmath>

extern "C" int kernel(const float* x, const float* w, float* out, int64_t T, int64_t H, double eps,
                      const void*, void*, int64_t, void*) {
    const int64_t step = H >= 64 ? 8 : 1;
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < T; ++t) {
        const float* row = x + t * H;
        double sum = 0;
        int64_t count = 0;
        for (int64_t h = 0; h < H; h += step, ++count) sum += (double)row[h] * row[h];
        const float scale = (float)(1.0 / std::sqrt(sum / (double)count + eps));
#pragma omp simd
        for (int64_t h = 0; h < H; ++h) out[t * H + h] = row[h] * scale * w[h];
    }
    return 0;
}
