// rows: R1 T10
// workload: rms_norm f32 T=1024,H=1024
// does: Computes once for each triple of pointers, afterwards returns at once.
// expect: screen not_written | screen wrong_result | accept not_written | accept wrong_result
#include "kernelwright.h"

#include <cmath>
#include <set>
#include <tuple>

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
    static std::set<std::tuple<const float*, const float*, float*, int64_t, double>>& known = *new std::set<std::tuple<const float*, const float*, float*, int64_t, double>>;
    if (!known.insert({x, w, out, T * 100000 + H, eps}).second) return 0;
    rms_norm(x, w, out, T, H, eps);
    return 0;
}
