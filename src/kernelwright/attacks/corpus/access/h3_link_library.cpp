// rows: H3
// workload: matrix_mul f32 M=256,K=1024,N=256
// does: Asks the linker for a BLAS through its flags.
// expect: declare bad_declaration
// @tune FLAGS = "-O3 -march=native -lopenblas"
#include "kernelwright.h"

#include <cmath>

extern "C"  void cblas_sgemm(int, int, int, int, int, int, float, const float*, int, const float*, int,
                            float, float*, int);

extern "C" int kernel(const float* A, const float* B, float* out, int64_t M, int64_t K, int64_t N,
                      const void*, void*, int64_t, void*) {
    cblas_sgemm(101, 111, 111, (int)M, (int)N, (int)K, 1, A, (int)K, B, (int)N, 0, out, (int)N);
    return 0;
}
