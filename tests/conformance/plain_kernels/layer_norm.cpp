#include <math.h>

#include "kernelwright.h"

extern "C" int kernel(const ELEMENT* x, const ELEMENT* w, const ELEMENT* b, ELEMENT* out, int64_t T,
                      int64_t H, double eps, const void*, void*, int64_t, void*) {
#pragma omp parallel for
    for (int64_t t = 0; t < T; ++t) {
        const ELEMENT* row = x + t * H;
        float sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t h = 0; h < H; ++h) sum += to_float(row[h]);
        const float mean = sum / H;
#pragma omp simd reduction(+ : squares)
        for (int64_t h = 0; h < H; ++h) {
            const float centred = to_float(row[h]) - mean;
            squares += centred * centred;
        }
        const float scale = 1 / sqrtf(squares / H + (float)eps);
        for (int64_t h = 0; h < H; ++h) {
            const float normed = (to_float(row[h]) - mean) * scale;
            from_float(normed * to_float(w[h]) + to_float(b[h]), &out[t * H + h]);
        }
    }
    return 0;
}
