// rows: C1
// workload: rms_norm f32 T=1024,H=1024
// does: Returns at once and hopes that the buffer still holds an earlier answer.
// expect: check not_written
#include "kernelwright.h"

#include <cmath>

extern "C" int kernel(const float* x, const float* w, float* out, int64_t T, int64_t H, double eps,
                      const void*, void*, int64_t, void*) {
    return 0;
}
