// rows: C8 C12
// workload: rms_norm f32 T=1024,H=1024
// does: Leaves the last H % 16 elements of each row at their unscaled value: right for round sizes.
// expect: check wrong_result
#include "kernelwright.h"

#include <cmath>

extern "C" int kernel(const float* x, const float* w, float* out, int64_t T, int64_t H, double eps,
                      const void*, void*, int64_t, void*) {
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < T; ++t) {
        const float* row = x + t * H;
        const int64_t whole = H < 16 ? H : H / 16 * 16;
        double sum = 0;
        for (int64_t h = 0; h < H; ++h) sum += (double)row[h] * row[h];
        const float scale = (float)(1.0 / std::sqrt(sum / (double)H + eps));
#pragma omp simd
        for (int64_t h = 0; h < whole; ++h) out[t * H + h] = row[h] * scale * w[h];
        for (int64_t h = whole; h < H; ++h) out[t * H + h] = row[h] * w[h];
    }
    return 0;
}
