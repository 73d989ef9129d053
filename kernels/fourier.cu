// fourier.cu — a stage of discrete Fourier transforms:  b[s, k] = sum_j turn(j*k / (l*r)) * a[s + n/(l*r)*j, k mod l],  k < l*r
// Args     TURNS: table: ACC2 [n] · n: i64 · STAGE: x: T_IN, the samples · window: T_IN or null · table: as TURNS left it · from:
//          ACC2 [transforms, n], null in the first stage, which reads x · to: ACC2 [transforms, n], null in the last, which
//          writes y · y: T_IN [outer.., kept, inner, parts] · params: FourierParams, a 64-bit struct of 12: outer[2]
//          outer_stride[2] inner step parts (2: samples are complex) available n results l r (strides in elements of x; results
//          of this stage a transform)
// Params   T_IN {float,f16,bf16,double} · MODE {TURNS 0: exp(+-2 pi i t/n) for all t, STAGE 1} · INVERSE {0,1}: turns the other way, divides by n · HALF_SPECTRUM {0,1}: samples beyond n/2 are
//          conjugates of the mirrored ones and the result is real · HAS_WINDOW {0,1} · THREADS {128,256}
// Requires n below 2^31; l*r divides n
// Launch   grid = min(ceil(transforms*results/THREADS), 2^31-1) (TURNS: n elements), the kernel strides · block = THREADS · smem = 0
// Numerics turns in double, rounded once; sums in float (double for double), in order: deterministic; class rel(1e-5) of the
//          largest result
// Notes    Stockham's order: results need no permutation. A length without small factors is one stage, a plain sum
#define MODE_TURNS 0
#define MODE_STAGE 1
#if !defined(T_IN) || !defined(MODE) || !defined(INVERSE) || !defined(HALF_SPECTRUM)
#error "T_IN, MODE, INVERSE or HALF_SPECTRUM is not defined"
#endif
#if !defined(HAS_WINDOW) || !defined(THREADS)
#error "HAS_WINDOW or THREADS is not defined"
#endif
#include "common/types.cuh"

typedef Acc<T_IN>::type ACC;
struct ACC2
{
    ACC re, im;
};

struct FourierParams
{
    i64 outer[2], outer_stride[2], inner, step, parts, available, n, results, l, r;
};

#if MODE == MODE_TURNS

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(ACC2* table, const i64 n)
{
    griddepcontrol_wait();
    for (i64 t = (i64)blockIdx.x * THREADS + threadIdx.x; t < n; t += (i64)gridDim.x * THREADS) {
        double s, c;
        ::sincospi(2.0 * (double)t / (double)n, &s, &c);
        table[t] = ACC2{(ACC)c, (ACC)(INVERSE ? s : -s)};
    }
}

#else

// Sample t of the transform whose samples begin at g_x.
DEVICE ACC2 sample(const T_IN* g_x, const T_IN* window, i64 t, const FourierParams& p)
{
    const bool mirrored = HALF_SPECTRUM && t > p.n / 2;
    const i64 from = mirrored ? p.n - t : t;
    if (from >= p.available) return ACC2{};
    const T_IN* g = g_x + from * p.step;
    ACC2 v{to_acc<ACC>(g[0]), p.parts == 2 ? to_acc<ACC>(g[1]) : ACC(0)};
#if HAS_WINDOW
    const ACC w = to_acc<ACC>(window[from]);
    v.re *= w;
    v.im *= w;
#endif
    if (mirrored) v.im = -v.im;
    return v;
}

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_IN* x, const T_IN* window, const ACC2* table, const ACC2* from, ACC2* to, T_IN* y, const FourierParams params)
{
    griddepcontrol_wait();
    const i64 total = params.outer[0] * params.outer[1] * params.inner * params.results;
    const i32 l = (i32)params.l, longer = (i32)(params.l * params.r), apart = (i32)(params.n / longer), r = (i32)params.r;
    for (i64 flat = (i64)blockIdx.x * THREADS + threadIdx.x; flat < total; flat += (i64)gridDim.x * THREADS) {
        // Results of a transform lie together in scratch, neighbouring transforms in y.
        i64 transform, outer, inner;
        i32 o;
        if (to == nullptr) {
            inner = flat % params.inner;
            o = (i32)(flat / params.inner % params.results);
            outer = flat / params.inner / params.results;
            transform = outer * params.inner + inner;
        } else {
            o = (i32)(flat % params.results);
            transform = flat / params.results;
            inner = transform % params.inner;
            outer = transform / params.inner;
        }
        const i32 s = o / longer, k = o % longer, low = k % l;
        const i64 begin = outer / params.outer[1] * params.outer_stride[0] + outer % params.outer[1] * params.outer_stride[1] +
                          inner * params.parts;
        const T_IN* g_x = x + begin;
        const ACC2* g_from = from + transform * params.n;
        ACC re = 0, im = 0;
        i64 turn = 0;
        for (i32 j = 0; j < r; j++) {
            const ACC2 w = table[turn * apart];
            const i64 at = ((i64)apart * j + s) * l + low;
            const ACC2 v = from == nullptr ? sample(g_x, window, at, params) : g_from[at];
            re += v.re * w.re - v.im * w.im;
            im += v.re * w.im + v.im * w.re;
            turn += k;
            turn -= turn >= longer ? longer : 0;
        }
        if (to != nullptr) {
            to[flat] = ACC2{re, im};
            continue;
        }
        if (INVERSE) {
            re /= (ACC)params.n;
            im /= (ACC)params.n;
        }
#if HALF_SPECTRUM
        y[flat] = from_acc<T_IN>(re);
#else
        y[2 * flat] = from_acc<T_IN>(re);
        y[2 * flat + 1] = from_acc<T_IN>(im);
#endif
    }
}

#endif
