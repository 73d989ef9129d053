// softmax.cu — softmax or its logarithm along one axis:  y = exp(x - max) / sum exp(x - max)   or   x - max - log sum
// Args     x: T_IN, y: T_OUT, both dense [outer, cols, inner] (inner = 1: rows), y may alias x where T_IN = T_OUT ·
//          rows: i64 = outer*inner · cols: i64 · inner: i64
// Params   T_IN, T_OUT {float,f16,bf16,double} · LOG {0,1} · MODE {WARP 0: a warp holds a row in registers, BLOCK 1: a block
//          reads a row twice, STRIDED 2: a thread does a column of the axis} · THREADS {128,256,512} · VEC {1,2,4,8} elements
//          per load · MAX_COLS (WARP): multiple of 32*VEC, at most 2048
// Requires WARP: cols <= MAX_COLS · VEC > 1: cols % VEC == 0 and inner 1 (host checks), addresses aligned to VEC elements
// Launch   WARP: grid = ceil(rows/(THREADS/32)) · BLOCK: grid = rows · STRIDED: grid = ceil(rows/THREADS) · block = THREADS · smem = 0
// Numerics max and sum in f32 (double for double), fixed order: deterministic; class rel(2e-3) f16, rel(1e-6) f32
// Notes    a row that is -inf everywhere gives NaN, as ONNX says
#define MODE_WARP 0
#define MODE_BLOCK 1
#define MODE_STRIDED 2
#if !defined(T_IN) || !defined(T_OUT) || !defined(LOG) || !defined(MODE) || !defined(THREADS) || !defined(VEC)
#error "T_IN, T_OUT, LOG, MODE, THREADS or VEC is not defined"
#endif
#if MODE == MODE_WARP && !defined(MAX_COLS)
#error "MAX_COLS is not defined"
#endif
#include "common/math.cuh"
#include "common/reduce.cuh"

typedef Acc<T_IN>::type ACC;

// The maximum of what was seen, and the sum of exp(x - maximum).
struct Stats
{
    ACC max, sum;
};

// Adds one element, at the cost of one exponential. NaN reaches the sum.
DEVICE Stats merge(const Stats& a, ACC x)
{
    if (x > a.max) return Stats{x, a.sum * op::exp(a.max - x) + ACC(1)};
    if (a.max == (ACC)-INFINITY_F32) return Stats{op::max(a.max, x), a.sum};
    return Stats{a.max, a.sum + op::exp(x - a.max)};
}

struct Normalize
{
    ACC max, scale;  // LOG: what is subtracted; else 1 / sum

    DEVICE explicit Normalize(const Stats& s) : max(s.max), scale(LOG ? op::log(s.sum) : ACC(1) / s.sum) {}
    DEVICE T_OUT operator()(ACC x) const { return from_acc<T_OUT>(LOG ? x - max - scale : op::exp(x - max) * scale); }
};

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_IN* x, T_OUT* y, const i64 rows, const i64 cols, const i64 inner)
{
    griddepcontrol_wait();
#if MODE == MODE_WARP
    static_assert(MAX_COLS % (32 * VEC) == 0 && MAX_COLS <= 2048, "a warp holds whole vectors, at most 64 elements a lane");
    constexpr int CHUNKS = MAX_COLS / (32 * VEC);
    const int lane = threadIdx.x % 32;
    const i64 row = (i64)blockIdx.x * (THREADS / 32) + threadIdx.x / 32;
    if (row >= rows) return;
    const T_IN* g_x = x + row * cols;
    ACC r[CHUNKS][VEC];
    ACC max = (ACC)-INFINITY_F32;
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        const int at = (i * 32 + lane) * VEC;
        T_IN v[VEC];
        if (at < cols) load_vec<VEC>(v, g_x + at);
#pragma unroll
        for (int j = 0; j < VEC; j++) {
            r[i][j] = at < cols ? to_acc<ACC>(v[j]) : (ACC)-INFINITY_F32;
            max = op::max(max, r[i][j]);
        }
    }
    max = warp_combine(max, Max());
    ACC sum = 0;
#pragma unroll
    for (int i = 0; i < CHUNKS; i++)
#pragma unroll
        for (int j = 0; j < VEC; j++) {
            if ((i * 32 + lane) * VEC < cols) sum += op::exp(r[i][j] - max);
        }
    sum = warp_combine(sum, Sum());
    const Normalize normalize(Stats{max, sum});
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        const int at = (i * 32 + lane) * VEC;
        T_OUT v[VEC];
#pragma unroll
        for (int j = 0; j < VEC; j++) v[j] = normalize(r[i][j]);
        if (at < cols) store_vec<VEC>(y + row * cols + at, v);
    }

#elif MODE == MODE_BLOCK
    __shared__ ACC s_scratch[THREADS / 32];
    const T_IN* g_x = x + blockIdx.x * cols;
    T_OUT* g_y = y + blockIdx.x * cols;
    Stats stats{(ACC)-INFINITY_F32, 0};
    for (i64 at = (i64)threadIdx.x * VEC; at < cols; at += THREADS * VEC) {
        T_IN v[VEC];
        load_vec<VEC>(v, g_x + at);
#pragma unroll
        for (int j = 0; j < VEC; j++) stats = merge(stats, to_acc<ACC>(v[j]));
    }
    const ACC max = block_combine<THREADS>(stats.max, Max(), s_scratch);
    // A thread that saw nothing has sum 0 and maximum -inf; exp(-inf - max) would be NaN for max = -inf.
    const ACC own = stats.max == (ACC)-INFINITY_F32 ? ACC(0) : stats.sum * op::exp(stats.max - max);
    const ACC sum = block_combine<THREADS>(own, Sum(), s_scratch);
    const Normalize normalize(Stats{max, sum});
    for (i64 at = (i64)threadIdx.x * VEC; at < cols; at += THREADS * VEC) {
        T_IN v[VEC];
        T_OUT w[VEC];
        load_vec<VEC>(v, g_x + at);
#pragma unroll
        for (int j = 0; j < VEC; j++) w[j] = normalize(to_acc<ACC>(v[j]));
        store_vec<VEC>(g_y + at, w);
    }

#else
    const i64 row = (i64)blockIdx.x * THREADS + threadIdx.x;
    if (row >= rows) return;
    const i64 base = row / inner * cols * inner + row % inner;
    Stats stats{(ACC)-INFINITY_F32, 0};
    for (i64 at = 0; at < cols; at++) stats = merge(stats, to_acc<ACC>(x[base + at * inner]));
    const Normalize normalize(stats);
    for (i64 at = 0; at < cols; at++) y[base + at * inner] = normalize(to_acc<ACC>(x[base + at * inner]));
#endif
}
