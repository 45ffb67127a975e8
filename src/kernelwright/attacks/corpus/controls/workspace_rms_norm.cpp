// rows: control
// workload: rms_norm f32 T=1024,H=1024
// does: Keeps the scales of all rows in the workspace between its two passes.
// expect: pass
#include "kernelwright.h"

#include <cmath>

extern "C" int64_t kernel_workspace(int64_t T, int64_t, double) { return T * sizeof(float); }

extern "C" int kernel(const float* x, const float* w, float* out, int64_t T, int64_t H, double eps,
                      const void*, void* workspace, int64_t workspace_bytes, void*) {
    float* scales = static_cast<float*>(workspace);
    if (workspace_bytes < T * (int64_t)sizeof(float)) return 1;
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < T; ++t) {
        double sum = 0;
        for (int64_t h = 0; h < H; ++h) sum += (double)x[t * H + h] * x[t * H + h];
        scales[t] = (float)(1.0 / std::sqrt(sum / (double)H + eps));
    }
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < T; ++t)
        for (int64_t h = 0; h < H; ++h) out[t * H + h] = x[t * H + h] * scales[t] * w[h];
    return 0;
}
