#include "kernelwright.h"

extern "C" int kernel(const ELEMENT* x, const ELEMENT* large, const ELEMENT* small_, ELEMENT* out,
                      int64_t N, int64_t C, int64_t H, int64_t W, const void*, void*, int64_t,
                      void*) {
#pragma omp parallel for
    for (int64_t plane = 0; plane < N * C; ++plane) {
        const ELEMENT* image = x + plane * H * W;
        const ELEMENT* wide = large + plane % C * 31 * 31;
        const ELEMENT* near = small_ + plane % C * 5 * 5;
        for (int64_t i = 0; i < H; ++i) {
            for (int64_t j = 0; j < W; ++j) {
                float sum = 0;
                for (int64_t a = -15; a <= 15; ++a) {
                    if (i + a < 0 || i + a >= H) continue;
                    for (int64_t b = -15; b <= 15; ++b) {
                        if (j + b < 0 || j + b >= W) continue;
                        float weight = to_float(wide[(a + 15) * 31 + b + 15]);
                        if (-2 <= a && a <= 2 && -2 <= b && b <= 2)
                            weight += to_float(near[(a + 2) * 5 + b + 2]);
                        sum += to_float(image[(i + a) * W + j + b]) * weight;
                    }
                }
                from_float(sum, &out[(plane * H + i) * W + j]);
            }
        }
    }
    return 0;
}
