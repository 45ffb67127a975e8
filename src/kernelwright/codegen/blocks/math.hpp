//@ bits: vector
inline floats absolute(floats x) { return (floats)((ints)x & 0x7fffffff); }
inline floats with_sign(floats x, floats sign) {
    return (floats)(((ints)x & 0x7fffffff) | ((ints)sign & (int32_t)0x80000000));
}
// 2^n for -126 <= n <= 127.
inline floats power_of_two(ints n) { return (floats)((n + 127) << 23); }

//@ per_lane: vector
// A scalar function on each lane, for what is rare.
template <class F> inline floats per_lane(floats x, F&& f) {
    for (int i = 0; i < LANES; ++i) x[i] = f(x[i]);
    return x;
}
template <class F> inline floats per_lane(floats x, floats y, F&& f) {
    for (int i = 0; i < LANES; ++i) x[i] = f(x[i], y[i]);
    return x;
}

//@ rounding: bits
// Adding 2^23 leaves no bits for a fraction; from 2^23 on there is none.
inline floats round_even(floats x) {
    const floats a = absolute(x), magic = splat(8388608.0f);
    return a < magic ? with_sign((a + magic) - magic, x) : x;
}
inline floats floor(floats x) {
    const floats r = round_even(x);
    return r > x ? r - 1.0f : r;
}
inline floats ceil(floats x) { return -floor(-x); }
inline floats trunc(floats x) { return with_sign(floor(absolute(x)), x); }

//@ sqrt: vector
inline floats sqrt(floats x) {
#if defined(__AVX512F__) && LANES % 16 == 0
    for (int i = 0; i < LANES; i += 16)
        _mm512_storeu_ps((float*)&x + i, _mm512_sqrt_ps(_mm512_loadu_ps((float*)&x + i)));
#elif defined(__AVX__) && LANES % 8 == 0
    for (int i = 0; i < LANES; i += 8)
        _mm256_storeu_ps((float*)&x + i, _mm256_sqrt_ps(_mm256_loadu_ps((float*)&x + i)));
#elif defined(__SSE2__)
    for (int i = 0; i < LANES; i += 4)
        _mm_storeu_ps((float*)&x + i, _mm_sqrt_ps(_mm_loadu_ps((float*)&x + i)));
#else
    for (int i = 0; i < LANES; ++i) x[i] = std::sqrt(x[i]);
#endif
    return x;
}

//@ rsqrt: sqrt
// 1 / sqrt(x) to about 1 ulp: an estimate of 14 bits and one Newton step; 0 gives infinity and
// infinity 0, where the step alone would give NaN.
inline floats rsqrt(floats x) {
#if defined(__AVX512F__) && LANES % 16 == 0
    for (int i = 0; i < LANES; i += 16) {
        const __m512 a = _mm512_loadu_ps((float*)&x + i), y = _mm512_rsqrt14_ps(a);
        const __m512 ay = _mm512_mul_ps(a, y), half = _mm512_mul_ps(y, _mm512_set1_ps(0.5f));
        const __m512 rest = _mm512_fnmadd_ps(ay, y, _mm512_set1_ps(1.0f));
        const __mmask16 ordered = _mm512_cmp_ps_mask(ay, ay, _CMP_ORD_Q);
        _mm512_storeu_ps((float*)&x + i, _mm512_mask3_fmadd_ps(half, rest, y, ordered));
    }
    return x;
#else
    return 1.0f / sqrt(x);
#endif
}

//@ exp: bits
// e^x to 1 ulp: x = n ln 2 + r, a polynomial in r (Cephes expf), then 2^n in two factors so that
// results below the normal range and up to infinity come out right. What underflows even there is set
// to 0 apart: to compute it takes 150 cycles more, and masked scores are -infinity in every vector.
inline floats times_power_of_two(floats x, floats n) {
#if defined(__AVX512F__) && LANES % 16 == 0
    for (int i = 0; i < LANES; i += 16)
        _mm512_storeu_ps((float*)&x + i, _mm512_scalef_ps(_mm512_loadu_ps((float*)&x + i),
                                                          _mm512_loadu_ps((float*)&n + i)));
    return x;
#endif
    const ints whole = __builtin_convertvector(n, ints), half = whole >> 1;
    return x * power_of_two(half) * power_of_two(whole - half);
}
inline floats exp(floats x) {
    const ints vanishes = x < -104.0f;
    x = vanishes ? splat(0.0f) : x;
    x = x > 89.0f ? splat(89.0f) : x;
    const floats magic = splat(12582912.0f);
    const floats n = (x * 1.44269504088896341f + magic) - magic;
    floats r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    return vanishes ? splat(0.0f) : times_power_of_two(p, n);
}

//@ exp2: exp
// 2^x: n + r with |r| <= 1/2, then e^(r ln 2).
inline floats exp2(floats x) {
    const ints vanishes = x < -151.0f;
    x = vanishes ? splat(0.0f) : x;
    x = x > 129.0f ? splat(129.0f) : x;
    const floats magic = splat(12582912.0f);
    const floats n = (x + magic) - magic;
    const floats r = x - n;
    floats p = r * 1.535336188319500e-4f + 1.339887440266574e-3f;
    p = p * r + 9.618437357674640e-3f;
    p = p * r + 5.550332471162809e-2f;
    p = p * r + 2.402264791363012e-1f;
    p = p * r + 6.931472028550421e-1f;
    p = p * r + 1.0f;
    return vanishes ? splat(0.0f) : times_power_of_two(p, n);
}

//@ expm1: exp
// e^x - 1 without cancellation: 2^n (e^r - 1) + (2^n - 1).
inline floats expm1(floats x) {
    const floats magic = splat(12582912.0f);
    floats y = x < -20.0f ? splat(-20.0f) : x;
    y = y > 80.0f ? splat(80.0f) : y;
    const floats shifted = y * 1.44269504088896341f + magic;
    const floats n = shifted - magic;
    floats r = y - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r;
    const floats scale = power_of_two((ints)shifted - (ints)magic);
    const floats middle = p * scale + (scale - 1.0f);
    return x > 80.0f ? exp(x) - 1.0f : middle;
}

//@ log: bits
// ln x = e ln 2 + ln m with sqrt(1/2) <= m < sqrt(2) (Cephes logf), to about 1 ulp.
inline floats log_parts(floats x, floats& exponent) {
    const ints tiny = x < 1.17549435e-38f;
    floats m = tiny ? x * 8388608.0f : x;
    ints e = (((ints)m >> 23) & 0xff) - 126;
    m = (floats)(((ints)m & 0x007fffff) | 0x3f000000);
    const ints low = m < 0.707106781186547524f;
    e = e - (low & 1) - (tiny & 23);
    m = (low ? m + m : m) - 1.0f;
    exponent = __builtin_convertvector(e, floats);
    return m;
}
inline floats log_polynomial(floats m) {
    floats p = m * 7.0376836292e-2f - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    return p * m * (m * m);
}
inline floats log_special(floats x, floats y) {
    y = x == 0.0f ? splat(-INFINITY) : y;
    y = x == INFINITY ? x : y;
    return (x < 0.0f) | (x != x) ? splat(NAN) : y;
}
inline floats log(floats x) {
    floats e;
    const floats m = log_parts(x, e);
    floats y = log_polynomial(m) - e * 2.12194440e-4f;
    y = y - 0.5f * (m * m);
    return log_special(x, (m + y) + e * 0.693359375f);
}

//@ log2: log
inline floats log2(floats x) {
    floats e;
    const floats m = log_parts(x, e);
    const floats y = log_polynomial(m) - 0.5f * (m * m);
    const floats extra = 0.44269504088896340736f + splat(0.0f);
    return log_special(x, ((y * extra + m * extra) + y + m) + e);
}

//@ log1p: log
// ln(1 + x): the rounding of 1 + x is put back to first order.
inline floats log1p(floats x) {
    const floats u = x + 1.0f;
    const floats lost = (x - (u - 1.0f)) / u;
    const floats y = log(u) + lost;
    const ints plain = (u == 0.0f) | (u == INFINITY);
    const floats exact = plain ? log(u) : y;
    return absolute(x) < 1e-7f ? x : exact;
}

//@ reciprocal: vector
// 1 / d for d >= 1: an estimate and one Newton step where division is slow; infinity gives 0.
inline floats reciprocal(floats d) {
#if defined(__AVX512F__) && LANES % 16 == 0
    floats result;
    for (int i = 0; i < LANES; i += 16) {
        const __m512 x = _mm512_loadu_ps((float*)&d + i), r = _mm512_rcp14_ps(x);
        const __m512 rest = _mm512_fnmadd_ps(x, r, _mm512_set1_ps(1.0f));
        const __mmask16 finite = _mm512_cmp_ps_mask(x, _mm512_set1_ps(INFINITY), _CMP_NEQ_UQ);
        _mm512_storeu_ps((float*)&result + i, _mm512_maskz_fmadd_ps(finite, r, rest, r));
    }
    return result;
#else
    return 1.0f / d;
#endif
}

//@ tanh: exp, reciprocal
// Cephes tanhf: a polynomial near zero, 1 - 2 / (e^2x + 1) elsewhere.
inline floats tanh(floats x) {
    const floats a = absolute(x), z = x * x;
    floats p = z * -5.70498872745e-3f + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    const floats near = p * z * x + x;
    const floats far = with_sign(1.0f - 2.0f * reciprocal(exp(a + a) + 1.0f), x);
    return a < 0.625f ? near : far;
}

//@ atan: bits
// Cephes atanf: reduced to |x| <= tan(pi/8) by two identities, then a polynomial; about 2 ulp.
inline floats atan(floats x) {
    const floats a = absolute(x);
    const ints far = a > 2.414213562373095f, middle = a > 0.4142135623730950f;
    const floats over = select(far, splat(-1.0f), select(middle, a - 1.0f, a));
    const floats under = select(far, a, select(middle, a + 1.0f, splat(1.0f)));
    const floats r = select(a == splat(INFINITY), splat(0.0f), over / under);
    const floats z = r * r;
    floats p = z * 8.05374449538e-2f - 1.38776856032e-1f;
    p = p * z + 1.99777106478e-1f;
    p = p * z - 3.33329491539e-1f;
    p = p * z * r + r;
    const floats turned = select(far, splat(1.5707963267948966f),
                                 select(middle, splat(0.7853981633974483f), splat(0.0f)));
    return with_sign(turned + p, x);
}

//@ sigmoid: exp, reciprocal
inline floats sigmoid(floats x) { return reciprocal(1.0f + exp(-x)); }

//@ erf: exp, reciprocal
// 0: two minimax polynomials (N. Juffa), odd near zero, 1 - e^p(|x|) elsewhere; about 1 ulp.
// 1: x p(x^2) / q(x^2), a minimax fit of erf(x) / x up to |x| = 3.95 by reweighted least squares
// (Lawson); half the instructions; up to 4 ulp where |x| < 2, up to 6 beyond.
#ifndef RATIONAL_ERF
#define RATIONAL_ERF 0
#endif
inline floats erf(floats x) {
#if RATIONAL_ERF
    floats t = x > 3.95f ? splat(3.95f) : x;
    t = t < -3.95f ? splat(-3.95f) : t;
    const floats s = t * t;
    floats p = s * 2.02582723e-6f + 2.84678561e-4f, q = s * 3.78304719e-5f + 1.17069042e-3f;
    p = p * s + 3.80807387e-3f, q = q * s + 1.50549305e-2f;
    p = p * s + 5.28751805e-2f, q = q * s + 1.14559074e-1f;
    p = p * s + 1.91549269e-1f, q = q * s + 5.03088797e-1f;
    p = p * s + 1.12837914f, q = q * s + 1.0f;
    const floats r = t * p * reciprocal(q), low = r < -1.0f ? splat(-1.0f) : r;
    return low > 1.0f ? splat(1.0f) : low;
#else
    const floats a = absolute(x), s = x * x;
    const floats t = a > 4.0f ? splat(4.0f) : a;
    const floats q = t * t;
    floats far = t * -1.72853470e-5f + 3.83197126e-4f;
    const floats middle = t * -3.88396438e-3f + 2.42546219e-2f;
    far = far * q + middle;
    far = far * t - 1.06777877e-1f;
    far = far * t - 6.34846687e-1f;
    far = far * t - 1.28717512e-1f;
    far = far * t - t;
    far = with_sign(1.0f - exp(far), x);
    floats near = s * -5.96761703e-4f + 4.99119423e-3f;
    near = near * s - 2.67681349e-2f;
    near = near * s + 1.12819925e-1f;
    near = near * s - 3.76125336e-1f;
    near = near * s + 1.28379166e-1f;
    near = near * x + x;
    return a > 0.927734375f ? far : near;
#endif
}

//@ sincos: rounding, per_lane
// Reduction by pi/2 in three parts, then Cephes polynomials; huge angles go to the library.
inline floats sin_quadrant(floats x, int shift) {
    const floats magic = splat(12582912.0f);
    const floats shifted = x * 0.63661977236758134f + magic;
    const floats n = shifted - magic;
    const ints quadrant = (ints)shifted + shift;
    floats r = x - n * 1.5703125f;
    r = r - n * 4.837512969970703125e-4f;
    r = r - n * 7.54978995489188216e-8f;
    const floats z = r * r;
    floats s = z * -1.9515295891e-4f + 8.3321608736e-3f;
    s = (s * z - 1.6666654611e-1f) * z * r + r;
    floats c = z * 2.443315711809948e-5f - 1.388731625493765e-3f;
    c = (c * z + 4.166664568298827e-2f) * (z * z) - 0.5f * z + 1.0f;
    const floats y = (quadrant & 1) != 0 ? c : s;
    return (quadrant & 2) != 0 ? -y : y;
}
inline bool any_beyond(floats x, float limit) {
    const ints beyond = ~(absolute(x) <= limit);
    int32_t found = 0;
    for (int i = 0; i < LANES; ++i) found |= beyond[i];
    return found != 0;
}
inline floats sin(floats x) {
    if (any_beyond(x, 8192.0f)) return per_lane(x, [](float a) { return std::sin(a); });
    const floats y = sin_quadrant(x, 0);
    return absolute(x) < 1e-4f ? x : y;
}
inline floats cos(floats x) {
    if (any_beyond(x, 8192.0f)) return per_lane(x, [](float a) { return std::cos(a); });
    return sin_quadrant(x, 1);
}

//@ sign: vector
inline floats sign(floats x) {
    const floats one = splat(1.0f), zero = splat(0.0f);
    return x > 0.0f ? one : (x < 0.0f ? -one : (x == 0.0f ? zero : x));
}

//@ float_division: rounding, per_lane
inline floats floor_divide(floats a, floats b) { return floor(a / b); }
inline floats floor_mod(floats a, floats b) {
    const floats rest = per_lane(a, b, [](float x, float y) { return std::fmod(x, y); });
    return (rest != 0.0f) & ((rest < 0.0f) != (b < 0.0f)) ? rest + b : rest;
}

//@ floor_division
inline int64_t floor_quotient(int64_t a, int64_t b) {
    const int64_t q = a / b;
    return q - (a % b != 0 && (a < 0) != (b < 0));
}
inline int64_t floor_rest(int64_t a, int64_t b) { return a - floor_quotient(a, b) * b; }
