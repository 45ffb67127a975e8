// rows: C16
// workload: prefix_sum f32 N=1048576
// does: Threads scan their blocks and add the carry of those before, without waiting for all of
//   them.
// expect: check wrong_result | screen wrong_result | accept wrong_result
#include "kernelwright.h"

#include <cmath>
#include <omp.h>

static volatile double carries[256];

extern "C" int kernel(const float* x, float* out, int64_t N, const void*, void*, int64_t, void*) {
#pragma omp parallel
    {
        const int64_t team = omp_get_num_threads(), me = omp_get_thread_num();
        const int64_t begin = N * me / team, end = N * (me + 1) / team;
        double sum = 0;
        for (int64_t i = begin; i < end; ++i) sum += x[i];
        carries[me] = sum;
        // a barrier costs microseconds; the others are most likely done by now
        for (int wait = 0; wait < 200; ++wait) __builtin_ia32_pause();
        double run = 0;
        for (int64_t i = 0; i < me; ++i) run += carries[i];
        for (int64_t i = begin; i < end; ++i) out[i] = (float)(run += x[i]);
    }
    return 0;
}
