// rows: T10 T13
// workload: rms_norm f32 T=1024,H=1024
// does: Tells timed calls by their cold caches, and then does half of the work.
// expect: screen not_written | screen wrong_result
#include "kernelwright.h"

#include <cmath>
#include <x86intrin.h>

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
    uint64_t slowest = 0, total = 0;
    for (int64_t i = 1; i <= 32 && T == 1024; ++i) {
        unsigned int processor;
        const uint64_t start = __rdtscp(&processor);
        (void)*static_cast<const volatile float*>(x + i * 32768 / 2 + 7);
        const uint64_t ticks = __rdtscp(&processor) - start;
        total += ticks, slowest = ticks > slowest ? ticks : slowest;
    }
    rms_norm(x, w, out, total / 32 > 120 ? T / 2 : T, H, eps);
    return 0;
}
