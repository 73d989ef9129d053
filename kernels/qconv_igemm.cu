// qconv_igemm.cu — convolution of 8-bit integers as an implicit product:  y = finish(sum (w - w_zero)(x - x_zero) + bias)
// Args     x: T_X [n,c,in..] · w: T_W [k,c/groups,filter..] · x_zero: T_X [1] · w_zero: T_W [1 or k] · bias: T_BIAS [k] · x_scale: float
//          [1] · w_scale: float [1 or k] · y_scale: float [1] · y_zero: T_ZERO [1] (each of these or null: 0, and 1 for scales) ·
//          y: T_OUT [n,k,out..], the type that OUT gives · params: ConvNdParams (common/conv_nd.cuh) · w_zero_step,
//          w_scale_step {0,1}: elements from one channel's number to the next
// Params   T_X, T_W {u8,i8} · T_BIAS {i32,float} · T_ZERO {u8,i8} · OUT {OUT_I32 0, OUT_F32 1, OUT_QUANT 2} · F0, F1, F2 filter sizes ·
//          X_SUMS {0,1}: w has a zero point
// Requires n*pixels, k, and one image below 2^31 (host checks)
// Launch   grid = (ceil(n*pixels/64), ceil(k/groups/64), groups) · block = 256 · smem = 0
// Numerics exact in i32, wraps; scales in f32, one rounding an operation; rounding half to even; padding counts as x_zero
// Notes    tiles of 64 channels x 64 pixels x 32 bytes, one 4 x 4 tile a thread, dp4a on words of four kernel elements
#if !defined(T_X) || !defined(T_W) || !defined(T_BIAS) || !defined(T_ZERO) || !defined(OUT)
#error "T_X, T_W, T_BIAS, T_ZERO or OUT is not defined"
#endif
#if !defined(F0) || !defined(F1) || !defined(F2) || !defined(X_SUMS)
#error "F0, F1, F2 or X_SUMS is not defined"
#endif
#include "common/conv_nd.cuh"
#include "common/requant.cuh"

#define THREADS 256
#define TILE 64
#define WORDS 8
#define TAPS (F0 * F1 * F2)

constexpr bool X_SIGNED = T_X(-1) < T_X(0), W_SIGNED = T_W(-1) < T_W(0);

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_X* x, const T_W* w, const T_X* x_zero, const T_W* w_zero, const T_BIAS* bias, const float* x_scale,
            const float* w_scale, const float* y_scale, const T_ZERO* y_zero, T_OUT* y, const ConvNdParams params,
            const i32 w_zero_step, const i32 w_scale_step)
{
    griddepcontrol_wait();
    __shared__ u32 s_w[WORDS][TILE + 1];  // [word of k, channel]
    __shared__ u32 s_x[WORDS][TILE + 1];  // [word of k, pixel]
    const i32 c_group = (i32)(params.c / params.groups), k_group = (i32)(params.k / params.groups);
    const i32 pixels = (i32)(params.out[0] * params.out[1] * params.out[2]), group = blockIdx.z;
    const i64 n_k = (i64)c_group * TAPS, plane = params.in[0] * params.in[1] * params.in[2];
    const i32 total = (i32)params.n * pixels;
    const i32 m0 = blockIdx.y * TILE, p0 = blockIdx.x * TILE;
    const i32 xz = x_zero ? (i32)x_zero[0] : 0;

    // This thread loads words of one pixel.
    const i32 pixel = p0 + threadIdx.x % TILE, own = pixel < total ? pixel : 0;
    const i32 image = own / pixels, place = own - image * pixels;
    const i32 o2 = (i32)params.out[2], o1 = (i32)params.out[1];
    const i32 d0 = place / o2 / o1 * (i32)params.stride[0] - (i32)params.pad[0];
    const i32 h0 = place / o2 % o1 * (i32)params.stride[1] - (i32)params.pad[1];
    const i32 w0 = place % o2 * (i32)params.stride[2] - (i32)params.pad[2];
    const T_X* g_x = x + image * params.in_image + (i64)group * c_group * plane;
    const T_W* g_w = w + (i64)group * k_group * n_k;

    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    i32 acc[4][4] = {}, w_sum[4] = {}, x_sum[4] = {};
    for (i64 k0 = 0; k0 < n_k; k0 += 4 * WORDS) {
        for (int i = threadIdx.x; i < TILE * WORDS; i += THREADS) {
            const int m = i / WORDS, kw = i % WORDS, kx = i / TILE;
            u32 word_w = 0, word_x = 0;
#pragma unroll
            for (int v = 0; v < 4; v++) {
                const i64 k = k0 + 4 * kw + v;
                if (m0 + m < k_group && k < n_k) word_w |= (u32)(u8)g_w[(m0 + m) * n_k + k] << (8 * v);
                const i64 kk = k0 + 4 * kx + v;
                if (pixel < total && kk < n_k) {
                    const i32 c = (i32)(kk / TAPS), tap = (i32)(kk - (i64)c * TAPS);
                    const i32 d = d0 + tap / (F1 * F2) * (i32)params.dil[0], h = h0 + tap / F2 % F1 * (i32)params.dil[1];
                    const i32 s = w0 + tap % F2 * (i32)params.dil[2];
                    const bool inside = (u32)d < (u32)params.in[0] && (u32)h < (u32)params.in[1] && (u32)s < (u32)params.in[2];
                    const i32 value = inside ? (i32)g_x[c * plane + ((i64)d * params.in[1] + h) * params.in[2] + s] : xz;
                    word_x |= (u32)(u8)value << (8 * v);
                }
            }
            s_w[kw][m] = word_w;
            s_x[kx][threadIdx.x % TILE] = word_x;
        }
        __syncthreads();  // orders the stores of this tile before its reads
#pragma unroll
        for (int kk = 0; kk < WORDS; kk++) {
            u32 r_w[4], r_x[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                r_w[i] = s_w[kk][ty * 4 + i];
                r_x[i] = s_x[kk][tx + 16 * i];
            }
#pragma unroll
            for (int i = 0; i < 4; i++) {
                w_sum[i] = dp4a<W_SIGNED, true>(r_w[i], 0x01010101u, w_sum[i]);
#if X_SUMS
                x_sum[i] = dp4a<X_SIGNED, true>(r_x[i], 0x01010101u, x_sum[i]);
#endif
#pragma unroll
                for (int j = 0; j < 4; j++) acc[i][j] = dp4a<W_SIGNED, X_SIGNED>(r_w[i], r_x[j], acc[i][j]);
            }
        }
        __syncthreads();  // orders the reads of this tile before the stores of the next
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const i32 m = m0 + ty * 4 + i, channel = group * k_group + m;
        if (m >= k_group) continue;
        const i32 wz = w_zero ? (i32)w_zero[(i64)channel * w_zero_step] : 0;
        const T_BIAS add = bias ? bias[channel] : T_BIAS(0);
        [[maybe_unused]] float scale = 1.0f;
#if OUT != OUT_I32
        scale = product_scale(1.0f, x_scale[0], w_scale[(i64)channel * w_scale_step]);
#endif
#if OUT == OUT_QUANT
        scale = __fdiv_rn(scale, y_scale[0]);
#endif
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const i32 p = p0 + tx + 16 * j;
            if (p >= total) continue;
            i32 sum = with_zeros(acc[i][j], (i32)n_k, wz, xz, w_sum[i], x_sum[j]);
            if (WHOLE_BIAS) sum = (i32)((u32)sum + (u32)(i32)add);
            const i32 at = p / pixels;
            y[at * params.out_image + (i64)channel * pixels + (p - at * pixels)] =
                finish(sum, scale, y_zero ? (i32)y_zero[0] : 0, WHOLE_BIAS ? 0.0f : (float)add);
        }
    }
}
