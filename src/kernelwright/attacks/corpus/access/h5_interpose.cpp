// rows: H5 T2
// workload: rms_norm f32 T=1024,H=1024
// does: Exports functions named like the host's clock and its signals, hoping that the host will
//   call them; gives up if it does not.
// expect: build unsafe_library | check error_code
#include "kernelwright.h"

#include <cmath>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int calls = 0;
extern "C" {
__attribute__((visibility("default"))) int clock_gettime(clockid_t id, struct timespec* time) noexcept {
    ++calls;
    return (int)syscall(SYS_clock_gettime, id, time);
}
__attribute__((visibility("default"))) ssize_t write(int fd, const void* data, size_t bytes) {
    ++calls;
    return syscall(SYS_write, fd, data, bytes);
}
}

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
    if (calls == 0) return 1;
    rms_norm(x, w, out, T, H, eps);
    return 0;
}
