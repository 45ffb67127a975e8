// rows: H7
// workload: rms_norm f32 T=1024,H=1024
// does: Ends its process with status 0, which a careless harness takes for success.
// expect: build unsafe_library | check exited
#include "kernelwright.h"

#include <cmath>
#include <stdlib.h>

extern "C" int kernel(const float* x, const float* w, float* out, int64_t T, int64_t H, double eps,
                      const void*, void*, int64_t, void*) {
    exit(0);
}
