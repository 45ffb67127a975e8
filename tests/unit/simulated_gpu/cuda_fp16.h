#pragma once
#include "cuda_runtime.h"
typedef f16 __half;
inline __half __float2half_rn(float value) { return from_float<f16>(value); }
inline float __half2float(__half value) { return to_float(value); }
inline unsigned short __half_as_ushort(__half value) { return value.bits; }
inline __half __ushort_as_half(unsigned short bits) { return {bits}; }
