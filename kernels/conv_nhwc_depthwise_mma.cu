// conv_nhwc_depthwise_mma.cu — one filter a channel, channels last, by tensor cores:
//          y[n,p,q,c] = epilogue(sum_rs w[c,r,s] x[n,ih,iw,c] + bias[c])
// Args     as conv_nhwc_depthwise.cu: x: T_IN [n,h,w,c] · w: T_IN [c,r,s] · bias: T_BIAS [c] or null · y: T_OUT [n,p,q,c] ·
//          params: DepthwiseParams · e0..e3, epi: common/epilogue.cuh, coordinates (n, c, pixel, 0, 0)
// Params   T_IN {f16,bf16} · T_OUT · T_BIAS · FILTER_H, FILTER_W, STRIDE_H, STRIDE_W, DIL_H, DIL_W · LANES {1,2,4} vectors of 8
//          channels of a block · WARPS · ROWS x COLUMNS (even) output pixels of a thread; ROWS > 1 takes DIL_H 1 · MIN_BLOCKS on a
//          multiprocessor · CONST_W {0,1}: no kernel before this one writes w · HAS_BIAS, EPILOGUE {0,1}
// Requires sm_80 · c % 8 == 0, addresses multiples of 16 bytes · items of params below 2^31 (host checks)
// Launch   grid = (ceil(c/8/LANES), blocks along items, any number: the kernel strides) · block = 32*WARPS · smem = 0
// Shared   w as fragments [tap, column of b, channel pair]
// Numerics products in f16/bf16, sums in f32, r, s in order, two neighbours at once: deterministic; class rel(2e-3) f16
// Notes    Filters stand on the diagonal of fragment b: an mma adds two taps to 2 channels of 2 pixels in each lane, out of the
//          packed registers that the lane has loaded. Most products are with zeros, and still this takes an eighth of
//          the instructions. Lane l has channel vector l%4 % LANES; rows l/4 and l/4 + 8 of a fragment are its pixels v and
//          v + COLUMNS/2. An infinity in one channel gives NaN in the others of its fragment.
#if !defined(T_IN) || !defined(T_OUT)
#error "T_IN or T_OUT is not defined"
#endif
#if !defined(FILTER_H) || !defined(FILTER_W) || !defined(STRIDE_H) || !defined(STRIDE_W) || !defined(DIL_H) || !defined(DIL_W)
#error "FILTER_H, FILTER_W, STRIDE_H, STRIDE_W, DIL_H or DIL_W is not defined"
#endif
#if !defined(LANES) || !defined(WARPS) || !defined(ROWS) || !defined(COLUMNS) || !defined(MIN_BLOCKS)
#error "LANES, WARPS, ROWS, COLUMNS or MIN_BLOCKS is not defined"
#endif
#if !defined(HAS_BIAS) || !defined(CONST_W)
#error "HAS_BIAS or CONST_W is not defined"
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
#define TAPS (FILTER_H * FILTER_W)
#define HALF (COLUMNS / 2)
#define WINDOW ((COLUMNS - 1) * STRIDE_W + (FILTER_W - 1) * DIL_W + 1)
#define INPUT_ROWS ((ROWS - 1) * STRIDE_H + FILTER_H)
#define OF_WARP (32 / LANES)  // items of a warp
// Few filters stay in registers.
#define HOLD_B (TAPS <= 9)

static_assert(LANES == 1 || LANES == 2 || LANES == 4, "lanes are channel vectors or pixels");
static_assert(COLUMNS % 2 == 0 && (ROWS == 1 || DIL_H == 1) && THREADS <= 1024, "two pixels in a fragment");

// items = n * groups_p * groups_q, groups of ROWS rows and COLUMNS pixels
struct DepthwiseParams
{
    i32 h, w, c, p, q, pad_h, pad_w, items, per_image, groups_q;  // per_image = groups_p * groups_q
    Magic by_image, by_groups_q;  // per_image, groups_q
};

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS)
KERNEL_NAME(const T_IN* x, const T_IN* w, const T_BIAS* bias, T_OUT* y, const DepthwiseParams params, const void* e0,
            const void* e1, const void* e2, const void* e3, const EpilogueStrides epi)
{
    __shared__ uint4 s_w[TAPS * 8];  // 4 channel pairs of the 8 columns that are not zero in some lane
#if !CONST_W
    griddepcontrol_wait();
#endif
    const i32 first = blockIdx.x * (8 * LANES);
    for (int i = threadIdx.x; i < TAPS * 8 * LANES; i += THREADS) {
        const int c = i / TAPS, side = c % 2;
        const u32 v = first + c < params.c ? (u32)w[(i64)first * TAPS + i].bits << 16 * side : 0;
#pragma unroll
        for (int quad = 0; quad < 4; quad += LANES) ((u32*)s_w)[(i % TAPS * 8 + (quad + c / 8) * 2 + side) * 4 + c % 8 / 2] = v;
    }
#if CONST_W
    griddepcontrol_wait();
#endif
    __syncthreads();  // orders the filters before all reads

    const int lane = threadIdx.x % 32, quad = lane % 4;
    const i32 channel = first + quad % LANES * 8;
    const bool has_channel = channel < params.c;
    const Epilogue epilogue_of{{e0, e1, e2, e3}, epi};
    float b[8] = {};
    if (has_channel) bias_channels(b, bias, channel);
    // Column l/4 of fragment b has its filter in the lane whose rows are that channel's.
    const bool diagonal = lane / 8 == quad;
    auto filters = [&](int tap) { return diagonal ? s_w[tap * 8 + lane / 4] : make_uint4(0, 0, 0, 0); };
#if HOLD_B
    uint4 held[TAPS];
#pragma unroll
    for (int t = 0; t < TAPS; t++) held[t] = filters(t);
#endif

    const i32 of_block = OF_WARP * WARPS;
    for (i32 base = blockIdx.y * of_block; base < params.items; base += gridDim.y * of_block) {
        const i32 item = base + threadIdx.x / 32 * OF_WARP + lane / 4 + quad / LANES * 8;
        const i32 image = (i32)divide(item, params.by_image), in_image = item - image * params.per_image;
        const i32 group_p = (i32)divide(in_image, params.by_groups_q), group_q = in_image - group_p * params.groups_q;
        const bool active = has_channel && item < params.items;
        const i32 p0 = group_p * ROWS, q0 = group_q * COLUMNS;
        const i32 h0 = p0 * STRIDE_H - params.pad_h, w0 = q0 * STRIDE_W - params.pad_w;
        const i32 width = active ? params.w : 0;  // nothing is inside of an inactive lane's image
        const T_IN* g_x = x + ((i64)image * params.h * params.w + w0) * params.c + channel;
        float acc[ROWS][HALF][4][4];
#pragma unroll
        for (int o = 0; o < ROWS; o++)
#pragma unroll
            for (int v = 0; v < HALF; v++)
#pragma unroll
                for (int j = 0; j < 4; j++)
#pragma unroll
                    for (int i = 0; i < 4; i++) acc[o][v][j][i] = b[2 * j + i % 2];
#pragma unroll
        for (int row = 0; row < INPUT_ROWS; row++) {
            const i32 h = h0 + row * DIL_H;
            const bool row_inside = (u32)h < (u32)params.h;
            const T_IN* g_row = g_x + (i64)h * params.w * params.c;
            u32 in[WINDOW][4];
#pragma unroll
            for (int j = 0; j < WINDOW; j++) {
                uint4 v = make_uint4(0, 0, 0, 0);
                if (row_inside && (u32)(w0 + j) < (u32)width) v = *(const uint4*)(g_row + j * params.c);
                in[j][0] = v.x, in[j][1] = v.y, in[j][2] = v.z, in[j][3] = v.w;
            }
#pragma unroll
            for (int o = 0; o < ROWS; o++) {
                const int r = row - o * STRIDE_H;
                if (r < 0 || r >= FILTER_H) continue;
#pragma unroll
                for (int s = 0; s < FILTER_W; s += 2) {
                    constexpr int LAST = FILTER_W - 1;
                    const int s1 = s < LAST ? s + 1 : s;
#if HOLD_B
                    const uint4 f0 = held[r * FILTER_W + s], f1 = held[r * FILTER_W + s1];
#else
                    const uint4 f0 = filters(r * FILTER_W + s), f1 = filters(r * FILTER_W + s1);
#endif
                    const u32 b0[4] = {f0.x, f0.y, f0.z, f0.w}, b1[4] = {f1.x, f1.y, f1.z, f1.w};
#pragma unroll
                    for (int v = 0; v < HALF; v++) {
                        const int at = v * STRIDE_W, far = (v + HALF) * STRIDE_W;
#pragma unroll
                        for (int j = 0; j < 4; j++) {
                            const u32 a0 = in[at + s * DIL_W][j], a1 = in[far + s * DIL_W][j];
                            if (s < LAST) {
                                const u32 a[4] = {a0, a1, in[at + s1 * DIL_W][j], in[far + s1 * DIL_W][j]};
                                mma<T_IN>(acc[o][v][j], a, b0[j], b1[j]);
                            } else {
                                mma_8<T_IN>(acc[o][v][j], a0, a1, b0[j]);
                            }
                        }
                    }
                }
            }
        }
        if (!active) continue;
#pragma unroll
        for (int o = 0; o < ROWS; o++) {
#pragma unroll
            for (int v = 0; v < COLUMNS; v++) {
                if (p0 + o >= params.p || q0 + v >= params.q) continue;
                const i32 pixel = (p0 + o) * params.q + q0 + v;
                float r[8];
#pragma unroll
                for (int i = 0; i < 8; i++) r[i] = acc[o][v % HALF][i / 2][v / HALF * 2 + i % 2];
                apply_channels(r, epilogue_of, image, channel, pixel);
                store_channels(y + ((i64)image * params.p * params.q + pixel) * params.c + channel, r);
            }
        }
    }
}
