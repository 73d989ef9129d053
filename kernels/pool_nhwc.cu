// pool_nhwc.cu — pooling over windows with channels last, one to three spatial dimensions:
//          y[n,o,c] = max | mean | (sum |x|^p)^(1/p) over a window of x
// Args     x: T_IN [n, in.., c] · y: T_IN [n, out.., c] · params: PoolNhwcParams, a 64-bit struct of 24: n, c, in[3] out[3]
//          window[3] stride[3] pad[3] (before) pad_end[3] dil[3], count_include_pad (leading dimensions of size 1 where fewer
//          are used) · p: float (LP)
// Params   T_IN {float,f16,bf16,double; MAX also the integers} · OP {POOL_MAX 0, POOL_AVERAGE 1, POOL_LP 2} · VEC {1,2,4,8,16}
//          channels of a thread · WINDOW_H, WINDOW_W: sizes of the window along the last two dimensions, 0: by argument ·
//          THREADS {128,256}
// Requires c a multiple of VEC, x and y aligned to VEC elements (to 16 bytes where these are more); pixels of one image and
//          n*out pixels below 2^31
// Launch   grid = min(ceil(n*out*c/VEC/THREADS), 2^31-1), the kernel strides · block = THREADS · smem = 0
// Numerics f32 sums (double for double), window in order: deterministic. MAX exact, NaN propagates; a window in the padding
//          alone gives the lowest value
// Notes    neighbouring threads have neighbouring channels of one pixel. AVERAGE divides as in pool.cu
#define POOL_MAX 0
#define POOL_AVERAGE 1
#define POOL_LP 2
#if !defined(T_IN) || !defined(OP) || !defined(VEC) || !defined(WINDOW_H) || !defined(WINDOW_W) || !defined(THREADS)
#error "T_IN, OP, VEC, WINDOW_H, WINDOW_W or THREADS is not defined"
#endif
#include "common/math.cuh"

#if OP == POOL_MAX
typedef Compute<T_IN>::type ACC;
#else
typedef Acc<T_IN>::type ACC;
#endif

// Types whose maxima are taken two an instruction.
template <class T> struct Packed
{
    static const bool FITS = false;
    static const u32 LOWEST = 0;
    DEVICE static u32 max(u32 a, u32) { return a; }
};
#if OP == POOL_MAX && VEC % 2 == 0 && __CUDA_ARCH__ >= 800
template <> struct Packed<f16>
{
    static const bool FITS = true;
    static const u32 LOWEST = 0xfc00fc00u;
    DEVICE static u32 max(u32 a, u32 b) { return max_nan_f16x2(a, b); }
};
template <> struct Packed<bf16>
{
    static const bool FITS = true;
    static const u32 LOWEST = 0xff80ff80u;
    DEVICE static u32 max(u32 a, u32 b) { return max_nan_bf16x2(a, b); }
};
#endif

// The maximum of nothing: what a window gives that lies in the padding alone.
DEVICE void set_lowest(float& x) { x = -INFINITY_F32; }
DEVICE void set_lowest(double& x) { x = -INFINITY_F32; }
template <class T> DEVICE void set_lowest(T& x) { x = T(-1) < T(0) ? (T)(1ull << (8 * sizeof(T) - 1)) : T(0); }

struct PoolNhwcParams
{
    i64 n, c, in[3], out[3], window[3], stride[3], pad[3], pad_end[3], dil[3], count_include_pad;
};

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_IN* x, T_IN* y, const PoolNhwcParams params, const float p)
{
    griddepcontrol_wait();
    const i32 n0 = (i32)params.in[0], n1 = (i32)params.in[1], n2 = (i32)params.in[2];
    const i32 w0 = (i32)params.window[0];
    const i32 w1 = WINDOW_H ? WINDOW_H : (i32)params.window[1], w2 = WINDOW_W ? WINDOW_W : (i32)params.window[2];
    const i32 d0 = (i32)params.dil[0], d1 = (i32)params.dil[1], d2 = (i32)params.dil[2];
    const u32 o0 = (u32)params.out[0], o1 = (u32)params.out[1], o2 = (u32)params.out[2];
    const i64 pieces = params.c / VEC, total = params.n * o0 * o1 * o2 * pieces;
    for (i64 flat = (i64)blockIdx.x * THREADS + threadIdx.x; flat < total; flat += (i64)gridDim.x * THREADS) {
        u32 pixel;
        i64 piece;
        if (total >> 31) {
            pixel = (u32)(flat / pieces);
            piece = flat - pixel * pieces;
        } else {  // 32-bit division is several times cheaper
            pixel = (u32)flat / (u32)pieces;
            piece = (u32)flat - pixel * (u32)pieces;
        }
        const u32 row = pixel / o2, slice = row / o1, image = slice / o0;
        const i32 s2 = (i32)((pixel - row * o2) * params.stride[2] - params.pad[2]);
        const i32 s1 = (i32)((row - slice * o1) * params.stride[1] - params.pad[1]);
        const i32 s0 = (i32)((slice - image * o0) * params.stride[0] - params.pad[0]);
        const T_IN* g_x = x + (i64)image * n0 * n1 * n2 * params.c + piece * VEC;
        [[maybe_unused]] i32 seen = 0, counted = 0;
        if constexpr (Packed<T_IN>::FITS) {
            // Two maxima an instruction; what lies outside counts as minus infinity.
            union { u32 pair[(VEC + 1) / 2]; T_IN v[VEC]; } best, r;
#pragma unroll
            for (i32 v = 0; v < VEC / 2; v++) best.pair[v] = Packed<T_IN>::LOWEST;
            for (i32 a = 0; a < w0; a++) {
                const i32 d = s0 + a * d0;
#pragma unroll
                for (i32 b = 0; b < w1; b++) {
                    const i32 h = s1 + b * d1;
                    const bool row_inside = (u32)d < (u32)n0 && (u32)h < (u32)n1;
                    const T_IN* g_row = g_x + (i64)((d * n1 + h) * n2 + s2) * params.c;
#pragma unroll
                    for (i32 c = 0; c < w2; c++) {
                        const bool inside = row_inside && (u32)(s2 + c * d2) < (u32)n2;
#pragma unroll
                        for (i32 v = 0; v < VEC / 2; v++) r.pair[v] = Packed<T_IN>::LOWEST;
                        if (inside) load_vec<VEC>(r.v, g_row + c * d2 * params.c);
#pragma unroll
                        for (i32 v = 0; v < VEC / 2; v++)
                            best.pair[v] = Packed<T_IN>::max(best.pair[v], r.pair[v]);
                    }
                }
            }
            store_vec<VEC>(y + (i64)pixel * params.c + piece * VEC, best.v);
            continue;
        }
        ACC acc[VEC];
#pragma unroll
        for (i32 v = 0; v < VEC; v++) {
            acc[v] = 0;
#if OP == POOL_MAX
            set_lowest(acc[v]);
#endif
        }
        for (i32 a = 0; a < w0; a++) {
            const i32 d = s0 + a * d0;
#pragma unroll
            for (i32 b = 0; b < w1; b++) {
                const i32 h = s1 + b * d1;
#pragma unroll
                for (i32 c = 0; c < w2; c++) {
                    const i32 w = s2 + c * d2;
                    counted += d < n0 + params.pad_end[0] && h < n1 + params.pad_end[1] && w < n2 + params.pad_end[2];
                    const bool inside = (u32)d < (u32)n0 && (u32)h < (u32)n1 && (u32)w < (u32)n2;
                    T_IN r[VEC] = {};
                    if (inside) load_vec<VEC>(r, g_x + (i64)((d * n1 + h) * n2 + w) * params.c);
#pragma unroll
                    for (i32 v = 0; v < VEC; v++) {
#if OP == POOL_MAX
                        const ACC e = to_compute(r[v]);
                        if (inside && (e > acc[v] || e != e)) acc[v] = e;
#else
                        const ACC e = to_acc<ACC>(r[v]);
                        acc[v] += OP == POOL_AVERAGE ? e : !inside ? ACC(0) : p == 1.0f ? op::abs(e) : p == 2.0f ? e * e : op::pow(op::abs(e), p);
#endif
                    }
                    seen += inside;
                }
            }
        }
        T_IN r[VEC];
#pragma unroll
        for (i32 v = 0; v < VEC; v++) {
#if OP == POOL_AVERAGE
            const i32 divisor = params.count_include_pad ? counted : seen;
            acc[v] = divisor ? acc[v] / ACC(divisor) : ACC(0);
#elif OP == POOL_LP
            acc[v] = p == 1.0f ? acc[v] : p == 2.0f ? op::sqrt(acc[v]) : op::pow(acc[v], ACC(1) / ACC(p));
#endif
            r[v] = from_compute<T_IN>(acc[v]);
        }
        store_vec<VEC>(y + (i64)pixel * params.c + piece * VEC, r);
    }
}
