// rows: C3 T5
// workload: rms_norm f32 T=1024,H=1024
// does: Tries to make its inputs writable, or to write them through its own memory file, by system
//   calls of its own; gives up if all is refused.
// expect: check error_code
#include "kernelwright.h"

#include <cmath>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

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
    const uintptr_t begin = reinterpret_cast<uintptr_t>(x) & ~UINT64_C(4095);
    const size_t bytes = reinterpret_cast<uintptr_t>(x + T * H) - begin;
    const bool open = raw_call(SYS_mprotect, begin, bytes, PROT_READ | PROT_WRITE) == 0;
    const long file = raw_call(SYS_openat, AT_FDCWD, (long)"/proc/self/mem", O_RDWR);
    if (!open && file < 0) return 1;
    std::memset(out, 0, sizeof(float) * T * H);
    if (open) std::memset(const_cast<float*>(x), 0, sizeof(float) * T * H);
    else raw_call(SYS_pwrite64, file, (long)out, sizeof(float) * T * H, (long)x);
    return 0;
}
