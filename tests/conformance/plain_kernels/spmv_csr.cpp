#include "kernelwright.h"

extern "C" int kernel(const int32_t* rows, const int32_t* columns, const ELEMENT* values,
                      const ELEMENT* x, ELEMENT* out, int64_t M, int64_t Z, int64_t N, const void*,
                      void*, int64_t, void*) {
    (void)Z, (void)N;
#pragma omp parallel for schedule(dynamic, 256)
    for (int64_t i = 0; i < M; ++i) {
        float sum = 0;
        for (int32_t at = rows[i]; at < rows[i + 1]; ++at)
            sum += to_float(values[at]) * to_float(x[columns[at]]);
        from_float(sum, &out[i]);
    }
    return 0;
}
