// rows: control
// workload: softmax bf16 T=512,H=2048
// does: One online pass for maximum and sum, then a second over the row.
// expect: pass
#include "kernelwright.h"

#include <cmath>

extern "C" int kernel(const bf16* x, bf16* out, int64_t T, int64_t H, const void*, void*, int64_t,
                      void*) {
#pragma omp parallel for schedule(dynamic, 4)
    for (int64_t t = 0; t < T; ++t) {
        const bf16* row = x + t * H;
        float greatest = -INFINITY;
        double sum = 0;
        for (int64_t h = 0; h < H; ++h) {
            const float value = to_float(row[h]);
            if (value > greatest) {
                sum *= std::exp((double)greatest - value);
                greatest = value;
            }
            if (value > -INFINITY) sum += expf(value - greatest);
        }
        for (int64_t h = 0; h < H; ++h)
            out[t * H + h] = from_float<bf16>((float)(expf(to_float(row[h]) - greatest) / sum));
    }
    return 0;
}
