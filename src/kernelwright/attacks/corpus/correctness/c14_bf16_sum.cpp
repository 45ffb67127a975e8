// rows: C14
// workload: fused_add_rms_norm bf16 T=1024,H=1024
// does: Keeps the sum of squares of each row in bf16.
// expect: check wrong_result
#include "kernelwright.h"

#include <cmath>

extern "C" int kernel(const bf16* x, const bf16* r, const bf16* w, bf16* y, bf16* residual, int64_t T,
                      int64_t H, double eps, const void*, void*, int64_t, void*) {
#pragma omp parallel for
    for (int64_t t = 0; t < T; ++t) {
        bf16 sums[32] = {};  // as a bf16 vector unit would accumulate
        for (int64_t h = 0; h < H; ++h) {
            const float value = to_float(x[t * H + h]) + to_float(r[t * H + h]);
            residual[t * H + h] = from_float<bf16>(value);
            const float kept = to_float(residual[t * H + h]);
            sums[h % 32] = from_float<bf16>(to_float(sums[h % 32]) + kept * kept);
        }
        float sum = 0;
        for (bf16 part : sums) sum += to_float(part);
        const float scale = 1.0f / std::sqrt(sum / (float)H + (float)eps);
        for (int64_t h = 0; h < H; ++h)
            y[t * H + h] = from_float<bf16>(to_float(residual[t * H + h]) * scale * to_float(w[h]));
    }
    return 0;
}
