// reduce_columns.cu — a reduction over neighbouring axes with others behind them:  y[o, i] = post(combine over r of pre(x[o, r, i]))
// Args     x: T_IN [outer, n_red, inner] · y: T_OUT [splits, outer, inner] · params: ColumnParams, a 64-bit struct of 4: outer,
//          n_red, inner, count (what REDUCE_MEAN divides by)
// Params   T_IN, T_OUT {float,f16,bf16,double} · OP: the REDUCE_ numbers below · STAGE {0: pre and post, 1: pre alone, T_OUT is
//          the accumulator, 2: post alone, T_IN is the accumulator} · VEC {1,2,4,8} elements of a thread · THREADS {256,1024}
// Requires inner a multiple of VEC, x and y aligned to VEC elements; STAGE 0 and 2: gridDim.y is 1
//          VEC*THREADS accumulators in 48 KB
// Launch   grid = (ceil(inner/VEC/blockDim.x), splits, min(outer, 65535), the kernel strides) · block = (2^a, THREADS/2^a) · smem = 0
// Numerics sums in float (double for double). Rows by threads, then in pairs: fixed order, deterministic. Max, min: NaN
//          propagates
// Notes    neighbouring threads have neighbouring columns: with 8 threads of 16 bytes rows are read in whole lines. Where there
//          are few columns and many rows, splits blocks share them (STAGE 1), and STAGE 2 combines what they found
#define REDUCE_SUM 0
#define REDUCE_MEAN 1
#define REDUCE_MAX 2
#define REDUCE_MIN 3
#define REDUCE_PROD 4
#define REDUCE_SUM_SQUARE 5
#define REDUCE_L1 6
#define REDUCE_L2 7
#if !defined(T_IN) || !defined(T_OUT) || !defined(OP) || !defined(STAGE) || !defined(VEC) || !defined(THREADS)
#error "T_IN, T_OUT, OP, STAGE, VEC or THREADS is not defined"
#endif
#include "common/math.cuh"

typedef Acc<T_IN>::type ACC;

struct ColumnParams
{
    i64 outer, n_red, inner, count;
};

DEVICE ACC identity()
{
#if OP == REDUCE_MAX
    return ACC(-INFINITY_F32);
#elif OP == REDUCE_MIN
    return ACC(INFINITY_F32);
#else
    return OP == REDUCE_PROD ? ACC(1) : ACC(0);
#endif
}

DEVICE ACC combine(ACC a, ACC b)
{
#if OP == REDUCE_MAX
    return op::max(a, b);
#elif OP == REDUCE_MIN
    return op::min(a, b);
#elif OP == REDUCE_PROD
    return a * b;
#else
    return a + b;
#endif
}

DEVICE ACC pre(T_IN v)
{
    const ACC x = to_acc<ACC>(v);
#if STAGE == 2
    return x;
#elif OP == REDUCE_SUM_SQUARE || OP == REDUCE_L2
    return x * x;
#elif OP == REDUCE_L1
    return op::abs(x);
#else
    return x;
#endif
}

DEVICE T_OUT post(ACC s, i64 count)
{
#if STAGE != 1 && OP == REDUCE_MEAN
    s = s / (ACC)count;
#elif STAGE != 1 && OP == REDUCE_L2
    s = op::sqrt(s);
#endif
    return from_acc<T_OUT>(s);
}

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_IN* x, T_OUT* y, const ColumnParams params)
{
    griddepcontrol_wait();
    __shared__ ACC part[THREADS * VEC];
    const i64 column = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * VEC;
    const bool inside = column < params.inner;
    const i64 each = (params.n_red + gridDim.y - 1) / gridDim.y, first = each * blockIdx.y;
    const i64 end = first + each < params.n_red ? first + each : params.n_red;
    const i64 step = (i64)blockDim.y * params.inner;
    for (i64 o = blockIdx.z; o < params.outer; o += gridDim.z) {
        ACC acc[VEC];
#pragma unroll
        for (i32 v = 0; v < VEC; v++) acc[v] = identity();
        if (inside) {
            i64 r = first + threadIdx.y;
            const T_IN* g = x + (o * params.n_red + r) * params.inner + column;
            for (; r + 3 * blockDim.y < end; r += 4 * blockDim.y, g += 4 * step) {
                T_IN a[4][VEC];
#pragma unroll
                for (i32 i = 0; i < 4; i++) load_vec<VEC>(a[i], g + i * step);
#pragma unroll
                for (i32 i = 0; i < 4; i++)
#pragma unroll
                    for (i32 v = 0; v < VEC; v++) acc[v] = combine(acc[v], pre(a[i][v]));
            }
            for (; r < end; r += blockDim.y, g += step) {
                T_IN a[VEC];
                load_vec<VEC>(a, g);
#pragma unroll
                for (i32 v = 0; v < VEC; v++) acc[v] = combine(acc[v], pre(a[v]));
            }
        }
        // Element v of all threads together: neighbours meet different banks.
        const u32 at = threadIdx.y * blockDim.x + threadIdx.x;
#pragma unroll
        for (i32 v = 0; v < VEC; v++) part[v * THREADS + at] = acc[v];
        for (u32 half = blockDim.y / 2; half > 0; half /= 2) {
            __syncthreads();
            if (threadIdx.y < half) {
#pragma unroll
                for (i32 v = 0; v < VEC; v++) {
                    ACC& p = part[v * THREADS + at];
                    p = combine(p, part[v * THREADS + at + half * blockDim.x]);
                }
            }
        }
        if (threadIdx.y == 0 && inside) {
            T_OUT out[VEC];
#pragma unroll
            for (i32 v = 0; v < VEC; v++) out[v] = post(part[v * THREADS + at], params.count);
            store_vec<VEC>(y + ((i64)blockIdx.y * params.outer + o) * params.inner + column, out);
        }
        __syncthreads();
    }
}
