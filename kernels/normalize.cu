// normalize.cu — rows with mean 0 and deviation 1:  y = (v - mean) / sqrt(variance + epsilon) * scale + bias,  v = x + skip + skip_bias
// Args     x: T_X [rows, cols] · scale, bias: T_PARAM, element (row % period) * step + col / run, or null · skip: T_X as x, or null ·
//          skip_bias: T_X [cols] or null · y: T_Y as x · mean, factor: ACC [rows] or null (factor is the inverse deviation) · sum: T_X as x
//          (v is stored) or null · rows: i64 · cols, run: i32 · period, step: i64 · epsilon: float
// Params   T_X, T_PARAM, T_Y {float,f16,bf16,double} · CENTERED {0,1}: 0 takes the mean as 0 · LANES {4,8,16,32, THREADS}: threads of a
//          row · THREADS {32..1024} · HOLD {0..64}: elements that a thread holds, a multiple of VEC, 0 reads the row twice · VEC
//          {1,2,4,8} elements per access · ROW_PARAMS {0,1}: 1 says that period and run are 1, so that scale and bias are read in vectors
// Requires HOLD > 0: cols <= LANES*HOLD · HOLD == 0: LANES >= 32 · cols % VEC == 0 (host checks). Alignment is looked at in the kernel
// Launch   grid = ceil(rows / (THREADS/LANES)) · block = THREADS · smem = 0
// Numerics statistics in float (double for double T_X): of the deviations where the row is held, by merged pieces where it is not;
//          fixed order: deterministic
// Notes    a row of no elements has statistics NaN, as a quotient by zero
#if !defined(T_X) || !defined(T_PARAM) || !defined(T_Y) || !defined(CENTERED) || !defined(ROW_PARAMS)
#error "T_X, T_PARAM, T_Y, CENTERED or ROW_PARAMS is not defined"
#endif
#if !defined(LANES) || !defined(THREADS) || !defined(HOLD) || !defined(VEC)
#error "LANES, THREADS, HOLD or VEC is not defined"
#endif
#include "common/math.cuh"
#include "common/reduce.cuh"

static_assert(LANES == 4 || LANES == 8 || LANES == 16 || LANES == 32 || LANES == THREADS, "a row belongs to a part of a warp, or a block");
static_assert(HOLD % VEC == 0, "a thread holds whole vectors");
static_assert(HOLD || LANES >= 32, "rows that are not held belong to whole warps");

typedef Acc<T_X>::type ACC;

DEVICE float inverse_root(float x) { return ::rsqrtf(x); }
DEVICE double inverse_root(double x) { return 1.0 / op::sqrt(x); }

// Two divisions of 64 bits cost more than a short row.
DEVICE i64 remainder(i64 a, i64 b) { return (a | b) >> 32 ? a % b : (i64)((u32)a % (u32)b); }

// VEC elements, one by one where the address is not aligned.
template <class T> DEVICE void read(T (&r)[VEC], const T* g, bool vectors)
{
    if (vectors) {
        load_vec<VEC>(r, g);
    } else {
#pragma unroll
        for (int j = 0; j < VEC; j++) r[j] = g[j];
    }
}

template <class T> DEVICE void write(T* g, const T (&r)[VEC], bool vectors)
{
    if (vectors) {
        store_vec<VEC>(g, r);
    } else {
#pragma unroll
        for (int j = 0; j < VEC; j++) g[j] = r[j];
    }
}

struct Operands
{
    const T_X *x, *skip, *skip_bias;
    T_X* sum;
    bool vectors;

    DEVICE void load(ACC (&r)[VEC], i64 at, i32 col) const
    {
        T_X v[VEC];
        read(v, x + at, vectors);
#pragma unroll
        for (int j = 0; j < VEC; j++) r[j] = to_acc<ACC>(v[j]);
        if (skip) {
            read(v, skip + at, vectors);
#pragma unroll
            for (int j = 0; j < VEC; j++) r[j] += to_acc<ACC>(v[j]);
        }
        if (skip_bias) {
            read(v, skip_bias + col, vectors);
#pragma unroll
            for (int j = 0; j < VEC; j++) r[j] += to_acc<ACC>(v[j]);
        }
    }

#if HOLD
    typedef typename VecAccess<VEC, T_X>::Bits Bits;
    typedef typename VecAccess<VEC, T_X>::raw Raw;

    // A thread's part of a row as it lies in memory, all of it asked for before any is used; zeros beyond the row.
    DEVICE void ask(Bits (&b)[HOLD / VEC], const T_X* g, int lane, i32 cols) const
    {
        if (vectors) {
#pragma unroll
            for (int c = 0; c < HOLD / VEC; c++) {
                const i32 col = (c * LANES + lane) * VEC;
#pragma unroll
                for (int i = 0; i < VecAccess<VEC, T_X>::COUNT; i++) {
                    b[c].r[i] = Raw{};
                    if (col < cols) b[c].r[i] = ((const Raw*)(g + col))[i];
                }
            }
        } else {
#pragma unroll
            for (int c = 0; c < HOLD / VEC; c++)
#pragma unroll
                for (int j = 0; j < VEC; j++) {
                    const i32 col = (c * LANES + lane) * VEC + j;
                    b[c].v[j] = col < cols ? g[col] : T_X{};
                }
        }
    }

    DEVICE void load_row(ACC (&r)[HOLD / VEC][VEC], i64 base, int lane, i32 cols) const
    {
        Bits b[HOLD / VEC];
        ask(b, x + base, lane, cols);
#pragma unroll
        for (int c = 0; c < HOLD / VEC; c++)
#pragma unroll
            for (int j = 0; j < VEC; j++) r[c][j] = to_acc<ACC>(b[c].v[j]);
        if (skip) {
            ask(b, skip + base, lane, cols);
#pragma unroll
            for (int c = 0; c < HOLD / VEC; c++)
#pragma unroll
                for (int j = 0; j < VEC; j++) r[c][j] += to_acc<ACC>(b[c].v[j]);
        }
        if (skip_bias) {
            ask(b, skip_bias, lane, cols);
#pragma unroll
            for (int c = 0; c < HOLD / VEC; c++)
#pragma unroll
                for (int j = 0; j < VEC; j++) r[c][j] += to_acc<ACC>(b[c].v[j]);
        }
    }
#endif

    DEVICE void store_sum(const ACC (&r)[VEC], i64 at) const
    {
        T_X v[VEC];
#pragma unroll
        for (int j = 0; j < VEC; j++) v[j] = from_acc<T_X>(r[j]);
        write(sum + at, v, vectors);
    }
};

// Scale and bias of VEC neighbours.
struct Params
{
    typename VecAccess<VEC, T_PARAM>::Bits scale, bias;
};

struct Affine
{
    const T_PARAM *scale, *bias;
    i64 first;
    i32 run, cols;
    bool vectors;

    DEVICE void load(Params& p, i32 col) const
    {
#if ROW_PARAMS
        if (scale) read(p.scale.v, scale + col, vectors);
        if (bias) read(p.bias.v, bias + col, vectors);
#else
#pragma unroll
        for (int j = 0; j < VEC; j++) {
            const i64 at = first + (run == 1 ? col + j : run >= cols ? 0 : (i32)((u32)(col + j) / (u32)run));
            if (scale) p.scale.v[j] = scale[at];
            if (bias) p.bias.v[j] = bias[at];
        }
#endif
    }

    // r are deviations from the mean.
    DEVICE void store(T_Y* g, const ACC (&r)[VEC], const Params& p, ACC factor, bool aligned) const
    {
        T_Y v[VEC];
#pragma unroll
        for (int j = 0; j < VEC; j++) {
            ACC q = r[j] * factor;
            if (scale) q *= (ACC)to_compute(p.scale.v[j]);
            if (bias) q += (ACC)to_compute(p.bias.v[j]);
            v[j] = from_acc<T_Y>(q);
        }
        write(g, v, aligned);
    }
};

// Number of elements, their mean, and the sum of squares of their deviations.
struct Moments
{
    ACC n, mean, squares;
};
struct Merge
{
    DEVICE Moments operator()(const Moments& a, const Moments& b) const
    {
        const ACC n = a.n + b.n;
        if (n == ACC(0)) return a;
        const ACC d = b.mean - a.mean, part = b.n / n;
        return Moments{n, a.mean + d * part, a.squares + b.squares + d * d * a.n * part};
    }
};
DEVICE Moments shuffle(const Moments& m, int delta)
{
    return Moments{__shfl_xor_sync(0xffffffffu, m.n, delta), __shfl_xor_sync(0xffffffffu, m.mean, delta),
                   __shfl_xor_sync(0xffffffffu, m.squares, delta)};
}
DEVICE ACC shuffle(ACC x, int delta) { return __shfl_xor_sync(0xffffffffu, x, delta); }

// Over the LANES threads of a row; every thread gets the result. Each use has scratch of its own.
template <class A, class F> DEVICE A combine_row(A x, F combine, A* s_scratch /* [THREADS / 32] */)
{
#pragma unroll
    for (int delta = (LANES < 32 ? LANES : 32) / 2; delta > 0; delta >>= 1) x = combine(x, shuffle(x, delta));
    if (LANES <= 32) return x;
    if (threadIdx.x % 32 == 0) s_scratch[threadIdx.x / 32] = x;
    __syncthreads();  // orders the warps' results before they are read
    x = s_scratch[0];
#pragma unroll
    for (int w = 1; w < THREADS / 32; w++) x = combine(x, s_scratch[w]);
    return x;
}

// Registers of a thread are bounded so that enough threads wait for memory at once.
#ifndef MIN_BLOCKS
#define MIN_BLOCKS (65536 / ((HOLD ? HOLD + 40 : 64) * (int)sizeof(ACC) / 4 * THREADS))
#endif

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS > 0 ? MIN_BLOCKS : 1)
KERNEL_NAME(const T_X* x, const T_PARAM* scale, const T_PARAM* bias, const T_X* skip, const T_X* skip_bias, T_Y* y, ACC* mean,
            ACC* factor, T_X* sum, const i64 rows, const i32 cols, const i32 run, const i64 period, const i64 step,
            const float epsilon)
{
    if (gridDim.x <= 256) griddepcontrol_launch_dependents();  // few blocks: the next kernel fits beside them
    const int lane = threadIdx.x % LANES;
    const i64 row = (i64)blockIdx.x * (THREADS / LANES) + threadIdx.x / LANES;
    const bool inside = row < rows;  // all threads of a warp meet in the shuffles
    const i64 base = row * cols;
    const bool aligned = is_aligned<VEC>(x) && is_aligned<VEC>(skip) && is_aligned<VEC>(skip_bias) && is_aligned<VEC>(sum);
    const bool y_aligned = is_aligned<VEC>(y);
    const Operands in{x, skip, skip_bias, sum, aligned};
    const Affine affine{scale, bias, ROW_PARAMS ? 0 : remainder(row, period) * step, run, cols, is_aligned<VEC>(scale) && is_aligned<VEC>(bias)};
    ACC center = 0;
    griddepcontrol_wait();
#if HOLD
    constexpr int CHUNKS = HOLD / VEC;
    // Scale and bias are asked for together with the row where that takes few registers.
#ifndef EARLY
    constexpr bool EARLY = ROW_PARAMS && HOLD == VEC;
#endif
    __shared__ ACC s_scratch[2][THREADS / 32];
    ACC r[CHUNKS][VEC];
    Params params[EARLY ? CHUNKS : 1];
    in.load_row(r, base, lane, inside ? cols : 0);
    if (EARLY) {
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            const i32 col = (c * LANES + lane) * VEC;
            if (col < cols) affine.load(params[EARLY ? c : 0], col);
        }
    }
    if (sum) {
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            const i32 col = (c * LANES + lane) * VEC;
            if (inside && col < cols) in.store_sum(r[c], base + col);
        }
    }
    const ACC each = ACC(1) / (ACC)cols;
#if CENTERED
    ACC total = 0;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++)
#pragma unroll
        for (int j = 0; j < VEC; j++) total += r[c][j];
    center = combine_row(total, Sum(), s_scratch[0]) * each;
#endif
    ACC squares = 0;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        if ((c * LANES + lane) * VEC < cols) {
#pragma unroll
            for (int j = 0; j < VEC; j++) {
                r[c][j] -= center;
                squares += r[c][j] * r[c][j];
            }
        }
    }
    const ACC scaled = inverse_root(combine_row(squares, Sum(), s_scratch[1]) * each + (ACC)epsilon);
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        const i32 col = (c * LANES + lane) * VEC;
        if (inside && col < cols) {
            if (!EARLY) affine.load(params[0], col);
            affine.store(y + base + col, r[c], params[EARLY ? c : 0], scaled, y_aligned);
        }
    }
#else
    __shared__ Moments s_scratch[THREADS / 32];
    Moments m{0, 0, 0};
    if (inside) {
        for (i64 col = (i64)lane * VEC; col < cols; col += LANES * VEC) {
            ACC r[VEC];
            in.load(r, base + col, (i32)col);
            Moments piece{VEC, 0, 0};
#if CENTERED
#pragma unroll
            for (int j = 0; j < VEC; j++) piece.mean += r[j];
            piece.mean *= ACC(1) / ACC(VEC);
#endif
#pragma unroll
            for (int j = 0; j < VEC; j++) piece.squares += (r[j] - piece.mean) * (r[j] - piece.mean);
            m = Merge()(m, piece);
        }
    }
    m = combine_row(m, Merge(), s_scratch);
    center = m.mean;
    const ACC scaled = inverse_root(m.squares / (ACC)cols + (ACC)epsilon);
    if (inside) {
        for (i64 col = (i64)lane * VEC; col < cols; col += LANES * VEC) {
            ACC r[VEC];
            Params params;
            in.load(r, base + col, (i32)col);
            affine.load(params, (i32)col);
            if (sum) in.store_sum(r, base + col);
#pragma unroll
            for (int j = 0; j < VEC; j++) r[j] -= center;
            affine.store(y + base + col, r, params, scaled, y_aligned);
        }
    }
#endif
    if (inside && lane == 0) {
        if (mean) mean[row] = center;
        if (factor) factor[row] = scaled;
    }
}
