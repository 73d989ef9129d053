// pointwise.cu — a generated scalar expression over whole tensors:  out_j[i] = body(in_0[i], .., in_n[i]).j
// Args     in0..: T_IN<i> · out0..: T_OUT<j>, dense, all of one shape (may alias an input of the same size that is read at
//          the same index) · then MODE_FLAT: n: i64 elements · MODE_STRIDED: shape: Shape of the output, strides: N_IN
//          times Strides (a 64-bit struct of N_IN*8). Types and count are in the generated text:
//              #define N_IN 0..12        #define N_OUT 1..4       T_IN0.. T_OUT0.. element types
//              DEVICE void body(C_IN0 a0, .., C_OUT0& r0, ..)     C_* is Compute<T_*>::type: float for f16 and bf16
//          The names of common/math.cuh (namespace op) are at hand.
// Params   THREADS {128,256,512} · VEC {1,2,4,8,16} elements per thread and step · MODE {MODE_FLAT 0, MODE_STRIDED 1} ·
//          MODE_FLAT: SCALAR_MASK bit i: input i is one element, read for every index ·
//          MODE_STRIDED: RANK {1..8}, INDEX64 {0,1}, INNER_MASK bit i: input i has innermost stride 1 (used if VEC > 1)
// Requires VEC times the size of the widest type <= 64 · MODE_STRIDED with VEC > 1: innermost size % VEC == 0, each input's
//          innermost stride 1 or 0 as INNER_MASK says (host checks). Alignment is looked at in the kernel.
// Launch   grid = min(ceil(n / (THREADS*VEC)), some multiple of the processors; the kernel strides) · block = THREADS · smem = 0
// Numerics compute types as above, one rounding at the store
// Notes    index arithmetic is one multiply-high per dimension and thread, shared by all inputs (common/index.cuh)
#ifndef THREADS
#error "THREADS is not defined"
#endif
#ifndef VEC
#error "VEC is not defined"
#endif
#ifndef MODE
#error "MODE is not defined"
#endif
#define MODE_FLAT 0
#define MODE_STRIDED 1
#if MODE == MODE_FLAT
#ifndef SCALAR_MASK
#error "SCALAR_MASK is not defined"
#endif
#ifndef INDEX64
#define INDEX64 1
#endif
#else
#ifndef RANK
#error "RANK is not defined"
#endif
#ifndef INNER_MASK
#error "INNER_MASK is not defined"
#endif
#endif
#include "common/index.cuh"
#include "common/math.cuh"
#include "generated.cuh"

// Lists over the operands: FOR_IN(X) is X(0) X(1) .. X(N_IN-1).
#define LIST_0(X)
#define LIST_1(X) X(0)
#define LIST_2(X) LIST_1(X) X(1)
#define LIST_3(X) LIST_2(X) X(2)
#define LIST_4(X) LIST_3(X) X(3)
#define LIST_5(X) LIST_4(X) X(4)
#define LIST_6(X) LIST_5(X) X(5)
#define LIST_7(X) LIST_6(X) X(6)
#define LIST_8(X) LIST_7(X) X(7)
#define LIST_9(X) LIST_8(X) X(8)
#define LIST_10(X) LIST_9(X) X(9)
#define LIST_11(X) LIST_10(X) X(10)
#define LIST_12(X) LIST_11(X) X(11)
#define LIST_OF(n) LIST_JOIN(n)
#define LIST_JOIN(n) LIST_##n
#define FOR_IN(X) LIST_OF(N_IN)(X)
#define FOR_OUT(X) LIST_OF(N_OUT)(X)

static_assert(N_IN <= 12 && N_OUT >= 1 && N_OUT <= 4, "at most 12 inputs and 4 outputs");

#define IN_PARAM(i) const T_IN##i* in##i,
#define OUT_PARAM(j) T_OUT##j* out##j,
#define IN_ARG(i) to_compute(r_in##i[v]),
#define IN_DECLARE(i) T_IN##i r_in##i[VEC];
#define OUT_DECLARE(j) T_OUT##j r_out##j[VEC];
#define OUT_RESULT(j) Compute<T_OUT##j>::type r##j;
#define OUT_ROUND(j) r_out##j[v] = from_compute<T_OUT##j>(r##j);
#define OUT_ARGS_1 r0
#define OUT_ARGS_2 r0, r1
#define OUT_ARGS_3 r0, r1, r2
#define OUT_ARGS_4 r0, r1, r2, r3
#define OUT_ARGS_JOIN(n) OUT_ARGS_##n
#define OUT_ARGS_OF(n) OUT_ARGS_JOIN(n)

struct InputStrides
{
    Strides in[N_IN > 0 ? N_IN : 1];
};

// `vector`: the address is aligned and all VEC elements are there; else `count` elements go one by one.
template <class T> DEVICE void read(T (&r)[VEC], const T* g, bool vector, int count)
{
    if (vector) {
        load_vec<VEC>(r, g);
    } else {
#pragma unroll
        for (int v = 0; v < VEC; v++) {
            if (v < count) r[v] = g[v];
            else r[v] = T{};
        }
    }
}

template <class T> DEVICE void write(T* g, const T (&r)[VEC], bool vector, int count)
{
    if (vector) {
        store_vec<VEC>(g, r);
    } else {
#pragma unroll
        for (int v = 0; v < VEC; v++)
            if (v < count) g[v] = r[v];
    }
}

template <class T> DEVICE void splat(T (&r)[VEC], T x)
{
#pragma unroll
    for (int v = 0; v < VEC; v++) r[v] = x;
}

extern "C" __global__ void __launch_bounds__(THREADS) KERNEL_NAME(FOR_IN(IN_PARAM) FOR_OUT(OUT_PARAM)
#if MODE == MODE_FLAT
    const i64 n)
#else
    const Shape shape, const InputStrides strides)
#endif
{
    griddepcontrol_wait();
#if MODE == MODE_STRIDED
    i64 n = 1;
#pragma unroll
    for (int d = 0; d < RANK; d++) n *= shape.size[d];
#endif
    FOR_IN(IN_DECLARE)
    bool aligned = true;
#define OUT_ALIGNED(j) aligned = aligned && is_aligned<VEC>(out##j);
    FOR_OUT(OUT_ALIGNED)
#if MODE == MODE_FLAT
#define IN_ALIGNED(i) if (!(SCALAR_MASK >> i & 1)) aligned = aligned && is_aligned<VEC>(in##i); else splat(r_in##i, in##i[0]);
    FOR_IN(IN_ALIGNED)
#endif
    const i64 step = (i64)gridDim.x * THREADS * VEC;
    for (i64 at = ((i64)blockIdx.x * THREADS + threadIdx.x) * VEC; at < n; at += step) {
        const int count = n - at < VEC ? (int)(n - at) : VEC;
        const bool vector = aligned && count == VEC;
#if MODE == MODE_FLAT
#define IN_READ(i) if (!(SCALAR_MASK >> i & 1)) read(r_in##i, in##i + at, vector, count);
#else
        i32 coord[RANK];
        unravel<RANK>(coord, (Index)at, shape);
#define IN_READ(i)                                                                                            \
    {                                                                                                         \
        const T_IN##i* g = in##i + offset_of<RANK>(coord, strides.in[i].s);                                   \
        if (VEC > 1 && (INNER_MASK >> i & 1)) read(r_in##i, g, is_aligned<VEC>(g), VEC);                      \
        else splat(r_in##i, *g);                                                                              \
    }
#endif
        FOR_IN(IN_READ)
        FOR_OUT(OUT_DECLARE)
#pragma unroll
        for (int v = 0; v < VEC; v++) {
            FOR_OUT(OUT_RESULT)
            body(FOR_IN(IN_ARG) OUT_ARGS_OF(N_OUT));
            FOR_OUT(OUT_ROUND)
        }
#define OUT_WRITE(j) write(out##j + at, r_out##j, vector, count);
        FOR_OUT(OUT_WRITE)
    }
}
