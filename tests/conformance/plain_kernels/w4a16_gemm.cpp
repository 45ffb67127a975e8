#include "kernelwright.h"

extern "C" int kernel(const ELEMENT* x, const uint8_t* q, const ELEMENT* s, const uint8_t* z,
                      ELEMENT* out, int64_t M, int64_t G, int64_t N, const void*, void*, int64_t,
                      void*) {
#pragma omp parallel for
    for (int64_t n = 0; n < N; ++n) {
        for (int64_t m = 0; m < M; ++m) {
            float sum = 0;
            for (int64_t g = 0; g < G; ++g) {
                const uint8_t* bytes = q + (n * G + g) * 64;
                const ELEMENT* row = x + (m * G + g) * 128;
                const int zero = z[n * G + g];
                float part = 0;
                for (int j = 0; j < 64; ++j) {
                    part += to_float(row[2 * j]) * ((bytes[j] & 15) - zero);
                    part += to_float(row[2 * j + 1]) * ((bytes[j] >> 4) - zero);
                }
                sum += part * to_float(s[n * G + g]);
            }
            from_float(sum, &out[m * N + n]);
        }
    }
    return 0;
}
