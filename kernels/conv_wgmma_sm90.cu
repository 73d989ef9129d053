// conv_wgmma_sm90.cu — convolution with channels last as an implicit product by wgmma:
//     y[n,p,q,m] = epilogue(sum over r,s,c of x[n, p*sh-ph+r*dh, q*sw-pw+s*dw, c] * w[m,r,s,c] + bias[m])
// Seen as a matrix product: a row for each output pixel of all images, a column for each output channel, and steps of 64
// channels of one tap along k, channels innermost.
// Args     map_x: POINT 0: im2col of x T_IN [n,h,w,c], 64 channels and TILE_M pixels, lower corner the padding before, upper
//          corner such that q and p positions are left; POINT 1: x as [n*h*w, c], box (TILE_M, 64) · map_w: w T_IN [m, r*s, c],
//          box (TILE_N, 1, 64); both SWIZZLE_128B · map_y: y T_OUT [n*p*q, m], box (64, EPI_COLS), SWIZZLE_128B, or 64B
//          where EPI_COLS is 32 · bias: T_BIAS [m] · params: TileParams · taps: TapParams · e0..e3, epi as in
//          common/epilogue.cuh with coordinates (image, pixel, 0, row, m), row = image*p*q + pixel; image and pixel are 0 unless
//          BY_IMAGE
// Params   T_IN {f16,bf16} · T_OUT {f16,bf16} · T_BIAS · tile: common/sm90_tile.cuh with TRANS_B 1 · MIN_BLOCKS on a
//          multiprocessor · POINT {0,1}: the filter has one tap, stride 1, no padding · HAS_BIAS, EPILOGUE, BY_IMAGE {0,1}
// Requires sm_90a · c and m multiples of 8, addresses multiples of 16 bytes, corners in [-128, 127], taps at most 255
//          away from the first one, strides up to 8 (host checks) · n*p*q, tiles, steps < 2^31
// Launch   as gemm_wgmma_sm90.cu [ops/conv/wgmma.rs]
// Numerics products in f16/bf16, sums in f32, k in order: deterministic; class rel(2e-3) f16, rel(1e-2) bf16
// Notes    The engine calls griddepcontrol_wait first. Channels past c, pixels outside of an image and rows past the last image are loaded as zeros. A step past the last
//          one (TILE_K 128, an odd number of steps) reads channels past c on both sides
#if !defined(T_IN) || !defined(T_OUT)
#error "T_IN or T_OUT is not defined"
#endif
#if !defined(HAS_BIAS) || !defined(MIN_BLOCKS) || !defined(POINT) || !defined(BY_IMAGE)
#error "HAS_BIAS, MIN_BLOCKS, POINT or BY_IMAGE is not defined"
#endif
#if HAS_BIAS && !defined(T_BIAS)
#error "T_BIAS is not defined"
#endif
#if !HAS_BIAS
#undef T_BIAS
#define T_BIAS T_IN
#endif
#define INDEX64 0
#include "common/types.cuh"
typedef float ACC;
#include "common/index.cuh"
#include "common/sm90_finish.cuh"
#include "common/sm90_tile.cuh"

struct Divisor
{
    u32 magic, shift;
};

struct TapParams
{
    i32 pq, q;  // output pixels of an image, of a row
    i32 stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
    i32 filter_w;
    i32 c_blocks, steps;  // 64-channel blocks of a tap, of all taps
    Divisor by_pq, by_q, by_filter_w, by_c_blocks;
};

DEVICE i32 divide(i32 n, const Divisor& d) { return (i32)fast_div((u32)n, d.magic, d.shift); }

struct ConvLoader
{
    const TensorMap *x, *w;
    const TapParams& t;
    i32 m0, n0;
    i32 image, h0, w0;  // where tap (0, 0) of the tile's first pixel reads

    DEVICE void prefetch() const
    {
        prefetch_tensormap(x);
        prefetch_tensormap(w);
    }

    DEVICE void tile(i32 m, i32 n, i32, i32)
    {
        m0 = m, n0 = n;
#if !POINT
        image = divide(m, t.by_pq);
        const i32 pixel = m - image * t.pq, p = divide(pixel, t.by_q);
        h0 = p * t.stride_h - t.pad_h;
        w0 = (pixel - p * t.q) * t.stride_w - t.pad_w;
#endif
    }

    // Tap and first channel of a 64-channel step.
    DEVICE void at(i32 step, i32& tap, i32& c) const
    {
        tap = divide(step, t.by_c_blocks);
        c = (step - tap * t.c_blocks) * 64;
        if (TILE_K > 64 && step >= t.steps) tap = 0, c = t.c_blocks * 64;
    }

    DEVICE void load_a(u32 s, u32 bar, i32 k) const
    {
#pragma unroll
        for (int kb = 0; kb < K_BLOCKS; kb++) {
#if POINT
            cp_async_bulk_tensor_2d_load(s + kb * TILE_M * 128, x, bar, (k * K_BLOCKS + kb) * 64, m0);
#else
            i32 tap, c;
            at(k * K_BLOCKS + kb, tap, c);
            const i32 fh = divide(tap, t.by_filter_w), fw = tap - fh * t.filter_w;
            cp_async_bulk_tensor_im2col_load(s + kb * TILE_M * 128, x, bar, c, w0, h0, image, (u16)(fw * t.dilation_w), (u16)(fh * t.dilation_h));
#endif
        }
    }

    DEVICE void load_b(u32 s, u32 bar, i32 k) const
    {
#pragma unroll
        for (int kb = 0; kb < K_BLOCKS; kb++) {
            i32 tap = 0, c = (k * K_BLOCKS + kb) * 64;
#if !POINT
            at(k * K_BLOCKS + kb, tap, c);
#endif
            cp_async_bulk_tensor_3d_load(s + kb * TILE_N * 128, w, bar, c, tap, n0);
        }
    }
};

struct ConvPlace
{
    const TapParams& t;

    DEVICE void tile(i32) const {}

    DEVICE void coords(i32 m, i32 n, i32 (&c)[5]) const
    {
        const i32 image = BY_IMAGE ? divide(m, t.by_pq) : 0;
        c[0] = image, c[1] = BY_IMAGE ? m - image * t.pq : 0, c[2] = 0, c[3] = m, c[4] = n;
    }
};

TILE_KERNEL KERNEL_NAME(const __grid_constant__ TensorMap map_x, const __grid_constant__ TensorMap map_w, const __grid_constant__ TensorMap map_y,
            const T_BIAS* bias, const TileParams params, const TapParams taps,
            const void* e0, const void* e1, const void* e2, const void* e3, const EpilogueStrides epi)
{
    const Epilogue epilogue_of{{e0, e1, e2, e3}, epi};
    ConvLoader loader{&map_x, &map_w, taps, 0, 0, 0, 0, 0};
    TileFinish<ConvPlace> finish{epilogue_of, bias, 1, {taps}};
    tile_engine(loader, finish, &map_y, &map_y, (T_OUT*)0, params);
}
