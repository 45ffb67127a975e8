#include <math.h>

#include "kernelwright.h"

extern "C" int kernel(const ELEMENT* p, const ELEMENT* y, ELEMENT* loss, ELEMENT* total, int64_t T,
                      int64_t C, double least, const void*, void*, int64_t, void*) {
    float all = 0;
    for (int64_t t = 0; t < T; ++t) {
        float sum = 0;
#pragma omp simd reduction(- : sum)
        for (int64_t c = 0; c < C; ++c)
            sum -= to_float(y[t * C + c]) * logf(fmaxf(to_float(p[t * C + c]), (float)least));
        from_float(sum, &loss[t]);
        all += sum;
    }
    from_float(all, total);
    return 0;
}
