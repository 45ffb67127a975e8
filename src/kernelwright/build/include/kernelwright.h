// Element types of the kernel ABI: the same file for C++17 and CUDA.
//
// Tensors are contiguous, row-major and aligned to 64 bytes. The narrow floating types are plain
// structs around their bits, so that they mean the same under every compiler; convert with
// to_float and from_float (round to nearest, ties to even; NaN stays NaN).
#pragma once

#include <stdint.h>
#include <string.h>

#if defined(__CUDACC__)
#define KERNELWRIGHT_INLINE __host__ __device__ static inline
#else
#define KERNELWRIGHT_INLINE static inline
#endif

struct bf16 { uint16_t bits; };
struct f16 { uint16_t bits; };
struct f8e4m3 { uint8_t bits; };  // 4 exponent bits, bias 7, no infinity, NaN is S.1111.111; saturates
struct f8e5m2 { uint8_t bits; };  // 5 exponent bits, bias 15, infinities as in IEEE formats

KERNELWRIGHT_INLINE uint32_t kernelwright_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

KERNELWRIGHT_INLINE float kernelwright_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

// A small IEEE-like format (sign, E exponent bits, M mantissa bits) to float, exactly.
template <int E, int M, bool has_infinity>
KERNELWRIGHT_INLINE float kernelwright_widen(uint32_t v) {
    const uint32_t sign = (v >> (E + M)) << 31;
    const uint32_t exponent = (v >> M) & ((1u << E) - 1);
    const uint32_t mantissa = v & ((1u << M) - 1);
    const int bias = (1 << (E - 1)) - 1;
    if (has_infinity && exponent == (1u << E) - 1)
        return kernelwright_float(sign | 0x7f800000u | (mantissa << (23 - M)));
    if (!has_infinity && exponent == (1u << E) - 1 && mantissa == (1u << M) - 1)
        return kernelwright_float(sign | 0x7fc00000u);
    if (exponent == 0) {  // zero or subnormal: mantissa * 2^(1 - bias - M), a normal float
        const float scale = kernelwright_float((uint32_t)(127 + 1 - bias - M) << 23);
        return kernelwright_float(sign | kernelwright_bits((float)mantissa * scale));
    }
    return kernelwright_float(sign | ((exponent + 127 - bias) << 23) | (mantissa << (23 - M)));
}

// Float to a small format, to nearest, ties to even. Without infinities, too large saturates.
template <int E, int M, bool has_infinity>
KERNELWRIGHT_INLINE uint32_t kernelwright_narrow(float x) {
    const uint32_t bits = kernelwright_bits(x);
    const uint32_t sign = (bits >> 31) << (E + M);
    const uint32_t magnitude = bits & 0x7fffffffu;
    const int bias = (1 << (E - 1)) - 1;
    const uint32_t infinity = ((1u << E) - 1) << M;
    const uint32_t nan = has_infinity ? infinity | (1u << (M - 1)) : (1u << (E + M)) - 1;
    const uint32_t largest = has_infinity ? infinity - 1 : nan - 1;
    if (magnitude > 0x7f800000u) return sign | nan;
    const int exponent = (int)(magnitude >> 23) - 127;
    // Bits that fall off: 23 - M for a normal result, one more per step below the least exponent.
    const int below = 1 - bias - exponent;
    const int shift = 23 - M + (below > 0 ? below : 0);
    if (shift > 24) return sign;
    uint32_t kept = magnitude & 0x7fffffu;
    if (magnitude >= 0x00800000u) kept |= 0x800000u;
    uint32_t result = kept >> shift;
    const uint32_t rest = kept & ((1u << shift) - 1), half = 1u << (shift - 1);
    if (rest > half || (rest == half && (result & 1))) result += 1;  // may carry into the exponent
    if (below <= 0) result += (uint32_t)(exponent + bias - 1) << M;
    if (result > largest) return sign | (has_infinity ? infinity : largest);
    return sign | result;
}

KERNELWRIGHT_INLINE float to_float(float x) { return x; }
KERNELWRIGHT_INLINE float to_float(bf16 x) { return kernelwright_float((uint32_t)x.bits << 16); }
KERNELWRIGHT_INLINE float to_float(f16 x) {
#if defined(__CUDA_ARCH__)
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(x.bits));
    return wide;
#else
    return kernelwright_widen<5, 10, true>(x.bits);
#endif
}
KERNELWRIGHT_INLINE float to_float(f8e4m3 x) { return kernelwright_widen<4, 3, false>(x.bits); }
KERNELWRIGHT_INLINE float to_float(f8e5m2 x) { return kernelwright_widen<5, 2, true>(x.bits); }

KERNELWRIGHT_INLINE void from_float(float x, float* out) { *out = x; }
KERNELWRIGHT_INLINE void from_float(float x, bf16* out) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(out->bits) : "f"(x));
#else
    uint32_t bits = kernelwright_bits(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        bits |= 0x00400000u;
    else
        bits += 0x7fffu + ((bits >> 16) & 1);
    out->bits = (uint16_t)(bits >> 16);
#endif
}
KERNELWRIGHT_INLINE void from_float(float x, f16* out) {
#if defined(__CUDA_ARCH__)
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out->bits) : "f"(x));
#else
    out->bits = (uint16_t)kernelwright_narrow<5, 10, true>(x);
#endif
}
KERNELWRIGHT_INLINE void from_float(float x, f8e4m3* out) {
    out->bits = (uint8_t)kernelwright_narrow<4, 3, false>(x);
}
KERNELWRIGHT_INLINE void from_float(float x, f8e5m2* out) {
    out->bits = (uint8_t)kernelwright_narrow<5, 2, true>(x);
}

// from_float<bf16>(x): the same as a value.
template <typename T>
KERNELWRIGHT_INLINE T from_float(float x) {
    T out;
    from_float(x, &out);
    return out;
}
