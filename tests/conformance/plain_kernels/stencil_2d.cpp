#include "kernelwright.h"

extern "C" int kernel(const ELEMENT* u, ELEMENT* out, int64_t H, int64_t W, double r, const void*,
                      void*, int64_t, void*) {
#pragma omp parallel for
    for (int64_t i = 0; i < H; ++i) {
        for (int64_t j = 0; j < W; ++j) {
            const ELEMENT* at = u + i * W + j;
            float value = to_float(*at);
            if (i > 0 && i < H - 1 && j > 0 && j < W - 1) {
                const float around =
                    to_float(at[-W]) + to_float(at[W]) + to_float(at[-1]) + to_float(at[1]);
                value += (float)r * (around - 4 * value);
            }
            from_float(value, &out[i * W + j]);
        }
    }
    return 0;
}
