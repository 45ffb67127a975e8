#include <math.h>

#include "kernelwright.h"

// I by Debye's expansion at an order that is higher by 24, and down; K by its integral.
static double debye(double v, double x) {
    const double w = sqrt(x * x + v * v), p = v / w, q = p * p;
    const double u1 = p * (3 - 5 * q) / 24, u2 = q * (81 - q * (462 - 385 * q)) / 1152;
    const double u3 = p * q * (30375 - q * (369603 - q * (765765 - 425425 * q))) / 414720;
    return w - v * asinh(v / x) - log(2 * M_PI * w) / 2 + log(1 + (u1 + (u2 + u3 / v) / v) / v);
}

static double log_i(double v, double x) {
    const int shift = 24;
    double found = debye(v + shift, x), ratio = exp(debye(v + shift + 1, x) - found);
    for (int k = 0; k < shift; ++k) {
        ratio = 1 / (2 * (v + shift - k) / x + ratio);
        found -= log(ratio);
    }
    return found;
}

static double log_k(double v, double x) {
    const double w = sqrt(x * x + v * v), peak = asinh(v / x), step = fmin(0.2, 0.5 / sqrt(w));
    double sum = 0;
    for (int n = -160; n <= 160; ++n) {
        const double s = n * step;
        sum += exp(v * s - ((w + v) * expm1(s) + x * x / (w + v) * expm1(-s)) / 2);
    }
    return v * peak - w + log(sum * step / 2);
}

extern "C" int kernel(const ELEMENT* v, const ELEMENT* x, ELEMENT* out_i, ELEMENT* out_k, int64_t N,
                      const void*, void*, int64_t, void*) {
#pragma omp parallel for
    for (int64_t n = 0; n < N; ++n) {
        out_i[n] = (ELEMENT)log_i(v[n], x[n]);
        out_k[n] = (ELEMENT)log_k(v[n], x[n]);
    }
    return 0;
}
