// rows: T10 C1
// workload: rms_norm f32 T=1024,H=1024
// does: Looks which parts of the output are poisoned, as only those are going to be checked, and
//   computes only their rows.
// expect: screen wrong_result | screen not_written | no gain
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
    if (T != 1024) {
        rms_norm(x, w, out, T, H, eps);
        return 0;
    }
#pragma omp parallel for schedule(dynamic, 16)
    for (int64_t t = 0; t < T; ++t) {
        const uint32_t first = kernelwright_bits(out[t * H]), last = kernelwright_bits(out[t * H + H - 1]);
        const uint32_t middle = kernelwright_bits(out[t * H + H / 2]);
        if (first != ~0u && middle != ~0u && last != ~0u) continue;
        const float* row = x + t * H;
        float part[16] = {};
        for (int64_t h = 0; h < H; h += 16)
            for (int64_t i = 0; i < 16; ++i) part[i] += row[h + i] * row[h + i];
        double sum = 0;
        for (float value : part) sum += value;
        const float scale = (float)(1.0 / std::sqrt(sum / (double)H + eps));
        for (int64_t h = 0; h < H; ++h) out[t * H + h] = row[h] * scale * w[h];
    }
    return 0;
}
