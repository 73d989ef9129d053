// requant.cuh — the last step of products of 8-bit integers.
//
// OUT_I32, OUT_F32, OUT_QUANT   what the output holds: the sum, f32(sum) * scale + bias, or that rounded and saturated.
// product_scale(alpha, x, w)    alpha * x * w, each operation rounded to f32 as on the CPU.
// finish(sum, scale, zero, bias)   one output element.
// with_zeros(...)               a sum of products less what the zero points add.
#pragma once
#include "common/types.cuh"

#define OUT_I32 0
#define OUT_F32 1
#define OUT_QUANT 2

#if OUT == OUT_I32
typedef i32 T_OUT;
#elif OUT == OUT_F32
typedef float T_OUT;
#else
typedef T_ZERO T_OUT;
#endif

// A bias of whole numbers is added to the sum, one of floats to the scaled result.
constexpr bool WHOLE_BIAS = T_BIAS(0.5f) == T_BIAS(0);

DEVICE float product_scale(float alpha, float x, float w)
{
    return __fmul_rn(__fmul_rn(alpha, x), w);
}

DEVICE T_OUT finish([[maybe_unused]] i32 sum, [[maybe_unused]] float scale, [[maybe_unused]] i32 zero, [[maybe_unused]] float bias)
{
#if OUT == OUT_I32
    return sum;
#elif OUT == OUT_F32
    return __fadd_rn(__fmul_rn((float)sum, scale), bias);
#else
    const i32 low = T_ZERO(-1) < T_ZERO(0) ? -128 : 0;
    const float v = fminf(fmaxf(__fmul_rn((float)sum, scale), (float)(low - zero)), (float)(low + 255 - zero));
    return (T_OUT)(__float2int_rn(v) + zero);
#endif
}

// The sum of (a - az)(b - bz) from the sum of a b: wraps as the sum does.
DEVICE i32 with_zeros(i32 ab, i32 k, i32 az, i32 bz, i32 a_sum, i32 b_sum)
{
    return (i32)((u32)ab - (u32)az * (u32)b_sum - (u32)bz * (u32)a_sum + (u32)k * (u32)az * (u32)bz);
}
