// half_math.cuh — functions of floats whose results are rounded to f16 or bf16: names op::half_*, called by generated code
// where a register is of a half type.
//
// Numerics  relative error below 2^-16 (an f16 has 2^-12 at best), or an error below 1e-7; infinities give the limit, results
//           below the normal numbers of float are 0. No branch, two special
//           functions at most.
#pragma once
#include "common/ptx.cuh"

namespace op {

__device__ __forceinline__ float half_exp(float x) { return __expf(x); }
__device__ __forceinline__ float half_div(float a, float b) { return __fdividef(a, b); }
__device__ __forceinline__ float half_reciprocal(float x) { return rcp_approx_ftz_f32(x); }
__device__ __forceinline__ float half_sigmoid(float x) { return rcp_approx_ftz_f32(1.0f + __expf(-x)); }
__device__ __forceinline__ float half_silu(float x) { return x * half_sigmoid(x); }

// 1 - 2 / (1 + exp 2x) cancels near zero, where the odd series takes over.
__device__ __forceinline__ float half_tanh(float x)
{
    const float s = x * x;
    const float near = x + x * s * (-0.33333333f + s * (0.13333333f + s * (-0.05396825f + s * 0.02186949f)));
    const float far = 1.0f - 2.0f * rcp_approx_ftz_f32(1.0f + __expf(2.0f * x));
    return s < 0.16f ? near : far;
}

// max(x, 0) - |x|/2 erfc(|x| / sqrt 2), where exp(x^2 / 2) erfc(..) / 2 is t times a polynomial in t = 1 / (1 + 0.305 |x|), to
// 4.4e-6 of its value. 16 instructions: it stands 128 times in the epilogues of products.
__device__ __forceinline__ float half_gelu_erf(float x)
{
    const float a = fminf(fabsf(x), 16.0f), t = rcp_approx_ftz_f32(1.0f + 0.305f * a);
    const float p = 0.12199966f + t * (0.11674136f + t * (0.14026251f + t * (-0.00344785f + t * (0.2012029f + t * -0.07675703f))));
    const float s = 0.84932180f * a;  // sqrt(log2(e) / 2)
    return (x < 0.0f ? 0.0f : x) - p * (a * t) * ex2_approx_ftz_f32(-s * s);
}

// x sigmoid(2u) is x/2 (1 + tanh u).
__device__ __forceinline__ float half_gelu_tanh(float x)
{
    const float u = 1.5957691216057308f * x * (1.0f + 0.044715f * x * x);
    return x == -__int_as_float(0x7f800000) ? -0.0f : x * half_sigmoid(u);
}

// x tanh(log(1 + e)) with e = exp x is x (e² + 2e) / (e² + 2e + 2).
__device__ __forceinline__ float half_mish(float x)
{
    const float e = __expf(x), n = e * (e + 2.0f);
    return x > 15.0f ? x : x * n * rcp_approx_ftz_f32(n + 2.0f);
}

}  // namespace op
