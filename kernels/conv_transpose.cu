// conv_transpose.cu — transposed convolution, gathered, one to three spatial dimensions:  y = epilogue(w^T * x + bias)
// Args     x: T_IN [n,c,in..] · w: T_IN [c,k/groups,filter..] · bias: T_BIAS [k] or null · y: T_OUT [n,k,out..] ·
//          params: ConvNdParams (common/conv_nd.cuh) · e0..e3, epi: common/epilogue.cuh, coordinates (n, k, pixel, 0, 0)
// Params   T_IN {float,f16,bf16,double} · T_OUT · T_BIAS · THREADS {128,256} · HAS_BIAS, EPILOGUE {0,1}
// Requires n, k, and the pixels of one image below 2^31 (host checks); offsets are 64-bit
// Launch   grid = min(ceil(n*k*pixels/THREADS), 2^31-1), the kernel strides · block = THREADS · smem = 0
// Numerics FMA in float (double for double), tap then channel in order: deterministic; class rel(1e-5) f32, rel(2e-3) f16
// Notes    output padding is part of the output size; pad is what the transposed convolution crops before each dimension.
//          Input position i reaches o = i*stride - pad + tap*dil; the kernel inverts that for each tap. Not a fast kernel.
#if !defined(T_IN) || !defined(T_OUT)
#error "T_IN or T_OUT is not defined"
#endif
#if !defined(THREADS) || !defined(HAS_BIAS)
#error "THREADS or HAS_BIAS is not defined"
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

// The input position along dimension d that reaches output position o through this tap, or -1.
DEVICE i32 source(i32 o, i32 tap, int d, const ConvNdParams& p)
{
    const i32 x = o + (i32)p.pad[d] - tap * (i32)p.dil[d], stride = (i32)p.stride[d];
    return x >= 0 && x % stride == 0 ? x / stride : -1;
}

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
        const OutputAt o = OutputAt::of(flat, params);
        const i32 group = o.channel / k_group;
        const T_IN* g_x = x + o.image * params.in_image + group * c_group * plane;
        const i64 taps = (i64)f0 * f1 * f2;
        const T_IN* g_w = w + ((i64)group * c_group * k_group + o.channel % k_group) * taps;
        ACC acc = 0;
        for (i32 a = 0; a < f0; a++) {
            const i32 id = source(o.at[0], a, 0, params);
            if ((u32)id >= (u32)in0) continue;
            for (i32 b = 0; b < f1; b++) {
                const i32 ih = source(o.at[1], b, 1, params);
                if ((u32)ih >= (u32)in1) continue;
                for (i32 s = 0; s < f2; s++) {
                    const i32 iw = source(o.at[2], s, 2, params);
                    if ((u32)iw >= (u32)in2) continue;
                    const i64 at = ((i64)id * in1 + ih) * in2 + iw, tap = ((i64)a * f1 + b) * f2 + s;
                    for (i32 c = 0; c < c_group; c++) acc += to_acc<ACC>(g_w[c * k_group * taps + tap]) * to_acc<ACC>(g_x[c * plane + at]);
                }
            }
        }
#if HAS_BIAS
        acc += to_acc<ACC>(bias[o.channel]);
#endif
        acc = epilogue_of.apply(acc, o.image, o.channel, o.pixel, 0, 0);
        y[o.image * params.out_image + o.channel * (params.out[0] * params.out[1] * params.out[2]) + o.pixel] = from_acc<T_OUT>(acc);
    }
}
