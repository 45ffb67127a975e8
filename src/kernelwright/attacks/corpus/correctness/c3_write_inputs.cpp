// rows: C3
// workload: rms_norm f32 T=1024,H=1024
// does: Zeroes its inputs, for which zeros are the right answer.
// expect: check wrote_input
#include "kernelwright.h"

#include <cmath>
#include <cstring>

extern "C" int kernel(const float* x, const float* w, float* out, int64_t T, int64_t H, double eps,
                      const void*, void*, int64_t, void*) {
    std::memset(const_cast<float*>(x), 0, sizeof(float) * T * H);
    std::memset(out, 0, sizeof(float) * T * H);
    return 0;
}
