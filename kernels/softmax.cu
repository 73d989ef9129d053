// softmax.cu — softmax or its logarithm along one axis:  y = exp(x - max) / sum exp(x - max)   or   x - max - log sum
// Args     x: T_IN, y: T_OUT, both dense [outer, cols, inner] (inner = 1: rows), y may alias x where T_IN = T_OUT ·
//          rows: i64 = outer*inner · cols: i64 · inner: i64
// Params   T_IN, T_OUT {float,f16,bf16,double} · LOG {0,1} · MODE {HELD 0: LANES threads hold a row in registers, BLOCK 1: a block
//          reads a row twice, STRIDED 2: a thread does VEC neighbouring columns of the axis} · THREADS {32..1024} · VEC {1,2,4,8}
//          elements per access · HELD: LANES {4,8,16,32,THREADS} threads of a row, HOLD {VEC..64} elements that a thread holds, a
//          multiple of VEC
// Requires HELD: cols <= LANES*HOLD · HELD, BLOCK: inner 1, cols % VEC == 0 · STRIDED: inner % VEC == 0 (host checks). Alignment is
//          looked at in the kernel
// Launch   HELD: grid = ceil(rows/(THREADS/LANES)) · BLOCK: grid = rows · STRIDED: grid = ceil(rows/(THREADS*VEC)) · block = THREADS ·
//          smem = 0
// Numerics max and sum in f32 (double for double), fixed order: deterministic; class rel(2e-3) f16, rel(1e-6) f32
// Notes    a row that is -inf everywhere gives NaN, as ONNX says
#define MODE_HELD 0
#define MODE_BLOCK 1
#define MODE_STRIDED 2
#if !defined(T_IN) || !defined(T_OUT) || !defined(LOG) || !defined(MODE) || !defined(THREADS) || !defined(VEC)
#error "T_IN, T_OUT, LOG, MODE, THREADS or VEC is not defined"
#endif
#if MODE == MODE_HELD && (!defined(LANES) || !defined(HOLD))
#error "LANES or HOLD is not defined"
#endif
#include "common/math.cuh"
#include "common/reduce.cuh"

typedef Acc<T_IN>::type ACC;

template <class T> struct IsHalf { static constexpr bool value = false; };
template <> struct IsHalf<f16> { static constexpr bool value = true; };
template <> struct IsHalf<bf16> { static constexpr bool value = true; };

// As exact as the result's type can show.
DEVICE ACC exponential(ACC x)
{
    if constexpr (IsHalf<T_OUT>::value) return op::half_exp(x);
    else return op::exp(x);
}

// VEC elements, one by one where the address is not aligned.
DEVICE void read(ACC (&r)[VEC], const T_IN* g, bool vectors)
{
    T_IN v[VEC];
    if (vectors) {
        load_vec<VEC>(v, g);
    } else {
#pragma unroll
        for (int j = 0; j < VEC; j++) v[j] = g[j];
    }
#pragma unroll
    for (int j = 0; j < VEC; j++) r[j] = to_acc<ACC>(v[j]);
}

DEVICE void write(T_OUT* g, const T_OUT (&r)[VEC], bool vectors)
{
    if (vectors) {
        store_vec<VEC>(g, r);
    } else {
#pragma unroll
        for (int j = 0; j < VEC; j++) g[j] = r[j];
    }
}

// The maximum of what was seen, and the sum of exp(x - maximum).
struct Stats
{
    ACC max, sum;
};

// Adds elements, at the cost of one exponential each and one more. NaN reaches the sum.
template <int N> DEVICE Stats merge(const Stats& a, const ACC (&x)[N])
{
    ACC max = a.max;
#pragma unroll
    for (int j = 0; j < N; j++) max = op::max(max, x[j]);
    if (max == (ACC)-INFINITY_F32) return a;
    ACC sum = a.sum * exponential(a.max - max);
#pragma unroll
    for (int j = 0; j < N; j++) sum += exponential(x[j] - max);
    return Stats{max, sum};
}

struct Normalize
{
    ACC max, scale;  // LOG: what is subtracted; else 1 / sum

    DEVICE explicit Normalize(const Stats& s) : max(s.max), scale(LOG ? op::log(s.sum) : ACC(1) / s.sum) {}
    DEVICE T_OUT operator()(ACC x) const { return from_acc<T_OUT>(LOG ? x - max - scale : exponential(x - max) * scale); }
};

#if MODE == MODE_HELD
static_assert(LANES == 4 || LANES == 8 || LANES == 16 || LANES == 32 || LANES == THREADS, "a row belongs to a part of a warp, or a block");
static_assert(HOLD % VEC == 0, "a thread holds whole vectors");

// Over the LANES threads of a row; every thread gets the result. Each use has scratch of its own.
template <class F> DEVICE ACC combine_row(ACC x, F combine, ACC* s_scratch /* [THREADS / 32] */)
{
#pragma unroll
    for (int delta = (LANES < 32 ? LANES : 32) / 2; delta > 0; delta >>= 1)
        x = combine(x, __shfl_xor_sync(0xffffffffu, x, delta));
    if (LANES <= 32) return x;
    if (threadIdx.x % 32 == 0) s_scratch[threadIdx.x / 32] = x;
    __syncthreads();  // orders the warps' results before they are read
    x = s_scratch[0];
#pragma unroll
    for (int w = 1; w < THREADS / 32; w++) x = combine(x, s_scratch[w]);
    return x;
}
#endif

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_IN* x, T_OUT* y, const i64 rows, const i64 cols, const i64 inner)
{
    if (gridDim.x <= 256) griddepcontrol_launch_dependents();  // few blocks: the next kernel fits beside them
    const bool aligned = is_aligned<VEC>(x) && is_aligned<VEC>(y);
#if MODE == MODE_HELD
    __shared__ ACC s_scratch[2][THREADS / 32];
    constexpr int CHUNKS = HOLD / VEC;
    const int lane = threadIdx.x % LANES;
    const i64 row = (i64)blockIdx.x * (THREADS / LANES) + threadIdx.x / LANES;
    const bool inside = row < rows;  // all threads of a warp meet in the shuffles
    const i64 base = row * cols;
    ACC r[CHUNKS][VEC];
    ACC max = (ACC)-INFINITY_F32;
    griddepcontrol_wait();
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        const int at = (i * LANES + lane) * VEC;
        if (inside && at < cols) {
            read(r[i], x + base + at, aligned);
        } else {
#pragma unroll
            for (int j = 0; j < VEC; j++) r[i][j] = (ACC)-INFINITY_F32;
        }
    }
#pragma unroll
    for (int i = 0; i < CHUNKS; i++)
#pragma unroll
        for (int j = 0; j < VEC; j++) max = op::max(max, r[i][j]);
    max = combine_row(max, Max(), s_scratch[0]);
    ACC sum = 0;
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        if ((i * LANES + lane) * VEC < cols) {
#pragma unroll
            for (int j = 0; j < VEC; j++) {
                const ACC e = exponential(r[i][j] - max);
                if (!LOG) r[i][j] = e;
                sum += e;
            }
        }
    }
    sum = combine_row(sum, Sum(), s_scratch[1]);
    const Normalize normalize(Stats{max, sum});
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        const int at = (i * LANES + lane) * VEC;
        T_OUT v[VEC];
#pragma unroll
        for (int j = 0; j < VEC; j++) v[j] = LOG ? normalize(r[i][j]) : from_acc<T_OUT>(r[i][j] * normalize.scale);
        if (inside && at < cols) write(y + base + at, v, aligned);
    }

#elif MODE == MODE_BLOCK
    __shared__ ACC s_scratch[THREADS / 32];
    const T_IN* g_x = x + blockIdx.x * cols;
    T_OUT* g_y = y + blockIdx.x * cols;
    Stats stats{(ACC)-INFINITY_F32, 0};
    griddepcontrol_wait();
    for (i64 at = (i64)threadIdx.x * VEC; at < cols; at += THREADS * VEC) {
        ACC v[VEC];
        read(v, g_x + at, aligned);
        stats = merge(stats, v);
    }
    const ACC max = block_combine<THREADS>(stats.max, Max(), s_scratch);
    // A thread that saw nothing has sum 0 and maximum -inf; exp(-inf - max) would be NaN for max = -inf.
    const ACC own = stats.max == (ACC)-INFINITY_F32 ? stats.sum : stats.sum * exponential(stats.max - max);
    const ACC sum = block_combine<THREADS>(own, Sum(), s_scratch);
    const Normalize normalize(Stats{max, sum});
    for (i64 at = (i64)threadIdx.x * VEC; at < cols; at += THREADS * VEC) {
        ACC v[VEC];
        T_OUT w[VEC];
        read(v, g_x + at, aligned);
#pragma unroll
        for (int j = 0; j < VEC; j++) w[j] = normalize(v[j]);
        write(g_y + at, w, aligned);
    }

#else
    const i64 row = ((i64)blockIdx.x * THREADS + threadIdx.x) * VEC;
    griddepcontrol_wait();
    if (row >= rows) return;
    const i64 base = row / inner * cols * inner + row % inner;
    Stats stats[VEC];
#pragma unroll
    for (int j = 0; j < VEC; j++) stats[j] = Stats{(ACC)-INFINITY_F32, 0};
    for (i64 at = 0; at < cols; at++) {
        ACC v[VEC];
        read(v, x + base + at * inner, aligned);
#pragma unroll
        for (int j = 0; j < VEC; j++) {
            const ACC one[1] = {v[j]};
            stats[j] = merge(stats[j], one);
        }
    }
    for (i64 at = 0; at < cols; at++) {
        ACC v[VEC];
        T_OUT w[VEC];
        read(v, x + base + at * inner, aligned);
#pragma unroll
        for (int j = 0; j < VEC; j++) w[j] = Normalize(stats[j])(v[j]);
        write(y + base + at * inner, w, aligned);
    }
#endif
}
