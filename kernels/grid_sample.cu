// grid_sample.cu — an image at given positions, one to three spatial dimensions:  y[n,c,o] = sum of weights * x[n,c, neighbours of grid[n,o]]
// Args     x: T_X [n,c,in..] · grid: T_GRID [n,out..,RANK], innermost dimension first, -1..1 · y: T_X [n,c,out..] · params:
//          GridParams, a 64-bit struct of 6: n, c, points (= product of out), in[3] (leading dimensions of size 1 where
//          fewer are used)
// Params   T_X any type · T_GRID {float,f16,bf16,double} · T_ACC {float,double}: what sums are kept in · MODE {NEAREST 0,
//          LINEAR 1, CUBIC 2} · PADDING {ZEROS 0, BORDER 1, REFLECTION 2} · ALIGN_CORNERS {0,1} · RANK {1,2,3} · THREADS {128,256}
// Requires every in[] between 1 and 2^30; offsets are 64-bit
// Launch   grid = (min(ceil(n*points/THREADS), 2^31-1), channel parts); the kernel strides over both · block = THREADS · smem = 0
// Numerics coordinates in float (double for a double grid), each step rounded, as the host computes them; NEAREST exact
// Notes    a coordinate that is no number lies far outside; an integer result is truncated, out of its range saturated
#define MODE_NEAREST 0
#define MODE_LINEAR 1
#define MODE_CUBIC 2
#define PADDING_ZEROS 0
#define PADDING_BORDER 1
#define PADDING_REFLECTION 2
#if !defined(T_X) || !defined(T_GRID) || !defined(T_ACC) || !defined(RANK) || !defined(THREADS)
#error "T_X, T_GRID, T_ACC, RANK or THREADS is not defined"
#endif
#if !defined(MODE) || !defined(PADDING) || !defined(ALIGN_CORNERS)
#error "MODE, PADDING or ALIGN_CORNERS is not defined"
#endif
#include "common/math.cuh"
#include "common/rounded.cuh"

typedef Compute<T_GRID>::type REAL;
#define TAPS (MODE == MODE_NEAREST ? 1 : MODE == MODE_LINEAR ? 2 : 4)
#define FAR REAL(1 << 30)

struct GridParams
{
    i64 n, c, points, in[3];
};

// The neighbours of a coordinate along one dimension; a negative position is outside and counts as zero.
struct Taps
{
    i32 at[TAPS];
    REAL weight[TAPS];
};

DEVICE void borders(REAL& lo, REAL& hi, i32 n)
{
    lo = ALIGN_CORNERS ? REAL(0) : REAL(-0.5);
    hi = REAL(n) - (ALIGN_CORNERS ? REAL(1) : REAL(0.5));
}

DEVICE REAL reflect(REAL x, REAL lo, REAL hi)
{
    const REAL range = hi - lo;
    if (!(range > REAL(0))) return lo;
    const bool below = x < lo;
    if (!below && !(x > hi)) return x;
    const REAL d = below ? sub_rn(lo, x) : sub_rn(x, hi);
    const REAL q = div_rn(d, range), times = q < REAL(0) ? op::ceil(q) : op::floor(q);
    const REAL rest = sub_rn(d, mul_rn(times, range));
    const bool even = sub_rn(times, mul_rn(REAL(2), op::floor(div_rn(times, REAL(2))))) == REAL(0);
    return below == even ? add_rn(lo, rest) : sub_rn(hi, rest);
}

DEVICE i32 element(i32 i, i32 n)
{
    if ((u32)i < (u32)n) return i;
#if PADDING == PADDING_ZEROS
    return -1;
#elif PADDING == PADDING_BORDER
    return i < 0 ? 0 : n - 1;
#else
    REAL lo, hi;
    borders(lo, hi, n);
    return ::min((i32)within(reflect(REAL(i), lo, hi), REAL(0), REAL(n - 1)), n - 1);
#endif
}

DEVICE REAL cubic_far(REAL d)
{
    const REAL a = REAL(-0.75);
    return sub_rn(mul_rn(add_rn(mul_rn(sub_rn(mul_rn(a, d), REAL(5) * a), d), REAL(8) * a), d), REAL(4) * a);
}
DEVICE REAL cubic_near(REAL d)
{
    const REAL a = REAL(-0.75);
    return add_rn(mul_rn(mul_rn(sub_rn(mul_rn(a + REAL(2), d), a + REAL(3)), d), d), REAL(1));
}

DEVICE Taps taps_of(REAL g, i32 n)
{
    const REAL size = REAL(n), one = REAL(1);
    REAL x = ALIGN_CORNERS ? mul_rn(add_rn(g, one) / REAL(2), size - one) : sub_rn(mul_rn(add_rn(g, one), size), one) / REAL(2);
    if (MODE == MODE_NEAREST) x = op::round_even(x);
    REAL lo, hi;
    borders(lo, hi, n);
    // Cubic looks at each neighbour alone.
    if (MODE != MODE_CUBIC && PADDING == PADDING_BORDER && (x < lo || x > hi)) x = within(x, REAL(0), size - one);
    if (MODE != MODE_CUBIC && PADDING == PADDING_REFLECTION) x = reflect(x, lo, hi);
    x = within(x, -FAR, FAR);
    Taps r;
#if MODE == MODE_NEAREST
    r.at[0] = element((i32)x, n);
    r.weight[0] = one;
#else
    const REAL floor_x = op::floor(x), t = sub_rn(x, floor_x);
    const i32 first = (i32)floor_x - (MODE == MODE_CUBIC ? 1 : 0);
#if MODE == MODE_LINEAR
    r.weight[0] = sub_rn(one, t);
    r.weight[1] = t;
#else
    r.weight[0] = cubic_far(add_rn(t, one));
    r.weight[1] = cubic_near(t);
    r.weight[2] = cubic_near(sub_rn(one, t));
    r.weight[3] = cubic_far(sub_rn(REAL(2), t));
#endif
#pragma unroll
    for (int k = 0; k < TAPS; k++) r.at[k] = element(first + k, n);
#endif
    return r;
}

// A dimension that is not there.
DEVICE Taps none()
{
    Taps r{};
    r.weight[0] = REAL(1);
    return r;
}

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_X* x, const T_GRID* grid, T_X* y, const GridParams params)
{
    griddepcontrol_wait();
    const i32 n0 = (i32)params.in[0], n1 = (i32)params.in[1], n2 = (i32)params.in[2];
    const i64 plane = params.in[0] * params.in[1] * params.in[2], total = params.n * params.points;
    for (i64 flat = (i64)blockIdx.x * THREADS + threadIdx.x; flat < total; flat += (i64)gridDim.x * THREADS) {
        const i64 image = flat / params.points, point = flat - image * params.points;
        const T_GRID* g = grid + flat * RANK;
        const Taps t2 = taps_of(to_compute(g[0]), n2);
        const Taps t1 = RANK > 1 ? taps_of(to_compute(g[RANK > 1 ? 1 : 0]), n1) : none();
        const Taps t0 = RANK > 2 ? taps_of(to_compute(g[RANK > 2 ? 2 : 0]), n0) : none();
        for (i64 c = blockIdx.y; c < params.c; c += gridDim.y) {
            const T_X* g_x = x + (image * params.c + c) * plane;
            T_X* g_y = y + (image * params.c + c) * params.points + point;
#if MODE == MODE_NEAREST
            const bool inside = t0.at[0] >= 0 && t1.at[0] >= 0 && t2.at[0] >= 0;
            *g_y = inside ? g_x[((i64)t0.at[0] * n1 + t1.at[0]) * n2 + t2.at[0]] : T_X{};
#else
            T_ACC acc = 0;
#pragma unroll
            for (int i = 0; i < (RANK > 2 ? TAPS : 1); i++) {
                if (t0.at[i] < 0) continue;
#pragma unroll
                for (int j = 0; j < (RANK > 1 ? TAPS : 1); j++) {
                    if (t1.at[j] < 0) continue;
                    const T_X* g_row = g_x + ((i64)t0.at[i] * n1 + t1.at[j]) * n2;
                    const T_ACC w = (T_ACC)t0.weight[i] * (T_ACC)t1.weight[j];
#pragma unroll
                    for (int k = 0; k < TAPS; k++)
                        if (t2.at[k] >= 0) acc += w * (T_ACC)t2.weight[k] * (T_ACC)to_compute(g_row[t2.at[k]]);
                }
            }
            *g_y = weighted_result<T_X>(acc);
#endif
        }
    }
}
