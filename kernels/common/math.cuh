// math.cuh — the scalar operators, namespace op, by the names that generated code uses. ONNX meaning, full precision.
//
// Unary float     relu leaky_relu(x,a) prelu(x,a) clip(x,lo,hi) sigmoid tanh exp log sqrt rsqrt reciprocal abs neg floor
//                 ceil round_even sign erf gelu_erf gelu_tanh quick_gelu(x,a) silu swish(x,a) hard_sigmoid(x,a,b)
//                 hard_swish elu(x,a) selu(x,a,g) celu(x,a) softplus softsign mish thresholded_relu(x,a)
//                 shrink(x,bias,lambda) sin cos tan asin acos atan sinh cosh asinh acosh atanh square
//                 round_f16 round_bf16 (to that type and back)
// Binary          add sub mul div mod fmod pow min max atan2
// Compare, logic  eq ne lt le gt ge logical_and logical_or logical_xor logical_not is_nan is_inf(x,neg,pos) where(c,a,b)
// Bits            bit_and bit_or bit_xor bit_not shift_left shift_right
// cast_odd(x)     to float, rounded to odd, for a half type later
// cast<To>(x)     (small types: common/small.cuh) float to integer: toward zero, saturating, NaN to 0; integer to integer: wraps; to bool: x != 0
//
// half_*          of floats that become half types: common/half_math.cuh
//
// Numerics  f32 functions are the precise ones (expf, not __expf). min, max, relu and clip propagate NaN. Integer
//           division truncates (div), or takes the divisor's sign (mod); a zero divisor gives 0, never a fault.
#pragma once
#include "common/half_math.cuh"
#include "common/small.cuh"
#include "common/types.cuh"

namespace op {

#define UNARY_FLOAT(name, f32, f64)                         \
    DEVICE float name(float x) { return f32(x); }           \
    DEVICE double name(double x) { return f64(x); }
UNARY_FLOAT(tanh, ::tanhf, ::tanh)
UNARY_FLOAT(exp, ::expf, ::exp)
UNARY_FLOAT(expm1, ::expm1f, ::expm1)
UNARY_FLOAT(log, ::logf, ::log)
UNARY_FLOAT(log1p, ::log1pf, ::log1p)
UNARY_FLOAT(sqrt, ::sqrtf, ::sqrt)
UNARY_FLOAT(erf, ::erff, ::erf)
UNARY_FLOAT(sin, ::sinf, ::sin)
UNARY_FLOAT(cos, ::cosf, ::cos)
UNARY_FLOAT(tan, ::tanf, ::tan)
UNARY_FLOAT(asin, ::asinf, ::asin)
UNARY_FLOAT(acos, ::acosf, ::acos)
UNARY_FLOAT(atan, ::atanf, ::atan)
UNARY_FLOAT(sinh, ::sinhf, ::sinh)
UNARY_FLOAT(cosh, ::coshf, ::cosh)
UNARY_FLOAT(asinh, ::asinhf, ::asinh)
UNARY_FLOAT(acosh, ::acoshf, ::acosh)
UNARY_FLOAT(atanh, ::atanhf, ::atanh)
UNARY_FLOAT(floor_, ::floorf, ::floor)
UNARY_FLOAT(ceil_, ::ceilf, ::ceil)
UNARY_FLOAT(rint_, ::rintf, ::rint)
UNARY_FLOAT(abs_, ::fabsf, ::fabs)
#undef UNARY_FLOAT
DEVICE float pow_(float a, float b) { return ::powf(a, b); }
DEVICE double pow_(double a, double b) { return ::pow(a, b); }
DEVICE float fmod_(float a, float b) { return ::fmodf(a, b); }
DEVICE double fmod_(double a, double b) { return ::fmod(a, b); }
DEVICE float atan2(float a, float b) { return ::atan2f(a, b); }
DEVICE double atan2(double a, double b) { return ::atan2(a, b); }

template <class T> struct IsFloat { static constexpr bool value = false; };
template <> struct IsFloat<float> { static constexpr bool value = true; };
template <> struct IsFloat<double> { static constexpr bool value = true; };

// Rounding and sign operators also take integers, for which rounding is the identity.
template <class T> DEVICE T floor(T x) { if constexpr (IsFloat<T>::value) return floor_(x); else return x; }
template <class T> DEVICE T ceil(T x) { if constexpr (IsFloat<T>::value) return ceil_(x); else return x; }
template <class T> DEVICE T round_even(T x) { if constexpr (IsFloat<T>::value) return rint_(x); else return x; }
template <class T> DEVICE T abs(T x) { if constexpr (IsFloat<T>::value) return abs_(x); else return x < T(0) ? T(-x) : x; }
template <class T> DEVICE T neg(T x) { return T(-x); }
template <class T> DEVICE T square(T x) { return T(x * x); }
template <class T> DEVICE T sign(T x) { return x > T(0) ? T(1) : x < T(0) ? T(-1) : x; }  // zero and NaN stay
template <class T> DEVICE T reciprocal(T x) { return T(1) / x; }
template <class T> DEVICE T rsqrt(T x) { return T(1) / sqrt(x); }

template <class T> DEVICE T max(T a, T b) { return a > b || a != a ? a : b; }
template <class T> DEVICE T min(T a, T b) { return a < b || a != a ? a : b; }
template <class T> DEVICE T relu(T x) { return x < T(0) ? T(0) : x; }
#if __CUDA_ARCH__ >= 800
template <> DEVICE float relu(float x) { return max_nan_f32(x, 0); }
#endif
template <class T> DEVICE T leaky_relu(T x, T a) { return x < T(0) ? T(a * x) : x; }
template <class T> DEVICE T prelu(T x, T a) { return leaky_relu(x, a); }
template <class T> DEVICE T clip(T x, T lo, T hi) { return x < lo ? (hi < lo ? hi : lo) : x > hi ? hi : x; }
template <class T> DEVICE T sigmoid(T x) { return T(1) / (T(1) + exp(-x)); }
template <class T> DEVICE T silu(T x) { return x / (T(1) + exp(-x)); }
template <class T> DEVICE T swish(T x, T a) { return x / (T(1) + exp(-a * x)); }
template <class T> DEVICE T quick_gelu(T x, T a) { return swish(x, a); }
template <class T> DEVICE T gelu_erf(T x) { return T(0.5) * x * (T(1) + erf(x * T(0.70710678118654752440))); }
template <class T> DEVICE T gelu_tanh(T x)
{
    return T(0.5) * x * (T(1) + tanh(T(0.79788456080286535588) * (x + T(0.044715) * x * x * x)));
}
template <class T> DEVICE T hard_sigmoid(T x, T a, T b) { return max(T(0), min(T(1), a * x + b)); }
template <class T> DEVICE T hard_swish(T x) { return x * hard_sigmoid(x, T(1.0 / 6.0), T(0.5)); }
template <class T> DEVICE T elu(T x, T a) { return x < T(0) ? a * expm1(x) : x; }
template <class T> DEVICE T selu(T x, T a, T g) { return g * (x > T(0) ? x : a * expm1(x)); }
template <class T> DEVICE T celu(T x, T a) { return max(T(0), x) + min(T(0), a * expm1(x / a)); }
template <class T> DEVICE T softplus(T x) { return max(x, T(0)) + log1p(exp(-abs(x))); }
template <class T> DEVICE T softsign(T x) { return x / (T(1) + abs(x)); }
template <class T> DEVICE T mish(T x) { return x * tanh(softplus(x)); }
template <class T> DEVICE T thresholded_relu(T x, T a) { return x > a ? x : T(0); }
template <class T> DEVICE T shrink(T x, T bias, T lambda)
{
    const bool is_signed = T(-1) < T(0);  // minus lambda is below every unsigned number
    return is_signed && x < T(-lambda) ? T(x + bias) : x > lambda ? T(x - bias) : T(0);
}
DEVICE float round_f16(float x) { return cvt_f32_f16(cvt_rn_f16_f32(x)); }
DEVICE float round_bf16(float x) { return bf16_to_float(float_to_bf16(x)); }

template <class T> DEVICE T add(T a, T b) { return T(a + b); }
template <class T> DEVICE T sub(T a, T b) { return T(a - b); }
template <class T> DEVICE T mul(T a, T b) { return T(a * b); }
template <class T> DEVICE T div(T a, T b)
{
    if constexpr (IsFloat<T>::value) return a / b;
    else return b == T(0) ? T(0) : T(a / b);
}
// The remainder with the dividend's sign, as in C.
template <class T> DEVICE T fmod(T a, T b)
{
    if constexpr (IsFloat<T>::value) return fmod_(a, b);
    else return b == T(0) ? T(0) : T(a % b);
}
// The remainder with the divisor's sign, as in Python.
template <class T> DEVICE T mod(T a, T b)
{
    T r = fmod(a, b);
    return r != T(0) && (r < T(0)) != (b < T(0)) ? T(r + b) : r;
}
template <class T, class E> DEVICE T pow(T a, E e)
{
    if constexpr (IsFloat<T>::value) return pow_(a, (T)e);
    else if constexpr (IsFloat<E>::value) return (T)pow_((double)a, (double)e);
    else {
        if (e < E(0)) return a == T(1) ? T(1) : a == T(-1) ? (e % 2 ? a : T(1)) : T(0);
        T r = 1;
        for (; e > E(0); e = E(e / 2)) {
            if (e % 2) r = T(r * a);
            a = T(a * a);
        }
        return r;
    }
}

template <class T> DEVICE bool eq(T a, T b) { return a == b; }
template <class T> DEVICE bool ne(T a, T b) { return a != b; }
template <class T> DEVICE bool lt(T a, T b) { return a < b; }
template <class T> DEVICE bool le(T a, T b) { return a <= b; }
template <class T> DEVICE bool gt(T a, T b) { return a > b; }
template <class T> DEVICE bool ge(T a, T b) { return a >= b; }
DEVICE bool logical_and(bool a, bool b) { return a && b; }
DEVICE bool logical_or(bool a, bool b) { return a || b; }
DEVICE bool logical_xor(bool a, bool b) { return a != b; }
DEVICE bool logical_not(bool a) { return !a; }
template <class T> DEVICE bool is_nan(T x) { return x != x; }
template <class T> DEVICE bool is_inf(T x, bool neg, bool pos)
{
    return abs(x) == T(INFINITY_F32) && (x < T(0) ? neg : pos);
}
template <class T> DEVICE T where(bool c, T a, T b) { return c ? a : b; }

template <class T> DEVICE T bit_and(T a, T b) { return T(a & b); }
template <class T> DEVICE T bit_or(T a, T b) { return T(a | b); }
template <class T> DEVICE T bit_xor(T a, T b) { return T(a ^ b); }
template <class T> DEVICE T bit_not(T a) { return T(~a); }
template <class T> DEVICE T shift_left(T a, T b) { return (u64)b >= 8 * sizeof(T) ? T(0) : T(a << b); }
template <class T> DEVICE T shift_right(T a, T b) { return (u64)b >= 8 * sizeof(T) ? T(0) : T(a >> b); }

template <class T> struct Limits
{
    static constexpr bool SIGNED = T(-1) < T(0);
    static constexpr int BITS = 8 * (int)sizeof(T);
    static constexpr T HI = SIGNED ? T((u64(1) << (BITS - 1)) - 1) : T(~u64(0) >> (64 - BITS));
    static constexpr T LO = SIGNED ? T(-HI - 1) : T(0);
};

template <class To, class From> DEVICE To cast_as(Tag<To>, From x)
{
    if constexpr (IsFloat<From>::value && !IsFloat<To>::value) {
        // (From)HI rounds up to a power of two where From cannot hold it; >= is then still right.
        if (x != x) return To(0);
        if (x <= (From)Limits<To>::LO) return Limits<To>::LO;
        if (x >= (From)Limits<To>::HI) return Limits<To>::HI;
        return (To)x;
    } else {
        return (To)x;
    }
}
template <class From> DEVICE bool cast_as(Tag<bool>, From x) { return x != From(0); }
template <class To, class From> DEVICE To cast(From x)
{
    if constexpr (IsSmall<To>::value) return small_from<To, 0>(small_value(x));
    else return cast_as(Tag<To>(), small_value(x));
}
template <class To, int ROUNDING, class From> DEVICE To cast_mode(From x) { return small_from<To, ROUNDING>(small_value(x)); }
template <class From> DEVICE float cast_odd(From x) { return round_odd(x); }

}  // namespace op

// A weighted sum as an element: floats round, integers truncate and saturate, as op::cast has it.
template <class T, class A> DEVICE T weighted_result(A x)
{
    if constexpr (op::IsFloat<typename Compute<T>::type>::value) return from_acc<T>(x);
    else return op::cast<T>(x);
}
