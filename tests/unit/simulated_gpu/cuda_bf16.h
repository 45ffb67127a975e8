#pragma once
#include "cuda_runtime.h"
typedef bf16 __nv_bfloat16;
inline __nv_bfloat16 __float2bfloat16_rn(float value) { return from_float<bf16>(value); }
inline float __bfloat162float(__nv_bfloat16 value) { return to_float(value); }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 value) { return value.bits; }
