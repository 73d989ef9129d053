// conv_wgmma_sm90.cu — convolution with channels last as an implicit product by wgmma:
//     y[n,p,q,m] = epilogue(sum over r,s,c of x[n, p*sh-ph+r*dh, q*sw-pw+s*dw, c] * w[m,r,s,c] + bias[m])
// Seen as a matrix product: a row for each output pixel of all images, a column for each output channel, and steps of
// K_BLOCK channels of one tap along k, channels innermost.
// Args     map_x: im2col of x T_IN [n,h,w,c], K_BLOCK channels and TILE_M pixels, lower corner the padding before, upper corner
//          such that q and p positions are left · map_w: w T_IN [m, r*s, c], box (TILE_N/CLUSTER, 1, K_BLOCK); both
//          SWIZZLE_128B · map_y: y T_OUT [n*p*q, m], map_r: the residual as y (RESIDUAL 0: any map), boxes as in
//          common/sm90_tile.cuh · bias: T_BIAS [m] · y: T_OUT, where map_y starts · params: ConvTileParams · e0..e3, epi as in
//          common/epilogue.cuh with coordinates (image, pixel, 0, row, m), row = image*p*q + pixel; image and pixel are 0 unless
//          BY_IMAGE
// Params   T_IN {f16,bf16, float as TF32} · T_OUT {f16,bf16,float} · tile: common/sm90_tile.cuh with TRANS_A 0, TRANS_B 1,
//          BATCHED 0 · bias and epilogue: common/sm90_finish.cuh · BY_IMAGE {0,1}
// Requires sm_90a · pixels and taps of 16 bytes times a number, m even, rows of y multiples of 16 bytes, addresses multiples
//          of 16 bytes, corners in [-128, 127], taps at most 255 away from the first one, strides up to 8 (host checks) ·
//          n*p*q, tiles, steps < 2^31
// Launch   common/sm90_tile.cuh [ops/conv/wgmma.rs]
// Numerics products in f16/bf16/TF32, sums in f32, k in order, or SPLIT_K parts of it: deterministic; class rel(2e-3) f16,
//          rel(1e-2) bf16
// Notes    The engine calls griddepcontrol_wait. Channels past c, pixels outside of an image and rows past the last image are
//          loaded as zeros. A step past the last one (K_BLOCKS 2, an odd number of steps) reads channels past c on both sides
#if !defined(T_IN) || !defined(T_OUT)
#error "T_IN or T_OUT is not defined"
#endif
#if !defined(HAS_BIAS) || !defined(BIAS_ROWS) || !defined(BY_IMAGE)
#error "HAS_BIAS, BIAS_ROWS or BY_IMAGE is not defined"
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

static_assert(!TRANS_A && TRANS_B && !BATCHED && !BIAS_ROWS, "a convolution reads both operands along k, and has one output");

struct Divisor
{
    u32 magic, shift;
};

struct ConvTileParams
{
    TileParams tile;
    i32 pq, q;  // output pixels of an image, of a row
    i32 stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
    i32 filter_w;
    i32 c_blocks, steps;  // K_BLOCK channels each: of a tap, of all taps
    Divisor by_pq, by_q, by_filter_w, by_c_blocks;
};

DEVICE i32 divide(i32 n, const Divisor& d) { return (i32)fast_div((u32)n, d.magic, d.shift); }

struct ConvLoader
{
    const TensorMap *x, *w;
    const ConvTileParams& p;
    i32 n0, rank;
    i32 image, h0, w0;  // where tap (0, 0) of the tile's first pixel reads

    DEVICE void prefetch() const
    {
        prefetch_tensormap(x);
        prefetch_tensormap(w);
    }

    DEVICE void tile(i32 m, i32 n, i32, i32 r)
    {
        n0 = n, rank = r;
        image = divide(m, p.by_pq);
        const i32 pixel = m - image * p.pq, row = divide(pixel, p.by_q);
        h0 = row * p.stride_h - p.pad_h;
        w0 = (pixel - row * p.q) * p.stride_w - p.pad_w;
    }

    // Tap and first channel of a step.
    DEVICE void at(i32 step, i32& tap, i32& c) const
    {
        tap = divide(step, p.by_c_blocks);
        c = (step - tap * p.c_blocks) * K_BLOCK;
        if (K_BLOCKS > 1 && step >= p.steps) tap = 0, c = p.c_blocks * K_BLOCK;
    }

    DEVICE void load_a(u32 s, u32 bar, i32 k) const
    {
#pragma unroll
        for (int kb = 0; kb < K_BLOCKS; kb++) {
            i32 tap, c;
            at(k * K_BLOCKS + kb, tap, c);
            const i32 row = divide(tap, p.by_filter_w), column = tap - row * p.filter_w;
            cp_async_bulk_tensor_im2col_load(s + kb * TILE_M * 128, x, bar, c, w0, h0, image, (u16)(column * p.dilation_w), (u16)(row * p.dilation_h));
        }
    }

    DEVICE void load_b(u32 s, u32 bar, i32 k) const
    {
        constexpr int PART = TILE_N / CLUSTER;  // rows of a box
#pragma unroll
        for (int kb = 0; kb < K_BLOCKS; kb++) {
            i32 tap, c;
            at(k * K_BLOCKS + kb, tap, c);
            const i32 part = CLUSTER > 1 ? rank * PART : 0;
            const u32 s_box = s + kb * TILE_N * 128 + part * 128;
            if (CLUSTER > 1) cp_async_bulk_tensor_3d_load_multicast(s_box, w, bar, c, tap, n0 + part, (1 << CLUSTER) - 1);
            else cp_async_bulk_tensor_3d_load(s_box, w, bar, c, tap, n0);
        }
    }
};

struct ConvPlace
{
    const ConvTileParams& p;

    DEVICE void tile(i32) {}

    DEVICE void coords(i32 m, i32 n, i32 (&c)[5]) const
    {
        c[0] = BY_IMAGE ? divide(m, p.by_pq) : 0, c[1] = BY_IMAGE ? m - c[0] * p.pq : 0, c[2] = 0, c[3] = m, c[4] = n;
    }
};

TILE_KERNEL KERNEL_NAME(const __grid_constant__ TensorMap map_x, const __grid_constant__ TensorMap map_w,
                        const __grid_constant__ TensorMap map_y, const __grid_constant__ TensorMap map_r, const T_BIAS* bias, T_OUT* y,
                        const ConvTileParams params,
                        const void* e0, const void* e1, const void* e2, const void* e3, const EpilogueStrides epi)
{
    const Epilogue epilogue_of{{e0, e1, e2, e3}, epi};
    ConvLoader loader{&map_x, &map_w, params, 0, 0, 0, 0, 0};
    TileFinish<ConvPlace> finish{epilogue_of, bias, 1.0f, {params}};
    tile_engine(loader, finish, &map_y, &map_r, y, params.tile);
}
