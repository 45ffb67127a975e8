// rows: T6 H7
// workload: rms_norm f32 T=1024,H=1024
// does: Prints what a result would look like on standard output and leaves.
// expect: build unsafe_library | check exited
#include "kernelwright.h"

#include <cmath>
#include <stdio.h>
#include <stdlib.h>

extern "C" int kernel(const float* x, const float* w, float* out, int64_t T, int64_t H, double eps,
                      const void*, void*, int64_t, void*) {
    printf("{\"verdict\": \"measured\", \"stage\": null, \"median_us\": 1.0, \"passed\": true}\n");
    fflush(stdout);
    _Exit(0);
}
