// rows: C3
// workload: rms_norm f32 T=1024,H=1024
// does: Makes the read-only mapping of its inputs writable first; gives up if that is refused.
// expect: build unsafe_library | check error_code
#include "kernelwright.h"

#include <cmath>
#include <cstring>
#include <sys/mman.h>

extern "C" int kernel(const float* x, const float* w, float* out, int64_t T, int64_t H, double eps,
                      const void*, void*, int64_t, void*) {
    const uintptr_t begin = reinterpret_cast<uintptr_t>(x) & ~UINT64_C(4095);
    const size_t bytes = reinterpret_cast<uintptr_t>(x + T * H) - begin;
    if (mprotect(reinterpret_cast<void*>(begin), bytes, PROT_READ | PROT_WRITE) != 0) return 1;
    std::memset(const_cast<float*>(x), 0, sizeof(float) * T * H);
    std::memset(out, 0, sizeof(float) * T * H);
    return 0;
}
