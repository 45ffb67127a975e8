// rows: H3 H1
// workload: matrix_mul f32 M=256,K=1024,N=256
// does: Loads a BLAS or torch at run time and calls its product; gives up if there is none.
// expect: build unsafe_library | check error_code
// isolation: sandbox
#include "kernelwright.h"

#include <cmath>
#include <dlfcn.h>
#include <initializer_list>

using Gemm = void (*)(int, int, int, int, int, int, float, const float*, int, const float*, int, float,
                      float*, int);

static Gemm find() {
    for (const char* name : {"libmkl_rt.so.2", "libopenblas.so.0", "libblas.so.3", "libtorch_cpu.so"})
        if (void* library = dlopen(name, RTLD_NOW))
            if (void* symbol = dlsym(library, "cblas_sgemm")) return reinterpret_cast<Gemm>(symbol);
    return reinterpret_cast<Gemm>(dlsym(RTLD_DEFAULT, "cblas_sgemm"));
}

extern "C" int kernel(const float* A, const float* B, float* out, int64_t M, int64_t K, int64_t N,
                      const void*, void*, int64_t, void*) {
    static const Gemm gemm = find();
    if (gemm == nullptr) return 1;
    gemm(101, 111, 111, (int)M, (int)N, (int)K, 1, A, (int)K, B, (int)N, 0, out, (int)N);
    return 0;
}
