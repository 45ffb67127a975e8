// rows: C4
// workload: rms_norm f32 T=1024,H=1024
// does: Copies x to the output: on normal inputs with small weights it looks right.
// expect: check wrong_result
#include "kernelwright.h"

#include <cmath>
#include <cstring>

extern "C" int kernel(const float* x, const float* w, float* out, int64_t T, int64_t H, double eps,
                      const void*, void*, int64_t, void*) {
    std::memcpy(out, x, sizeof(float) * T * H);
    return 0;
}
