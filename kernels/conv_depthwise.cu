// conv_depthwise.cu — one input channel per group:  y[n,k,p,q] = epilogue(sum_rs w[k,0,r,s] x[n,k/multiplier,ih,iw] + bias[k])
// Args     x: T_IN [n,c,h,w] · w: T_IN [k,1,r,s] · bias: T_BIAS [k] or null · y: T_OUT [n,k,p,q] · params: ConvParams
//          (common/conv.cuh), groups = c, c_group = 1, k_group = multiplier · e0..e3, epi, coordinates (n, k, pixel, 0, 0)
// Params   T_IN {float,f16,bf16,double} · T_OUT · T_BIAS · THREADS {64,128,256} · OUTPUTS {1,2,4,8} neighbouring pixels of a
//          row per thread · FILTER_H, FILTER_W {0 = run time, or the filter} · HAS_BIAS, EPILOGUE {0,1}
// Requires n*k <= 65535*65535 (host splits otherwise)
// Launch   grid = (ceil(p*ceil(q/OUTPUTS)/THREADS), min(k*n, 65535), ceil(k*n/65535)) · block = THREADS · smem = 0
// Numerics FMA in float (double for double), r, s in order, parts of 128: deterministic; class rel(1e-5) f32, rel(2e-3) f16
// Notes    the filter of a channel stays in the first-level cache; a block works on one channel of one image
#if !defined(T_IN) || !defined(T_OUT)
#error "T_IN or T_OUT is not defined"
#endif
#if !defined(THREADS) || !defined(OUTPUTS) || !defined(HAS_BIAS)
#error "THREADS, OUTPUTS or HAS_BIAS is not defined"
#endif
#if HAS_BIAS && !defined(T_BIAS)
#error "T_BIAS is not defined"
#endif
#if !HAS_BIAS
#undef T_BIAS
#define T_BIAS T_IN
#endif
#include "common/types.cuh"
typedef Acc<T_IN>::type ACC;
#include "common/conv.cuh"
#include "common/epilogue.cuh"

// Taps after which a sum is continued in another one: rounding grows with the length of a sum.
#define SUM_PART 128

// Any stride and dilation: every tap of every output is a load.
DEVICE void taps(ACC (&acc)[OUTPUTS], const T_IN* g_x, const T_IN* g_w, const ConvParams& p, i32 h0, i32 w0, int filter_h, int filter_w)
{
    ACC part[OUTPUTS] = {};
    int n = 0;
    for (int r = 0; r < filter_h; r++) {
        const i32 h = h0 + r * p.dil_h;
        if ((u32)h >= (u32)p.h) continue;
        for (int s = 0; s < filter_w; s++) {
            const ACC f = to_acc<ACC>(g_w[r * filter_w + s]);
#pragma unroll
            for (int v = 0; v < OUTPUTS; v++) {
                const i32 iw = w0 + v * p.stride_w + s * p.dil_w;
                if ((u32)iw < (u32)p.w) part[v] += f * to_acc<ACC>(g_x[h * p.w + iw]);
            }
            if (++n % SUM_PART != 0) continue;
#pragma unroll
            for (int v = 0; v < OUTPUTS; v++) {
                acc[v] += part[v];
                part[v] = 0;
            }
        }
    }
#pragma unroll
    for (int v = 0; v < OUTPUTS; v++) acc[v] += part[v];
}

#if FILTER_W
template <int STRIDE> DEVICE void windows(ACC (&acc)[OUTPUTS], const T_IN* g_x, const T_IN* g_w, const ConvParams& p, i32 h0, i32 w0)
{
    constexpr int WINDOW = (OUTPUTS - 1) * STRIDE + FILTER_W;
#pragma unroll
    for (int r = 0; r < FILTER_H; r++) {
        const i32 h = h0 + r * p.dil_h;
        if ((u32)h >= (u32)p.h) continue;
        ACC x[WINDOW];
#pragma unroll
        for (int i = 0; i < WINDOW; i++) {
            const bool inside = (u32)(w0 + i) < (u32)p.w;
            const T_IN v = g_x[inside ? h * p.w + w0 + i : 0];
            x[i] = inside ? to_acc<ACC>(v) : ACC(0);
        }
#pragma unroll
        for (int s = 0; s < FILTER_W; s++) {
            const ACC f = to_acc<ACC>(g_w[r * FILTER_W + s]);
#pragma unroll
            for (int v = 0; v < OUTPUTS; v++) acc[v] += f * x[v * STRIDE + s];
        }
    }
}
#endif

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_IN* x, const T_IN* w, const T_BIAS* bias, T_OUT* y, const ConvParams params, const void* e0,
            const void* e1, const void* e2, const void* e3, const EpilogueStrides epi)
{
    griddepcontrol_wait();
    const i64 plane = (i64)blockIdx.z * 65535 + blockIdx.y;
    if (plane >= (i64)params.n * params.k) return;
    const i32 image = (i32)(plane / params.k), channel = (i32)(plane % params.k);
    const i32 per_row = (params.q + OUTPUTS - 1) / OUTPUTS;
    const i32 item = blockIdx.x * THREADS + threadIdx.x, oh = item / per_row, ow0 = item % per_row * OUTPUTS;
    if (oh >= params.p) return;

    const T_IN* g_x = x + (i64)image * params.in_image + (i64)(channel / params.k_group) * params.h * params.w;
    const int filter_h = FILTER_H ? FILTER_H : params.r, filter_w = FILTER_W ? FILTER_W : params.s;
    const T_IN* g_w = w + (i64)channel * filter_h * filter_w;
    const i32 h0 = oh * params.stride_h - params.pad_h, w0 = ow0 * params.stride_w - params.pad_w;
    ACC acc[OUTPUTS];
#pragma unroll
    for (int v = 0; v < OUTPUTS; v++) acc[v] = 0;
#if FILTER_W
    // The common strides read each input of a filter row once into registers.
    if (params.dil_w == 1 && params.stride_w == 1) windows<1>(acc, g_x, g_w, params, h0, w0);
    else if (params.dil_w == 1 && params.stride_w == 2) windows<2>(acc, g_x, g_w, params, h0, w0);
    else
#endif
    taps(acc, g_x, g_w, params, h0, w0, filter_h, filter_w);

    const Epilogue epilogue_of{{e0, e1, e2, e3}, epi};
#pragma unroll
    for (int v = 0; v < OUTPUTS; v++) {
        if (ow0 + v >= params.q) continue;
        const i32 pixel = oh * params.q + ow0 + v;
        ACC r = acc[v];
#if HAS_BIAS
        r += to_acc<ACC>(bias[channel]);
#endif
        r = epilogue_of.apply(r, image, channel, pixel, 0, 0);
        y[(i64)image * params.out_image + (i64)channel * params.pq + pixel] = from_acc<T_OUT>(r);
    }
}
