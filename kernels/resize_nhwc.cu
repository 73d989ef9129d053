// resize_nhwc.cu — interpolation along two dimensions with channels behind them:
//          y[n, o, c] = sum of weights * x[n, neighbours of map(o), c]
// Args     x: T_IN [n, in_h, in_w, c] · y: T_IN [n, out_h, out_w, c] · n, c: i64 · params: ResizeParams (common/resize.cuh), whose
//          first dimension has size 1
// Params   T_IN any type (MODE_NEAREST: what one thread moves of a channel) · T_ACC {float,double}: what sums are kept in · MODE,
//          COORD, ROUND, EXCLUDE_OUTSIDE as in resize.cu · VEC {1,2,4,8,16} channels at once · PER {VEC, 2 VEC, ..}
//          channels of a thread · THREADS {128,256}
// Requires c a multiple of VEC, x and y aligned to VEC elements; n*out_h*out_w and in_h*in_w below 2^31
// Launch   grid = min(ceil(n*out_h*out_w*ceil(c/PER)/THREADS), 2^31-1), the kernel strides · block = THREADS · smem = 0
// Numerics as resize.cu
// Notes    neighbouring threads have neighbouring channels of one pixel: every neighbour is read in whole vectors
#if !defined(T_IN) || !defined(MODE) || !defined(COORD) || !defined(THREADS)
#error "T_IN, MODE, COORD or THREADS is not defined"
#endif
#if !defined(VEC) || !defined(PER) || !defined(T_ACC)
#error "VEC, PER or T_ACC is not defined"
#endif
#include "common/resize.cuh"

// The channels of a thread, of which the first `left` are there.
DEVICE void load_piece(T_IN (&r)[PER], const T_IN* g, i32 left)
{
#pragma unroll
    for (int v = 0; v < PER; v += VEC) {
        T_IN one[VEC] = {};
        if (v < left) load_vec<VEC>(one, g + v);
#pragma unroll
        for (int i = 0; i < VEC; i++) r[v + i] = one[i];
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_IN* x, T_IN* y, const i64 n, const i64 c, const ResizeParams params)
{
    griddepcontrol_wait();
    const u32 oh = (u32)params.out[1], ow = (u32)params.out[2];
    const i32 h = params.in[1], w = params.in[2];
    const i64 pieces = (c + PER - 1) / PER, total = n * oh * ow * pieces;
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
        const u32 row = pixel / ow, image = row / oh;
        const Axis ah = axis_of((i32)(row - image * oh), 1, params), aw = axis_of((i32)(pixel - row * ow), 2, params);
        const bool outside = ah.outside || aw.outside;
        const T_IN* g_x = x + (i64)image * h * w * c + piece * PER;
        const i32 left = c - piece * PER < PER ? (i32)(c - piece * PER) : PER;
        T_IN r[PER] = {};
#if MODE == MODE_NEAREST
        load_piece(r, g_x + (i64)(ah.at[0] * w + aw.at[0]) * c, left);
#if COORD == COORD_TF_CROP_AND_RESIZE
#pragma unroll
        for (int v = 0; v < PER; v++) r[v] = outside ? from_compute<T_IN>(params.extrapolation) : r[v];
#endif
#else
        T_ACC acc[PER] = {};
#pragma unroll
        for (int i = 0; i < TAPS; i++) {
#pragma unroll
            for (int j = 0; j < TAPS; j++) {
                T_IN a[PER] = {};
                load_piece(a, g_x + (i64)(ah.at[i] * w + aw.at[j]) * c, left);
                const T_ACC f = (T_ACC)ah.weight[i] * (T_ACC)aw.weight[j];
#pragma unroll
                for (int v = 0; v < PER; v++) acc[v] += f * (T_ACC)to_compute(a[v]);
            }
        }
#pragma unroll
        for (int v = 0; v < PER; v++) r[v] = weighted_result<T_IN>(outside ? (T_ACC)params.extrapolation : acc[v]);
#endif
        T_IN* g_y = y + (i64)pixel * c + piece * PER;
#pragma unroll
        for (int v = 0; v < PER; v += VEC) {
            T_IN one[VEC];
#pragma unroll
            for (int i = 0; i < VEC; i++) one[i] = r[v + i];
            if (v < left) store_vec<VEC>(g_y + v, one);
        }
    }
}
