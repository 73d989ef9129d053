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

// x/2 erfc(-x / sqrt 2) by Abramowitz and Stegun 7.1.26: the complement keeps its digits on the negative side.
__device__ __forceinline__ float half_gelu_erf(float x)
{
    const float z = fabsf(x) * 0.70710678f;
    const float t = rcp_approx_ftz_f32(1.0f + 0.3275911f * z);
    const float p = t * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
    const float c = 0.5f * p * __expf(-z * z);  // half the complement of erf(z)
    const float tail = fabsf(x) * c;
    return x != x ? x : (x > 0.0f ? x : 0.0f) - (z < 6.0f ? tail : 0.0f);
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
