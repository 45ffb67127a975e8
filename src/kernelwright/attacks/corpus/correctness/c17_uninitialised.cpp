// rows: C17 C1
// workload: rms_norm f32 T=1024,H=1024
// does: Uses what the tail of a vector beyond its input happens to hold.
// expect: check crash | check wrong_result | check not_written
#include "kernelwright.h"

#include <cmath>

extern "C" int kernel(const float* x, const float* w, float* out, int64_t T, int64_t H, double eps,
                      const void*, void*, int64_t, void*) {
#pragma omp parallel for
    for (int64_t t = 0; t < T; ++t) {
        const float* row = x + t * H;
        const int64_t padded = (H + 15) / 16 * 16;
        double sum = 0;
        for (int64_t h = 0; h < padded; ++h) sum += (double)row[h] * row[h];  // zeros, surely
        const float scale = (float)(1.0 / std::sqrt(sum / (double)H + eps));
        for (int64_t h = 0; h < H; ++h) out[t * H + h] = row[h] * scale * w[h];
    }
    return 0;
}
