// types.cuh — element types, compute types, conversions and vector accesses. Includes no toolkit header.
//
// Element types   float double f16 bf16 i8 u8 i16 u16 i32 u32 i64 u64 bool (one byte): what lies in memory.
// Small types     i4 u4 i2 u2 f8e4m3fn f8e4m3fnuz f8e5m2 f8e5m2fnuz f4e2m1 f8e8m0: structs of one byte, which are moved
//                 and, with common/small.cuh, converted; a small integer is its value, sign-extended.
// Compute<T>      what scalar code works in: float for f16 and bf16, else the element type itself.
// Acc<T>          what sums are kept in: float for f16, bf16 and float; double for double; i64 or u64 for integers.
// to_compute(x), from_compute<T>(x)   between memory and compute type; rounding is to nearest, ties to even.
// to_acc<A>(x), from_acc<T>(x)        between memory and accumulator type; integers wrap.
// load_vec<N>(r, g) store_vec<N>(g, r)   N elements as one access of N*sizeof(T) bytes, a power of two up to 16 (or
//                 several of 16); g must be aligned to that.
#pragma once
#include "common/ptx.cuh"

typedef signed char i8;
typedef unsigned char u8;
typedef short i16;
typedef unsigned short u16;
typedef int i32;
typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;

struct f16 { u16 bits; };
struct bf16 { u16 bits; };
struct i4 { i8 bits; };
struct u4 { u8 bits; };
struct i2 { i8 bits; };
struct u2 { u8 bits; };
struct f8e4m3fn { u8 bits; };
struct f8e4m3fnuz { u8 bits; };
struct f8e5m2 { u8 bits; };
struct f8e5m2fnuz { u8 bits; };
struct f4e2m1 { u8 bits; };
struct f8e8m0 { u8 bits; };

#define DEVICE __device__ __forceinline__

#define INFINITY_F32 __int_as_float(0x7f800000)
#define NAN_F32 __int_as_float(0x7fffffff)

DEVICE float bf16_to_float(u16 bits) { return __uint_as_float((u32)bits << 16); }

DEVICE u16 float_to_bf16(float x)
{
#if __CUDA_ARCH__ >= 800
    return cvt_rn_bf16_f32(x);
#else
    u32 b = __float_as_uint(x);
    if ((b & 0x7fffffffu) > 0x7f800000u) return (u16)((b >> 16) | 0x40u);  // NaN stays NaN
    return (u16)((b + 0x7fffu + ((b >> 16) & 1u)) >> 16);
#endif
}

template <class T> struct Compute { typedef T type; };
template <> struct Compute<f16> { typedef float type; };
template <> struct Compute<bf16> { typedef float type; };

template <class T> struct Acc { typedef i64 type; };
template <> struct Acc<u64> { typedef u64 type; };
template <> struct Acc<f16> { typedef float type; };
template <> struct Acc<bf16> { typedef float type; };
template <> struct Acc<float> { typedef float type; };
template <> struct Acc<double> { typedef double type; };

template <class T> DEVICE T to_compute(T x) { return x; }
DEVICE float to_compute(f16 x) { return cvt_f32_f16(x.bits); }
DEVICE float to_compute(bf16 x) { return bf16_to_float(x.bits); }

// To float, rounded to odd: an inexact result has its last bit set, so that rounding it once more to a half type gives
// the nearest number of that type.
DEVICE float float_odd(float r, bool exact) { return exact ? r : __int_as_float(__float_as_int(r) | 1); }
DEVICE float round_odd(double x)
{
    const float r = __double2float_rz(x);
    return float_odd(r, (double)r == x || x != x);
}
DEVICE float round_odd(i64 x) { const float r = __ll2float_rz(x); return float_odd(r, (i64)r == x); }
DEVICE float round_odd(u64 x) { const float r = __ull2float_rz(x); return float_odd(r, (u64)r == x); }
DEVICE float round_odd(i32 x) { const float r = __int2float_rz(x); return float_odd(r, (i32)r == x); }
DEVICE float round_odd(u32 x) { const float r = __uint2float_rz(x); return float_odd(r, (u32)r == x); }
template <class T> DEVICE float round_odd(T x) { return (float)x; }  // fits

// Overloads on a tag, so that one name serves every destination.
template <class T> struct Tag {};
template <class T, class C> DEVICE T from_compute_as(Tag<T>, C x) { return (T)x; }
template <class C> DEVICE f16 from_compute_as(Tag<f16>, C x) { return f16{cvt_rn_f16_f32(round_odd(x))}; }
DEVICE f16 from_compute_as(Tag<f16>, double x) { return f16{cvt_rn_f16_f64(x)}; }
template <class C> DEVICE bf16 from_compute_as(Tag<bf16>, C x) { return bf16{float_to_bf16(round_odd(x))}; }

template <class T, class C> DEVICE T from_compute(C x) { return from_compute_as(Tag<T>(), x); }
template <class A, class T> DEVICE A to_acc(T x) { return (A)to_compute(x); }
template <class T, class A> DEVICE T from_acc(A x) { return from_compute_as(Tag<T>(), x); }

template <class T> DEVICE float to_float(T x) { return (float)to_compute(x); }
template <class T> DEVICE T from_float(float x) { return from_compute_as(Tag<T>(), x); }

// What one access of BYTES moves.
template <int BYTES> struct Raw;
template <> struct Raw<1> { typedef u8 type; };
template <> struct Raw<2> { typedef u16 type; };
template <> struct Raw<4> { typedef u32 type; };
template <> struct Raw<8> { typedef uint2 type; };
template <> struct Raw<16> { typedef uint4 type; };

template <int N, class T> struct VecAccess
{
    static constexpr int BYTES = N * (int)sizeof(T) < 16 ? N * (int)sizeof(T) : 16;
    static constexpr int COUNT = N * (int)sizeof(T) / BYTES;
    static_assert(COUNT * BYTES == N * (int)sizeof(T), "a vector is 1, 2, 4, 8 or a multiple of 16 bytes");
    typedef typename Raw<BYTES>::type raw;
    union Bits
    {
        raw r[COUNT];
        T v[N];
    };
};

template <int N, class T> DEVICE void load_vec(T (&r)[N], const T* g)
{
    typedef VecAccess<N, T> V;
    typename V::Bits b;
#pragma unroll
    for (int i = 0; i < V::COUNT; i++) b.r[i] = ((const typename V::raw*)g)[i];
#pragma unroll
    for (int i = 0; i < N; i++) r[i] = b.v[i];
}

template <int N, class T> DEVICE void store_vec(T* g, const T (&r)[N])
{
    typedef VecAccess<N, T> V;
    typename V::Bits b;
#pragma unroll
    for (int i = 0; i < N; i++) b.v[i] = r[i];
#pragma unroll
    for (int i = 0; i < V::COUNT; i++) ((typename V::raw*)g)[i] = b.r[i];
}

// True where N elements may be accessed at p as one vector.
template <int N, class T> DEVICE bool is_aligned(const T* p)
{
    return ((u64)p & (u64)(VecAccess<N, T>::BYTES - 1)) == 0;
}

DEVICE u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }
