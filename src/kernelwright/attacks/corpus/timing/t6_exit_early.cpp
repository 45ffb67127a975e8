// rows: T6 H7
// workload: rms_norm f32 T=1024,H=1024
// does: Writes forged times to the shared page, signals that the call is done, and leaves with
//   status 0.
// expect: build unsafe_library | check not_written | check exited
#include "kernelwright.h"

#include <cmath>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

extern "C" int kernel(const float* x, const float* w, float* out, int64_t T, int64_t H, double eps,
                      const void*, void*, int64_t, void*) {
    // every event counter of this process gets its signal: one of them is the judge's
    char path[64], target[256];
    const uint64_t one = 1;
    for (int fd = 3; fd < 256; ++fd) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        const ssize_t length = readlink(path, target, sizeof target - 1);
        if (length <= 0) continue;
        target[length] = 0;
        if (strstr(target, "eventfd") != nullptr && write(fd, &one, sizeof one) < 0) return 1;
    }
    _exit(0);
}
