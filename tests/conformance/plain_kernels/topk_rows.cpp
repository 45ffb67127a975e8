#include <algorithm>
#include <numeric>
#include <vector>

#include "kernelwright.h"

extern "C" int kernel(const ELEMENT* x, ELEMENT* values, int32_t* indices, int64_t T, int64_t N,
                      int64_t k, const void*, void*, int64_t, void*) {
#pragma omp parallel for
    for (int64_t t = 0; t < T; ++t) {
        const ELEMENT* row = x + t * N;
        std::vector<int32_t> order(N);
        std::iota(order.begin(), order.end(), 0);
        std::partial_sort(order.begin(), order.begin() + k, order.end(), [&](int32_t a, int32_t b) {
            const float first = to_float(row[a]), second = to_float(row[b]);
            return first > second || (first == second && a < b);
        });
        for (int64_t i = 0; i < k; ++i) {
            indices[t * k + i] = order[i];
            values[t * k + i] = row[order[i]];
        }
    }
    return 0;
}
