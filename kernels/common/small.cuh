// small.cuh — the small element types: integers of 4 and 2 bits, floats of 8 and 4 bits.
//
// small_value(x)          the number: i32 for the integers, float for the floats (exact); other types pass unchanged
// small_from<To, ROUNDING>(x) from float, double, any integer or bool: floats rounded once, to nearest, ties to even; integers
//                         truncated, low bits kept, what is not finite becomes 0
//
// ROUNDING   bit 0: an 8-bit float that is out of range becomes an infinity or NaN instead of the largest number ·
//        bits 1-2, for f8e8m0: 0 up (away from zero), 1 down, 2 nearest with ties up   [base/small.rs::CastMode]
// Notes  the same arithmetic as base/small.rs, to be read there. Bits outside of an element's width are not looked at.
#pragma once
#include "common/types.cuh"

template <class T> struct IsSmall { static constexpr bool value = false; };
template <> struct IsSmall<i4> { static constexpr bool value = true; };
template <> struct IsSmall<u4> { static constexpr bool value = true; };
template <> struct IsSmall<i2> { static constexpr bool value = true; };
template <> struct IsSmall<u2> { static constexpr bool value = true; };
template <> struct IsSmall<f8e4m3fn> { static constexpr bool value = true; };
template <> struct IsSmall<f8e4m3fnuz> { static constexpr bool value = true; };
template <> struct IsSmall<f8e5m2> { static constexpr bool value = true; };
template <> struct IsSmall<f8e5m2fnuz> { static constexpr bool value = true; };
template <> struct IsSmall<f4e2m1> { static constexpr bool value = true; };
template <> struct IsSmall<f8e8m0> { static constexpr bool value = true; };

// What an overflow and NaN become.
#define SMALL_IEEE 0
#define SMALL_FN 1
#define SMALL_FNUZ 2
#define SMALL_FINITE 3

// 2^e for exponents of normal numbers.
DEVICE float power_of_two(float, int e) { return __int_as_float((e + 127) << 23); }
DEVICE double power_of_two(double, int e) { return __longlong_as_double((i64)(e + 1023) << 52); }
DEVICE bool sign_of(float x) { return __float_as_int(x) < 0; }
DEVICE bool sign_of(double x) { return __double_as_longlong(x) < 0; }
DEVICE int exponent_of(float x) { return (int)(__float_as_uint(x) >> 23 & 255) - 127; }
DEVICE int exponent_of(double x) { return (int)((u64)__double_as_longlong(x) >> 52 & 2047) - 1023; }
DEVICE float magnitude_of(float x) { return ::fabsf(x); }
DEVICE double magnitude_of(double x) { return ::fabs(x); }
DEVICE float nearest_even(float x) { return ::rintf(x); }
DEVICE double nearest_even(double x) { return ::rint(x); }

template <int EXPONENT, int MANTISSA, int BIAS, int SPECIAL> struct SmallFloat
{
    static constexpr u32 SIGN = 1u << (EXPONENT + MANTISSA);
    static constexpr u32 LARGEST = SPECIAL == SMALL_IEEE ? (((1u << EXPONENT) - 1) << MANTISSA) - 1
                                   : SPECIAL == SMALL_FN ? SIGN - 2 : SIGN - 1;
    static constexpr u32 NAN_CODE = SPECIAL == SMALL_IEEE ? ((SIGN - 1) & ~((1u << (MANTISSA - 1)) - 1))
                                    : SPECIAL == SMALL_FN ? SIGN - 1 : SIGN;

    template <class F> static DEVICE u8 encode(F v, bool saturate)
    {
        const u32 sign = sign_of(v) ? SIGN : 0u;
        if (v != v) return (u8)(NAN_CODE | sign);
        const int low = 1 - BIAS;
        const F a = magnitude_of(v);
        const int e = exponent_of(a) > low ? exponent_of(a) : low;
        u32 code = 0xffffffffu;
        if (e <= BIAS + 1) {
            code = (u32)nearest_even(a * power_of_two(a, MANTISSA - e)) + ((u32)(e - low) << MANTISSA);
        }
        if (SPECIAL == SMALL_FNUZ && code == 0) return 0;
        if (code <= LARGEST) return (u8)(code | sign);
        if (saturate || SPECIAL == SMALL_FINITE) return (u8)(LARGEST | sign);
        if (SPECIAL == SMALL_IEEE) return (u8)((LARGEST + 1) | sign);
        return (u8)(NAN_CODE | sign);
    }

    static DEVICE float decode(u32 code)
    {
        const u32 mag = code & (SIGN - 1);
        const bool negative = code & SIGN;
        if (SPECIAL == SMALL_FNUZ && negative && mag == 0) return NAN_F32;
        if (mag > LARGEST) {
            if (SPECIAL == SMALL_IEEE && mag == LARGEST + 1) return negative ? -INFINITY_F32 : INFINITY_F32;
            return NAN_F32;
        }
        const int field = (int)(mag >> MANTISSA);
        const u32 units = (mag & ((1u << MANTISSA) - 1)) | (field ? 1u << MANTISSA : 0u);
        const float v = (float)units * power_of_two(0.0f, (field ? field : 1) - BIAS - MANTISSA);
        return negative ? -v : v;
    }
};

typedef SmallFloat<4, 3, 7, SMALL_FN> F8E4M3FN;
typedef SmallFloat<4, 3, 8, SMALL_FNUZ> F8E4M3FNUZ;
typedef SmallFloat<5, 2, 15, SMALL_IEEE> F8E5M2;
typedef SmallFloat<5, 2, 16, SMALL_FNUZ> F8E5M2FNUZ;
typedef SmallFloat<2, 1, 1, SMALL_FINITE> F4E2M1;

DEVICE u8 encode_power(double v, int mode)
{
    if (v != v || v < 0) return 255;
    const u64 bits = (u64)__double_as_longlong(v);
    const u64 mantissa = bits & 0xfffffffffffffull;
    const int round = mode >> 1;
    const bool up = round == 0 ? mantissa != 0 : round == 2 ? mantissa >> 51 == 1 : false;
    const int code = exponent_of(v) + 127 + (up ? 1 : 0);
    const bool saturate = !(mode & 1);
    if (v < power_of_two(v, -127)) return saturate ? 0 : 255;
    if (code > 254) return saturate ? 254 : 255;
    return (u8)code;
}

DEVICE float decode_power(u8 code)
{
    if (code == 255) return NAN_F32;
    return code ? __int_as_float((int)code << 23) : __int_as_float(1 << 22);  // 2^-127 is subnormal
}

template <class T> DEVICE T small_value(T x) { return x; }
DEVICE i32 small_value(i4 x) { return (i32)((u32)x.bits << 28) >> 28; }
DEVICE i32 small_value(i2 x) { return (i32)((u32)x.bits << 30) >> 30; }
DEVICE i32 small_value(u4 x) { return x.bits & 15; }
DEVICE i32 small_value(u2 x) { return x.bits & 3; }
DEVICE float small_value(f8e4m3fn x) { return F8E4M3FN::decode(x.bits); }
DEVICE float small_value(f8e4m3fnuz x) { return F8E4M3FNUZ::decode(x.bits); }
DEVICE float small_value(f8e5m2 x) { return F8E5M2::decode(x.bits); }
DEVICE float small_value(f8e5m2fnuz x) { return F8E5M2FNUZ::decode(x.bits); }
DEVICE float small_value(f4e2m1 x) { return F4E2M1::decode(x.bits & 15); }
DEVICE float small_value(f8e8m0 x) { return decode_power(x.bits); }

// What small integers are made of: the low bits matter. A cast of a float beyond the range saturates in 64 bits.
template <class T> DEVICE u32 small_low(T x) { return (u32)x; }
DEVICE u32 small_low(double x) { return magnitude_of(x) < __longlong_as_double(0x7ff0000000000000ll) ? (u32)__double2ll_rz(x) : 0u; }
DEVICE u32 small_low(float x) { return small_low((double)x); }

// What small floats are made of.
template <class T> DEVICE double small_wide(T x) { return (double)x; }
DEVICE float small_wide(float x) { return x; }
DEVICE double small_exact(double x) { return x; }
DEVICE double small_exact(float x) { return x; }
template <class T> DEVICE double small_exact(T x) { return (double)x; }
// Rounded to odd, since a power of two is decided by whether anything is left below.
DEVICE double small_exact(i64 x)
{
    const double r = __ll2double_rz(x);
    return (i64)r == x ? r : __longlong_as_double(__double_as_longlong(r) | 1);
}
DEVICE double small_exact(u64 x)
{
    const double r = __ull2double_rz(x);
    return (u64)r == x ? r : __longlong_as_double(__double_as_longlong(r) | 1);
}

template <int ROUNDING, class T> DEVICE i4 small_make(Tag<i4>, T x) { return i4{(i8)((i32)(small_low(x) << 28) >> 28)}; }
template <int ROUNDING, class T> DEVICE i2 small_make(Tag<i2>, T x) { return i2{(i8)((i32)(small_low(x) << 30) >> 30)}; }
template <int ROUNDING, class T> DEVICE u4 small_make(Tag<u4>, T x) { return u4{(u8)(small_low(x) & 15)}; }
template <int ROUNDING, class T> DEVICE u2 small_make(Tag<u2>, T x) { return u2{(u8)(small_low(x) & 3)}; }
template <int ROUNDING, class T> DEVICE f8e4m3fn small_make(Tag<f8e4m3fn>, T x)
{
    return f8e4m3fn{F8E4M3FN::encode(small_wide(x), !(ROUNDING & 1))};
}
template <int ROUNDING, class T> DEVICE f8e4m3fnuz small_make(Tag<f8e4m3fnuz>, T x)
{
    return f8e4m3fnuz{F8E4M3FNUZ::encode(small_wide(x), !(ROUNDING & 1))};
}
template <int ROUNDING, class T> DEVICE f8e5m2 small_make(Tag<f8e5m2>, T x)
{
    return f8e5m2{F8E5M2::encode(small_wide(x), !(ROUNDING & 1))};
}
template <int ROUNDING, class T> DEVICE f8e5m2fnuz small_make(Tag<f8e5m2fnuz>, T x)
{
    return f8e5m2fnuz{F8E5M2FNUZ::encode(small_wide(x), !(ROUNDING & 1))};
}
template <int ROUNDING, class T> DEVICE f4e2m1 small_make(Tag<f4e2m1>, T x)
{
    return f4e2m1{F4E2M1::encode(small_wide(x), true)};
}
template <int ROUNDING, class T> DEVICE f8e8m0 small_make(Tag<f8e8m0>, T x)
{
    return f8e8m0{encode_power(small_exact(x), ROUNDING)};
}
template <class To, int ROUNDING, class T> DEVICE To small_from(T x) { return small_make<ROUNDING>(Tag<To>(), x); }
