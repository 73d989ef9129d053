// conv_direct.cu — the generic convolution, any group count, one to three spatial dimensions:  y = epilogue(w * x + bias)
// Args     x: T_IN [n,c,in..] · w: T_IN [k,c/groups,filter..] · bias: T_BIAS [k] or null · y: T_OUT [n,k,out..];
//          ORDER_LAST: x [n,in..,c] · w [k,filter..,c/groups] · y [n,out..,k]; ORDER_FIRST_TO_LAST: only y has its channels
//          last · params: ConvNdParams (common/conv_nd.cuh) · e0..e3, epi: common/epilogue.cuh, coordinates (n, k, pixel, 0, 0)
// Params   T_IN {float,f16,bf16,double} · T_OUT · T_BIAS · THREADS {128,256} · HAS_BIAS, EPILOGUE {0,1} ·
//          ORDER {ORDER_FIRST 0, ORDER_LAST 1, ORDER_FIRST_TO_LAST 2}
// Requires n, k, and the pixels of one image below 2^31 (host checks); offsets are 64-bit
// Launch   grid = min(ceil(n*k*pixels/THREADS), 2^31-1), the kernel strides · block = THREADS · smem = 0
// Numerics FMA in float (double for double), channel then tap in order (ORDER_LAST: tap then channel): deterministic; class rel(1e-5) f32, rel(2e-3) f16
// Notes    one thread per output element, no reuse: the kernel that is always there, not a fast one
#if !defined(T_IN) || !defined(T_OUT)
#error "T_IN or T_OUT is not defined"
#endif
#define ORDER_FIRST 0
#define ORDER_LAST 1
#define ORDER_FIRST_TO_LAST 2
#if !defined(THREADS) || !defined(HAS_BIAS) || !defined(ORDER)
#error "THREADS, HAS_BIAS or ORDER is not defined"
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
#include "common/conv_nd.cuh"
#include "common/epilogue.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_IN* x, const T_IN* w, const T_BIAS* bias, T_OUT* y, const ConvNdParams params, const void* e0,
            const void* e1, const void* e2, const void* e3, const EpilogueStrides epi)
{
    griddepcontrol_wait();
    const i32 c_group = (i32)(params.c / params.groups), k_group = (i32)(params.k / params.groups);
    const i32 in0 = (i32)params.in[0], in1 = (i32)params.in[1], in2 = (i32)params.in[2];
    const i32 f0 = (i32)params.filter[0], f1 = (i32)params.filter[1], f2 = (i32)params.filter[2];
    const i64 plane = params.in[0] * params.in[1] * params.in[2], total = params.n * params.k * params.out[0] * params.out[1] * params.out[2];
    const Epilogue epilogue_of{{e0, e1, e2, e3}, epi};
    for (i64 flat = (i64)blockIdx.x * THREADS + threadIdx.x; flat < total; flat += (i64)gridDim.x * THREADS) {
#if ORDER == ORDER_FIRST
        const OutputAt o = OutputAt::of(flat, params);
#else
        const OutputAt o = OutputAt::of_last(flat, params);
#endif
#if ORDER == ORDER_LAST
        const T_IN* g_x = x + o.image * params.in_image + (o.channel / k_group) * c_group;
#else
        const T_IN* g_x = x + o.image * params.in_image + (o.channel / k_group) * c_group * plane;
#endif
        const T_IN* g_w = w + (i64)o.channel * c_group * f0 * f1 * f2;
        const i32 d0 = (i32)(o.at[0] * params.stride[0] - params.pad[0]), h0 = (i32)(o.at[1] * params.stride[1] - params.pad[1]);
        const i32 w0 = (i32)(o.at[2] * params.stride[2] - params.pad[2]);
        ACC acc = 0;
#if ORDER == ORDER_LAST
        for (i32 a = 0; a < f0; a++) {
            const i32 id = d0 + a * (i32)params.dil[0];
            for (i32 b = 0; b < f1; b++) {
                const i32 ih = h0 + b * (i32)params.dil[1];
                for (i32 s = 0; s < f2; s++, g_w += c_group) {
                    const i32 iw = w0 + s * (i32)params.dil[2];
                    if ((u32)id >= (u32)in0 || (u32)ih >= (u32)in1 || (u32)iw >= (u32)in2) continue;
                    const T_IN* pixel = g_x + (((i64)id * in1 + ih) * in2 + iw) * params.c;
                    for (i32 c = 0; c < c_group; c++) acc += to_acc<ACC>(g_w[c]) * to_acc<ACC>(pixel[c]);
                }
            }
        }
#else
        for (i32 c = 0; c < c_group; c++, g_x += plane) {
            for (i32 a = 0; a < f0; a++) {
                const i32 id = d0 + a * (i32)params.dil[0];
                for (i32 b = 0; b < f1; b++) {
                    const i32 ih = h0 + b * (i32)params.dil[1];
                    for (i32 s = 0; s < f2; s++, g_w++) {
                        const i32 iw = w0 + s * (i32)params.dil[2];
                        if ((u32)id < (u32)in0 && (u32)ih < (u32)in1 && (u32)iw < (u32)in2)
                            acc += to_acc<ACC>(*g_w) * to_acc<ACC>(g_x[((i64)id * in1 + ih) * in2 + iw]);
                    }
                }
            }
        }
#endif
#if HAS_BIAS
        acc += to_acc<ACC>(bias[o.channel]);
#endif
        acc = epilogue_of.apply(acc, o.image, o.channel, o.pixel, 0, 0);
        y[flat] = from_acc<T_OUT>(acc);
    }
}
