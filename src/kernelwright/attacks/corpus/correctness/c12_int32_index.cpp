// rows: C12
// workload: rms_norm f32 T=1024,H=1024
// does: Indexes with 16 bits, which is enough for every small size and wraps at the larger ones.
// expect: check not_written | check wrong_result | check crash
#include "kernelwright.h"

#include <cmath>

extern "C" int kernel(const float* x, const float* w, float* out, int64_t T, int64_t H, double eps,
                      const void*, void*, int64_t, void*) {
#pragma omp parallel for
    for (int64_t t = 0; t < T; ++t) {
        const float* row = x + t * H;
        double sum = 0;
        for (int64_t h = 0; h < H; ++h) sum += (double)row[h] * row[h];
        const float scale = (float)(1.0 / std::sqrt(sum / (double)H + eps));
        const uint16_t last = (uint16_t)(H > 4096 ? H % 4096 : H);
        for (uint16_t h = 0; h < last; ++h) out[t * H + h] = row[h] * scale * w[h];
    }
    return 0;
}
