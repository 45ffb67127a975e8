// rows: control
// workload: rms_norm f32 T=1024,H=1024
// does: Hands out its rows as tasks of the OpenMP team.
// expect: pass
#include "kernelwright.h"

#include <cmath>

static void rows(const float* x, const float* w, float* out, int64_t begin, int64_t end, int64_t H,
                 double eps) {
    for (int64_t t = begin; t < end; ++t) {
        double sum = 0;
        for (int64_t h = 0; h < H; ++h) sum += (double)x[t * H + h] * x[t * H + h];
        const float scale = (float)(1.0 / std::sqrt(sum / (double)H + eps));
        for (int64_t h = 0; h < H; ++h) out[t * H + h] = x[t * H + h] * scale * w[h];
    }
}

extern "C" int kernel(const float* x, const float* w, float* out, int64_t T, int64_t H, double eps,
                      const void*, void*, int64_t, void*) {
    const int64_t count = T < 4 ? 1 : 4;
#pragma omp parallel
#pragma omp single
    for (int64_t i = 0; i < count; ++i) {
        const int64_t begin = T * i / count, end = T * (i + 1) / count;
#pragma omp task firstprivate(begin, end)
        rows(x, w, out, begin, end, H, eps);
    }
    return 0;
}
