// conv_nhwc_first.cu — a convolution over few channels, on tensor cores (mma.sync), to channels last:  y = epilogue(w * x + bias)
// Args     x: T_IN [n,PLANES,h,w] · w: T_IN [m,PLANES,FILTER_H,FILTER_W] · bias: T_BIAS [m] or null · y: T_OUT [n,p,q,m] ·
//          params: FirstParams · e0..e3, epi: common/epilogue.cuh, coordinates (n, m, pixel, 0, 0)
//          An input with its channels last is one plane of width w*c under filters of width s*c, with stride and padding
//          times c.
// Params   T_IN {f16,bf16} · T_OUT · T_BIAS · PLANES · FILTER_H, FILTER_W, STRIDE_H, STRIDE_W, DIL_H · TAP_PITCH even: a row of
//          a filter as it is multiplied, FILTER_W + params.lead at most · TILE_H rows of 16*TILE_Q pixels: a block's tile ·
//          BLOCK_N channels of a block, WARP_N {16,32,64} of a warp · WARPS · FRAGMENTS {1,2,4} of 16 pixels that a warp
//          multiplies at once · VEC_Y {1,2,4,8} channels of a store · CONST_W {0,1}: no kernel before this one writes w ·
//          HAS_BIAS, EPILOGUE {0,1}
// Requires sm_80 · m % VEC_Y == 0, addresses multiples of 16 bytes · params.shift = (-pad_w) mod 8, params.lead = shift % 2
// Launch   grid = (min(tiles, multiprocessors times blocks on one), ceil(m/BLOCK_N)) · block = 32*WARPS ·
//          smem = 2*(BLOCK_N*W_PITCH + 2*TILE_ELEMENTS) + 4*WARPS*16*(WARP_N+8)
// Shared   filters [channel, k], two input tiles [plane and row, column], results of a fragment by warp
// Numerics products in f16/bf16, sums in f32, (plane, r, s) in order: deterministic; class rel(2e-3) f16, rel(1e-2) bf16
// Notes    k is (plane, r, tap) with each filter row padded to TAP_PITCH: two neighbouring taps of a pixel are one aligned
//          word of the input tile, so fragments are read from it without unfolding. Taps that only pad multiply an input by
//          zero: an infinity next to a window gives NaN. Filters start `lead` taps late where the padding is odd.
#if !defined(T_IN) || !defined(T_OUT)
#error "T_IN or T_OUT is not defined"
#endif
#if !defined(PLANES) || !defined(FILTER_H) || !defined(FILTER_W) || !defined(STRIDE_H) || !defined(STRIDE_W) || !defined(DIL_H)
#error "PLANES, FILTER_H, FILTER_W, STRIDE_H, STRIDE_W or DIL_H is not defined"
#endif
#if !defined(TAP_PITCH) || !defined(TILE_H) || !defined(TILE_Q) || !defined(BLOCK_N) || !defined(WARP_N) || !defined(WARPS)
#error "TAP_PITCH, TILE_H, TILE_Q, BLOCK_N, WARP_N or WARPS is not defined"
#endif
#if !defined(FRAGMENTS) || !defined(VEC_Y) || !defined(CONST_W) || !defined(HAS_BIAS)
#error "FRAGMENTS, VEC_Y, CONST_W or HAS_BIAS is not defined"
#endif
#if HAS_BIAS && !defined(T_BIAS)
#error "T_BIAS is not defined"
#endif
#if !HAS_BIAS
#undef T_BIAS
#define T_BIAS T_IN
#endif
#include "common/types.cuh"
typedef float ACC;
#include "common/mma_sm80.cuh"
#include "common/nhwc.cuh"

#define THREADS (32 * WARPS)
#define TILE_W (16 * TILE_Q)
#define FILTER_ROWS (PLANES * FILTER_H)
#define K_STEPS ((FILTER_ROWS * TAP_PITCH + 15) / 16)
#define W_PITCH (16 * K_STEPS + 8)
#define INPUT_H ((TILE_H - 1) * STRIDE_H + (FILTER_H - 1) * DIL_H + 1)
// A tile begins at a multiple of 8 columns, up to 7 before the first one that is read.
#define INPUT_PITCH (((TILE_W - 1) * STRIDE_W + TAP_PITCH + 6 + 7) / 8 * 8)
#define INPUT_ROWS (PLANES * INPUT_H)
#define TILE_ELEMENTS (INPUT_ROWS * INPUT_PITCH)
#define WARPS_N (BLOCK_N / WARP_N)
#define WARPS_M (WARPS / WARPS_N)
#define SEGMENTS (TILE_H * TILE_Q)
// Filter fragments stay in registers where they are few.
#define HOLD_B (K_STEPS * WARP_N / 4 <= 96)

static_assert(TAP_PITCH % 2 == 0 && BLOCK_N % WARP_N == 0 && WARP_N % 16 == 0 && WARPS % WARPS_N == 0, "whole fragments");
static_assert(TILE_Q % FRAGMENTS == 0 || FRAGMENTS % TILE_Q == 0, "a round is whole rows or within one");
static_assert(SEGMENTS % (WARPS_M * FRAGMENTS) == 0, "a warp takes whole rounds of fragments");
static_assert(WARP_N % VEC_Y == 0 && THREADS <= 1024, "whole stores");

struct FirstParams
{
    i32 n, h, w, m, p, q, pad_h, pad_w, shift, lead, tiles, tiles_p, tiles_q;
    Magic by_image, by_tiles_q;  // tiles_p * tiles_q, tiles_q
};

DEVICE u32 pair_at(const T_IN* s)
{
#if STRIDE_W % 2 == 0
    return *(const u32*)s;
#else
    return (u32)((const u16*)s)[0] | (u32)((const u16*)s)[1] << 16;
#endif
}

struct Tile
{
    i32 image, p0, q0;

    DEVICE static Tile of(i32 tile, const FirstParams& p)
    {
        Tile t;
        t.image = (i32)divide(tile, p.by_image);
        const i32 in_image = tile - t.image * p.tiles_p * p.tiles_q, row = (i32)divide(in_image, p.by_tiles_q);
        t.p0 = row * TILE_H;
        t.q0 = (in_image - row * p.tiles_q) * TILE_W;
        return t;
    }
};

// The inputs of a tile, zeros outside of the image.
DEVICE void load_tile(T_IN* s_x, const T_IN* x, const Tile& t, const FirstParams& p, bool whole_pieces)
{
    const i32 h0 = t.p0 * STRIDE_H - p.pad_h, w0 = t.q0 * STRIDE_W - p.pad_w - p.shift;
    const T_IN* g_image = x + (i64)t.image * PLANES * p.h * p.w;
    if (whole_pieces) {
        constexpr int PIECES = INPUT_PITCH / 8;
        for (int i = threadIdx.x; i < INPUT_ROWS * PIECES; i += THREADS) {
            const int row = i / PIECES, plane = row / INPUT_H;
            const i32 h = h0 + row % INPUT_H, column = w0 + i % PIECES * 8;
            const bool inside = (u32)h < (u32)p.h && (u32)column < (u32)p.w;
            cp_async_16(shared_address(s_x + i * 8), inside ? g_image + ((i64)plane * p.h + h) * p.w + column : x, inside ? 16 : 0);
        }
    } else {
        for (int i = threadIdx.x; i < INPUT_ROWS * INPUT_PITCH; i += THREADS) {
            const int row = i / INPUT_PITCH, plane = row / INPUT_H;
            const i32 h = h0 + row % INPUT_H, column = w0 + i % INPUT_PITCH;
            const bool inside = (u32)h < (u32)p.h && (u32)column < (u32)p.w;
            s_x[i] = inside ? g_image[((i64)plane * p.h + h) * p.w + column] : T_IN{};
        }
    }
    cp_async_commit_group();
}

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_IN* x, const T_IN* w, const T_BIAS* bias, T_OUT* y, const FirstParams params, const void* e0,
            const void* e1, const void* e2, const void* e3, const EpilogueStrides epi)
{
    extern __shared__ uint4 s_bytes[];
    T_IN* s_w = (T_IN*)s_bytes;
    T_IN* s_x = s_w + BLOCK_N * W_PITCH;
    float* s_out = (float*)(s_x + 2 * TILE_ELEMENTS) + threadIdx.x / 32 * 16 * (WARP_N + 8);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int warp_n = warp % WARPS_N * WARP_N, warp_m = warp / WARPS_N;
    const i32 n0 = blockIdx.y * BLOCK_N;

#if !CONST_W
    griddepcontrol_wait();
#endif
    for (int i = threadIdx.x; i < BLOCK_N * W_PITCH / 8; i += THREADS) s_bytes[i] = make_uint4(0, 0, 0, 0);
    __syncthreads();  // zeros before filters
    {
        constexpr int OF_CHANNEL = FILTER_ROWS * FILTER_W, TOTAL = BLOCK_N * OF_CHANNEL;
        const T_IN* g_w = w + (i64)n0 * OF_CHANNEL;
        const i32 last = min(BLOCK_N, params.m - n0) * OF_CHANNEL;
        auto place = [&](int i, T_IN v) {
            const int channel = i / OF_CHANNEL, in = i % OF_CHANNEL;
            s_w[channel * W_PITCH + in / FILTER_W * TAP_PITCH + in % FILTER_W + params.lead] = v;
        };
        if (is_aligned<8>(g_w)) {
            for (int i = threadIdx.x * 8; i < TOTAL; i += THREADS * 8) {
                T_IN v[8];
                if (i + 8 <= last) {
                    load_vec(v, g_w + i);
#pragma unroll
                    for (int j = 0; j < 8; j++) place(i + j, v[j]);
                } else {
                    for (int j = i; j < last; j++) place(j, g_w[j]);
                }
            }
        } else {
            for (int i = threadIdx.x; i < last; i += THREADS) place(i, g_w[i]);
        }
    }
#if CONST_W
    griddepcontrol_wait();
#endif

    const bool whole_pieces = params.w % 8 == 0 && is_aligned<8>(x);
    i32 tile = blockIdx.x;
    if (tile >= params.tiles) return;
    load_tile(s_x, x, Tile::of(tile, params), params, whole_pieces);

    // Where a lane's two pairs of each step begin in the input tile. Where a row of taps is whole groups of 8, all lanes read one
    // row, and the compiler sees which words rows of pixels share.
    auto row_at = [&](int row) {
        // Past the end the filters are zero: any row serves.
        if (row >= FILTER_ROWS) row = 0;
        return (row / FILTER_H * INPUT_H + row % FILTER_H * DIL_H) * INPUT_PITCH;
    };
    const int pair = lane % 4 * 2;
#if TAP_PITCH % 8 == 0
    auto offset = [&](int k, int half) { return row_at((k * 16 + half * 8) / TAP_PITCH) + (k * 16 + half * 8) % TAP_PITCH; };
    const int first_column = params.shift - params.lead + lane / 4 * STRIDE_W + pair;
#else
    int offsets[K_STEPS][2];
#pragma unroll
    for (int k = 0; k < K_STEPS; k++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int kk = k * 16 + half * 8 + pair;
            offsets[k][half] = row_at(kk / TAP_PITCH) + kk % TAP_PITCH;
        }
    }
    auto offset = [&](int k, int half) { return offsets[k][half]; };
    const int first_column = params.shift - params.lead + lane / 4 * STRIDE_W;
#endif

#if HOLD_B
    u32 held[K_STEPS][WARP_N / 16][4];
    __syncthreads();  // the filters are complete
#pragma unroll
    for (int k = 0; k < K_STEPS; k++)
#pragma unroll
        for (int j = 0; j < WARP_N / 16; j++) load_fragment_b<true>(held[k][j], s_w, W_PITCH, warp_n + j * 16, k * 16, lane);
#endif

    // From the first segment of a round to segment f: a round lies in whole rows or within one.
    auto next_segment = [&](int f) {
        return f / TILE_Q * STRIDE_H * INPUT_PITCH + f % TILE_Q * 16 * STRIDE_W;
    };
    const Epilogue epilogue_of{{e0, e1, e2, e3}, epi};
    float b[WARP_N / 8][2];
    bias_fragment(b, bias, n0 + warp_n, params.m);
    for (int stage = 0; tile < params.tiles; tile += gridDim.x, stage ^= 1) {
        const Tile at = Tile::of(tile, params);
        cp_async_wait_group<0>();
        __syncthreads();  // this tile is complete, and all have read the other one
        if (tile + (i32)gridDim.x < params.tiles)
            load_tile(s_x + (stage ^ 1) * TILE_ELEMENTS, x, Tile::of(tile + gridDim.x, params), params, whole_pieces);
        const T_IN* s_tile = s_x + stage * TILE_ELEMENTS;
        for (int round = 0; round < SEGMENTS / (WARPS_M * FRAGMENTS); round++) {
            const int segment0 = (round * WARPS_M + warp_m) * FRAGMENTS;
            // Rows of the tile past the edge need no work; a round lies in one row or in neighbouring ones.
            if (at.p0 + segment0 / TILE_Q >= params.p) continue;
            float acc[FRAGMENTS][WARP_N / 8][4];
#pragma unroll
            for (int f = 0; f < FRAGMENTS; f++)
#pragma unroll
                for (int j = 0; j < WARP_N / 8; j++)
#pragma unroll
                    for (int v = 0; v < 4; v++) acc[f][j][v] = 0;
            const T_IN* s_first = s_tile + segment0 / TILE_Q * STRIDE_H * INPUT_PITCH + segment0 % TILE_Q * 16 * STRIDE_W + first_column;
#pragma unroll
            for (int k = 0; k < K_STEPS; k++) {
                u32 fb[WARP_N / 16][4];
#pragma unroll
                for (int j = 0; j < WARP_N / 16; j++) {
#if HOLD_B
#pragma unroll
                    for (int v = 0; v < 4; v++) fb[j][v] = held[k][j][v];
#else
                    load_fragment_b<true>(fb[j], s_w, W_PITCH, warp_n + j * 16, k * 16, lane);
#endif
                }
#pragma unroll
                for (int f = 0; f < FRAGMENTS; f++) {
                    u32 fa[4];
#pragma unroll
                    for (int v = 0; v < 4; v++) fa[v] = pair_at(s_first + next_segment(f) + offset(k, v / 2) + v % 2 * 8 * STRIDE_W);
#pragma unroll
                    for (int j = 0; j < WARP_N / 8; j++) mma<T_IN>(acc[f][j], fa, fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]);
                }
            }
#pragma unroll
            for (int f = 0; f < FRAGMENTS; f++) {
                const int segment = segment0 + f;
                const i32 p_at = at.p0 + segment / TILE_Q, q_at = at.q0 + segment % TILE_Q * 16;
                store_fragments<VEC_Y>(s_out, acc[f], b, epilogue_of, y, [&](int row, int column) {
                    Place r;
                    r.image = at.image;
                    r.channel = n0 + warp_n + column;
                    r.pixel = p_at * params.q + q_at + row;
                    r.inside = p_at < params.p && q_at + row < params.q && r.channel < params.m;
                    r.offset = ((i64)at.image * params.p * params.q + r.pixel) * params.m + r.channel;
                    return r;
                });
            }
        }
    }
}
