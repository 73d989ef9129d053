// normalize.cu — rows with mean 0 and deviation 1:  y = (v - mean) / sqrt(variance + epsilon) * scale + bias,  v = x + skip + skip_bias
// Args     x: T_X [rows, cols] · scale, bias: T_PARAM, element (row % period) * step + col / run, or null · skip: T_X as x, or null ·
//          skip_bias: T_X [cols] or null · y: T_Y as x · mean, factor: ACC [rows] or null (factor is the inverse deviation) · sum: T_X as x
//          (v is stored) or null · rows: i64 · cols, run: i32 · period, step: i64 · epsilon: float
// Params   T_X, T_PARAM, T_Y {float,f16,bf16,double} · CENTERED {0,1}: 0 takes the mean as 0 · LANES {32, THREADS}: threads of a row ·
//          THREADS {128,256,512} · HOLD {0..32}: elements that a thread holds, a multiple of VEC, 0 reads the row again ·
//          VEC {1,2,4,8} elements per access
// Requires HOLD > 0: cols <= LANES*HOLD · cols % VEC == 0 (host checks) · addresses aligned to VEC elements
// Launch   grid = ceil(rows / (THREADS/LANES)) · block = THREADS · smem = 0
// Numerics statistics in float (double for double T_X), two passes, fixed order: deterministic
// Notes    a row of no elements has statistics NaN, as a quotient by zero
#if !defined(T_X) || !defined(T_PARAM) || !defined(T_Y) || !defined(CENTERED)
#error "T_X, T_PARAM, T_Y or CENTERED is not defined"
#endif
#if !defined(LANES) || !defined(THREADS) || !defined(HOLD) || !defined(VEC)
#error "LANES, THREADS, HOLD or VEC is not defined"
#endif
#include "common/math.cuh"
#include "common/reduce.cuh"

static_assert(LANES == 32 || LANES == THREADS, "a row belongs to a warp or a block");
static_assert(HOLD % VEC == 0, "a thread holds whole vectors");

typedef Acc<T_X>::type ACC;

struct Operands
{
    const T_X *x, *skip, *skip_bias;
    T_X* sum;

    // VEC elements of the row, stored to sum where there is one.
    DEVICE void load(ACC (&r)[VEC], i64 at, i32 col) const
    {
        T_X v[VEC];
        load_vec<VEC>(v, x + at);
#pragma unroll
        for (int j = 0; j < VEC; j++) r[j] = to_acc<ACC>(v[j]);
        if (skip) {
            load_vec<VEC>(v, skip + at);
#pragma unroll
            for (int j = 0; j < VEC; j++) r[j] += to_acc<ACC>(v[j]);
        }
        if (skip_bias) {
#pragma unroll
            for (int j = 0; j < VEC; j++) r[j] += to_acc<ACC>(skip_bias[col + j]);
        }
    }

    DEVICE void store_sum(const ACC (&r)[VEC], i64 at) const
    {
        if (!sum) return;
        T_X v[VEC];
#pragma unroll
        for (int j = 0; j < VEC; j++) v[j] = from_acc<T_X>(r[j]);
        store_vec<VEC>(sum + at, v);
    }
};

struct Result
{
    const T_PARAM *scale, *bias;
    T_Y* y;
    i64 first;
    i32 run, cols;
    ACC mean, factor;

    DEVICE void store(const ACC (&r)[VEC], i64 at, i32 col) const
    {
        T_Y v[VEC];
#pragma unroll
        for (int j = 0; j < VEC; j++) {
            const i64 p = first + (run == 1 ? col + j : run >= cols ? 0 : (i32)((u32)(col + j) / (u32)run));
            ACC q = (r[j] - mean) * factor;
            if (scale) q *= (ACC)to_compute(scale[p]);
            if (bias) q += (ACC)to_compute(bias[p]);
            v[j] = from_acc<T_Y>(q);
        }
        store_vec<VEC>(y + at, v);
    }
};

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_X* x, const T_PARAM* scale, const T_PARAM* bias, const T_X* skip, const T_X* skip_bias, T_Y* y, ACC* mean,
            ACC* factor, T_X* sum, const i64 rows, const i32 cols, const i32 run, const i64 period, const i64 step,
            const float epsilon)
{
    griddepcontrol_wait();
    const int lane = threadIdx.x % LANES;
    const i64 row = (i64)blockIdx.x * (THREADS / LANES) + threadIdx.x / LANES;
#if LANES == 32
    if (row >= rows) return;  // whole warps leave
#define COMBINE(v) warp_combine(v, Sum())
#else
    __shared__ ACC s_scratch[THREADS / 32];
#define COMBINE(v) block_combine<THREADS>(v, Sum(), s_scratch)
#endif
    const i64 base = row * cols;
    const Operands in{x, skip, skip_bias, sum};
    Result out{scale, bias, y, row % period * step, run, cols, ACC(0), ACC(0)};
#if HOLD
    constexpr int CHUNKS = HOLD / VEC;
    ACC r[CHUNKS][VEC];
    ACC total = 0;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        const i32 col = (c * LANES + lane) * VEC;
        if (col < cols) {
            in.load(r[c], base + col, col);
            in.store_sum(r[c], base + col);
#pragma unroll
            for (int j = 0; j < VEC; j++) total += r[c][j];
        }
    }
#if CENTERED
    out.mean = COMBINE(total) / (ACC)cols;
#endif
    ACC squares = 0;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        if ((c * LANES + lane) * VEC < cols) {
#pragma unroll
            for (int j = 0; j < VEC; j++) squares += (r[c][j] - out.mean) * (r[c][j] - out.mean);
        }
    }
    out.factor = ACC(1) / op::sqrt(COMBINE(squares) / (ACC)cols + (ACC)epsilon);
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        const i32 col = (c * LANES + lane) * VEC;
        if (col < cols) out.store(r[c], base + col, col);
    }
#else
    ACC r[VEC];
#if CENTERED
    ACC total = 0;
    for (i64 col = (i64)lane * VEC; col < cols; col += LANES * VEC) {
        in.load(r, base + col, (i32)col);
#pragma unroll
        for (int j = 0; j < VEC; j++) total += r[j];
    }
    out.mean = COMBINE(total) / (ACC)cols;
#endif
    ACC squares = 0;
    for (i64 col = (i64)lane * VEC; col < cols; col += LANES * VEC) {
        in.load(r, base + col, (i32)col);
#pragma unroll
        for (int j = 0; j < VEC; j++) squares += (r[j] - out.mean) * (r[j] - out.mean);
    }
    out.factor = ACC(1) / op::sqrt(COMBINE(squares) / (ACC)cols + (ACC)epsilon);
    for (i64 col = (i64)lane * VEC; col < cols; col += LANES * VEC) {
        in.load(r, base + col, (i32)col);
        in.store_sum(r, base + col);
        out.store(r, base + col, (i32)col);
    }
#endif
    if (lane == 0) {
        if (mean) mean[row] = out.mean;
        if (factor) factor[row] = out.factor;
    }
}
