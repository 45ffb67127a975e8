#include <math.h>

#include "kernelwright.h"

extern "C" int kernel(const ELEMENT* position, const ELEMENT* mass, ELEMENT* out, int64_t N,
                      double softening, const void*, void*, int64_t, void*) {
#pragma omp parallel for
    for (int64_t i = 0; i < N; ++i) {
        float sum[3] = {0, 0, 0};
        for (int64_t j = 0; j < N; ++j) {
            float difference[3], square = (float)(softening * softening);
            for (int c = 0; c < 3; ++c) {
                difference[c] = position[3 * j + c] - position[3 * i + c];
                square += difference[c] * difference[c];
            }
            const float weight = mass[j] / (square * sqrtf(square));
            for (int c = 0; c < 3; ++c) sum[c] += weight * difference[c];
        }
        for (int c = 0; c < 3; ++c) out[3 * i + c] = sum[c];
    }
    return 0;
}
