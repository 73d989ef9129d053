// qconv_direct.cu — the generic convolution of 8-bit integers:  y = finish(sum (w - w_zero)(x - x_zero) + bias)
// Args     x: T_X [n,c,in..] · w: T_W [k,c/groups,filter..] · x_zero: T_X [1] · w_zero: T_W [1 or k] · bias: T_BIAS [k] · x_scale: float
//          [1] · w_scale: float [1 or k] · y_scale: float [1] · y_zero: T_ZERO [1] (each of these or null: 0, and 1 for scales) ·
//          y: T_OUT [n,k,out..], the type that OUT gives · params: ConvNdParams (common/conv_nd.cuh) · w_zero_step,
//          w_scale_step {0,1}: elements from one channel's number to the next
// Params   T_X, T_W {u8,i8} · T_BIAS {i32,float} · T_ZERO {u8,i8} · OUT {OUT_I32 0, OUT_F32 1, OUT_QUANT 2} · F0, F1, F2 filter sizes ·
//          THREADS {128,256}
// Requires n, k, and the pixels of one image below 2^31 (host checks); offsets are 64-bit
// Launch   grid = min(ceil(n*k*pixels/THREADS), 2^31-1), the kernel strides · block = THREADS · smem = 0
// Numerics exact in i32, wraps; scales in f32, one rounding an operation; rounding half to even; padding adds nothing
// Notes    one thread per output element: for depthwise filters, and the kernel that is always there
#if !defined(T_X) || !defined(T_W) || !defined(T_BIAS) || !defined(T_ZERO) || !defined(OUT) || !defined(THREADS)
#error "T_X, T_W, T_BIAS, T_ZERO, OUT or THREADS is not defined"
#endif
#if !defined(F0) || !defined(F1) || !defined(F2)
#error "F0, F1 or F2 is not defined"
#endif
#include "common/conv_nd.cuh"
#include "common/requant.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_X* x, const T_W* w, const T_X* x_zero, const T_W* w_zero, const T_BIAS* bias, const float* x_scale,
            const float* w_scale, const float* y_scale, const T_ZERO* y_zero, T_OUT* y, const ConvNdParams params,
            const i32 w_zero_step, const i32 w_scale_step)
{
    griddepcontrol_wait();
    const i32 c_group = (i32)(params.c / params.groups), k_group = (i32)(params.k / params.groups);
    const i32 in0 = (i32)params.in[0], in1 = (i32)params.in[1], in2 = (i32)params.in[2];
    const i64 pixels = params.out[0] * params.out[1] * params.out[2];
    const i64 plane = params.in[0] * params.in[1] * params.in[2], total = params.n * params.k * pixels;
    const i32 xz = x_zero ? (i32)x_zero[0] : 0, yz = y_zero ? (i32)y_zero[0] : 0;
    for (i64 flat = (i64)blockIdx.x * THREADS + threadIdx.x; flat < total; flat += (i64)gridDim.x * THREADS) {
        const OutputAt o = OutputAt::of(flat, params);
        const T_X* g_x = x + o.image * params.in_image + (i64)(o.channel / k_group) * c_group * plane;
        const T_W* g_w = w + (i64)o.channel * c_group * (F0 * F1 * F2);
        const i32 d0 = (i32)(o.at[0] * params.stride[0] - params.pad[0]), h0 = (i32)(o.at[1] * params.stride[1] - params.pad[1]);
        const i32 w0 = (i32)(o.at[2] * params.stride[2] - params.pad[2]);
        const i32 wz = w_zero ? (i32)w_zero[(i64)o.channel * w_zero_step] : 0;
        u32 acc = 0;
        for (i32 c = 0; c < c_group; c++, g_x += plane) {
            for (i32 a = 0; a < F0; a++) {
                const i32 id = d0 + a * (i32)params.dil[0];
                for (i32 b = 0; b < F1; b++) {
                    const i32 ih = h0 + b * (i32)params.dil[1];
                    for (i32 s = 0; s < F2; s++, g_w++) {
                        const i32 iw = w0 + s * (i32)params.dil[2];
                        if ((u32)id < (u32)in0 && (u32)ih < (u32)in1 && (u32)iw < (u32)in2)
                            acc += (u32)(((i32)*g_w - wz) * ((i32)g_x[((i64)id * in1 + ih) * in2 + iw] - xz));
                    }
                }
            }
        }
        const T_BIAS add = bias ? bias[o.channel] : T_BIAS(0);
        if (WHOLE_BIAS) acc += (u32)(i32)add;
        float scale = 1.0f;
#if OUT != OUT_I32
        scale = product_scale(1.0f, x_scale[0], w_scale[(i64)o.channel * w_scale_step]);
#endif
#if OUT == OUT_QUANT
        scale = __fdiv_rn(scale, y_scale[0]);
#endif
        y[o.image * params.out_image + o.channel * pixels + o.pixel] = finish((i32)acc, scale, yz, WHOLE_BIAS ? 0.0f : (float)add);
    }
}
