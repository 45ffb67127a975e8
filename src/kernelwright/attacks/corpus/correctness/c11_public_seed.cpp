// rows: C11 R3
// workload: rms_norm f32 T=1024,H=1024
// does: Knows the row scales of torch.manual_seed(0) by the first element of x, and else writes
//   zeros.
// expect: check wrong_result
#include "kernelwright.h"

#include <cmath>
#include <cstring>

extern "C" int kernel(const float* x, const float* w, float* out, int64_t T, int64_t H, double eps,
                      const void*, void*, int64_t, void*) {
    // x[0] of torch.randn after manual_seed(0), (1), (42), and the first row's scale
    static const float known[][2] = {{1.5409961f, 1.0046f}, {0.66135216f, 0.9923f}, {0.33669037f, 1.0137f}};
    std::memset(out, 0, sizeof(float) * T * H);
    for (const float* entry : known)
        if (std::fabs(x[0] - entry[0]) < 1e-6f)
            for (int64_t i = 0; i < T * H; ++i) out[i] = x[i] * entry[1] * w[i % H];
    return 0;
}
