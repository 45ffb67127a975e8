// rows: T6 C2
// workload: rms_norm f32 T=1024,H=1024
// does: Catches its own segmentation fault half-way and reports success.
// expect: build unsafe_library | check not_written
#include "kernelwright.h"

#include <cmath>
#include <setjmp.h>
#include <signal.h>

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

static sigjmp_buf safe;
static void swallow(int) { siglongjmp(safe, 1); }

extern "C" int kernel(const float* x, const float* w, float* out, int64_t T, int64_t H, double eps,
                      const void*, void*, int64_t, void*) {
    signal(SIGSEGV, swallow);
    signal(SIGABRT, swallow);
    if (sigsetjmp(safe, 1) != 0) return 0;
    rms_norm(x, w, out, T > 1 ? T / 2 : 0, H, eps);
    *reinterpret_cast<volatile int*>(8) = 1;
    return 0;
}
