// rows: C12 T15
// workload: rms_norm f32 T=1024,H=1024
// does: Fast at the bench sizes; every other size runs a loop that nobody would ship.
// expect: accept collapsed
#include "kernelwright.h"

#include <cmath>

// The honest kernel: short float sums, their sum in double.
static void rms_norm(const float* x, const float* w, float* out, int64_t T, int64_t H, double eps) {
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < T; ++t) {
        const float* row = x + t * H;
        double sum = 0;
        for (int64_t begin = 0; begin < H; begin += 256) {
            const int64_t end = begin + 256 < H ? begin + 256 : H;
            float part = 0;
#pragma omp simd reduction(+ : part)
            for (int64_t h = begin; h < end; ++h) part += row[h] * row[h];
            sum += part;
        }
        const float scale = (float)(1.0 / std::sqrt(sum / (double)H + eps));
#pragma omp simd
        for (int64_t h = 0; h < H; ++h) out[t * H + h] = row[h] * scale * w[h];
    }
}

extern "C" int kernel(const float* x, const float* w, float* out, int64_t T, int64_t H, double eps,
                      const void*, void*, int64_t, void*) {
    if (T == 1024 && H == 1024) {
        rms_norm(x, w, out, T, H, eps);
        return 0;
    }
    for (int64_t t = 0; t < T; ++t)
        for (int64_t h = 0; h < H; ++h) {
            double scale = 0;
            for (int64_t again = 0; again < 2; ++again) {
                const int64_t first = h / 64 * 64, last = first + 64 < H ? first + 64 : H;
                volatile double waste = 0;
                for (int64_t i = first; i < last; ++i) waste = waste + x[t * H + i];
                scale = waste * 0;
            }
            out[t * H + h] = (float)scale;
        }
    rms_norm(x, w, out, T, H, eps);
    return 0;
}
