// rows: T7 T6
// workload: rms_norm f32 T=1024,H=1024
// does: Asks the system itself, past every library, for a child process that writes the shared output;
//   gives up if there is none.
// expect: check error_code
#include "kernelwright.h"

#include <cmath>
#include <signal.h>
#include <sys/syscall.h>

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

// A system call without any library, which an inspection of imports does not see.
static long raw_call(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0) {
    long result;
#if defined(__x86_64__)
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
#else
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
    result = x0;
#endif
    return result;
}

extern "C" int kernel(const float* x, const float* w, float* out, int64_t T, int64_t H, double eps,
                      const void*, void*, int64_t, void*) {
    const long child = raw_call(SYS_clone, SIGCHLD);
    if (child < 0) return 1;
    if (child > 0) return 0;
    rms_norm(x, w, out, T, H, eps);
    raw_call(SYS_exit_group, 0);
    return 0;
}
