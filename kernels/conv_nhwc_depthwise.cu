// conv_nhwc_depthwise.cu — one filter a channel, channels last:  y[n,p,q,c] = epilogue(sum_rs w[c,r,s] x[n,ih,iw,c] + bias[c])
// Args     x: T_IN [n,h,w,c] · w: T_IN [c,r,s] · bias: T_BIAS [c] or null · y: T_OUT [n,p,q,c] · params: DepthwiseParams ·
//          e0..e3, epi: common/epilogue.cuh, coordinates (n, c, pixel, 0, 0)
// Params   T_IN {f16,bf16,float} · T_OUT · T_BIAS · FILTER_H, FILTER_W, STRIDE_H, STRIDE_W, DIL_H, DIL_W ·
//          VEC {1,2,4,8} channels of a thread, LANES such vectors side by side in a block of THREADS ·
//          ROWS x COLUMNS output pixels of a thread; ROWS > 1 takes DIL_H 1 · SLIDING {0,1}: a window of inputs slides along a
//          row in registers, all taps unrolled; 0 takes ROWS = COLUMNS = 1 · MIN_BLOCKS on a multiprocessor · CONST_W {0,1}: no kernel before this one writes w ·
//          HAS_BIAS, EPILOGUE {0,1}
// Requires c % VEC == 0, addresses multiples of VEC elements · items of params below 2^31 (host checks)
// Launch   grid = (ceil(c/VEC/LANES), min(ceil(items/(THREADS/LANES)), 65535)) · block = THREADS · smem = 0
// Shared   w in float, transposed to [tap, channel]
// Numerics FMA in float, r, s in order: deterministic; class rel(2e-3) f16
#if !defined(T_IN) || !defined(T_OUT)
#error "T_IN or T_OUT is not defined"
#endif
#if !defined(FILTER_H) || !defined(FILTER_W) || !defined(STRIDE_H) || !defined(STRIDE_W) || !defined(DIL_H) || !defined(DIL_W)
#error "FILTER_H, FILTER_W, STRIDE_H, STRIDE_W, DIL_H or DIL_W is not defined"
#endif
#if !defined(VEC) || !defined(LANES) || !defined(THREADS) || !defined(ROWS) || !defined(COLUMNS) || !defined(SLIDING) || !defined(MIN_BLOCKS)
#error "VEC, LANES, THREADS, ROWS, COLUMNS, SLIDING or MIN_BLOCKS is not defined"
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
#include "common/nhwc.cuh"

#define PIXELS (THREADS / LANES)  // threads along pixels
#define CHANNELS (LANES * VEC)
#define TAPS (FILTER_H * FILTER_W)
#define WINDOW ((COLUMNS - 1) * STRIDE_W + (FILTER_W - 1) * DIL_W + 1)
#define INPUT_ROWS ((ROWS - 1) * STRIDE_H + FILTER_H)

static_assert(LANES <= THREADS && THREADS <= 1024, "at most 1024 threads");
static_assert(ROWS == 1 || DIL_H == 1, "several rows of a thread read neighbouring rows");
static_assert(SLIDING || (ROWS == 1 && COLUMNS == 1), "without a window, one pixel a thread");

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
    __shared__ __attribute__((aligned(16))) float s_w[TAPS * CHANNELS];
#if !CONST_W
    griddepcontrol_wait();
#endif
    const i32 first = blockIdx.x * CHANNELS;
    for (int i = threadIdx.x; i < TAPS * CHANNELS; i += THREADS) {
        const int c = i / TAPS;
        if (first + c < params.c) s_w[i % TAPS * CHANNELS + c] = to_acc<float>(w[(i64)first * TAPS + i]);
    }
#if CONST_W
    griddepcontrol_wait();
#endif
    __syncthreads();  // orders the filters before all reads

    const int lane = threadIdx.x % LANES, place = threadIdx.x / LANES;
    const i32 channel = first + lane * VEC;
    if (channel >= params.c || place >= PIXELS) return;
    const float* s_mine = s_w + lane * VEC;
    const Epilogue epilogue_of{{e0, e1, e2, e3}, epi};
    float b[VEC];
    bias_channels(b, bias, channel);

    for (i32 item = blockIdx.y * PIXELS + place; item < params.items; item += gridDim.y * PIXELS) {
        const i32 image = (i32)divide(item, params.by_image), in_image = item - image * params.per_image;
        const i32 group_p = (i32)divide(in_image, params.by_groups_q), group_q = in_image - group_p * params.groups_q;
        const i32 p0 = group_p * ROWS, q0 = group_q * COLUMNS;
        const i32 h0 = p0 * STRIDE_H - params.pad_h, w0 = q0 * STRIDE_W - params.pad_w;
        const T_IN* g_x = x + (i64)image * params.h * params.w * params.c + channel;
        float acc[ROWS][COLUMNS][VEC];
#pragma unroll
        for (int o = 0; o < ROWS; o++)
#pragma unroll
            for (int v = 0; v < COLUMNS; v++)
#pragma unroll
                for (int i = 0; i < VEC; i++) acc[o][v][i] = b[i];
#if SLIDING
        const T_IN* g_column = g_x + (i64)w0 * params.c;
#pragma unroll
        for (int row = 0; row < INPUT_ROWS; row++) {
            const i32 h = h0 + row * DIL_H;
            const bool row_inside = (u32)h < (u32)params.h;
            const T_IN* g_row = g_column + (i64)h * params.w * params.c;
            Channels<VEC, T_IN> in[WINDOW];
#pragma unroll
            for (int j = 0; j < WINDOW; j++) {
                in[j].clear();
                if (row_inside && (u32)(w0 + j) < (u32)params.w) in[j].load(g_row + j * params.c);
            }
            float f[ROWS][FILTER_W][VEC];
#pragma unroll
            for (int o = 0; o < ROWS; o++) {
                const int r = row - o * STRIDE_H;
                if (r < 0 || r >= FILTER_H) continue;
#pragma unroll
                for (int s = 0; s < FILTER_W; s++) load_vec(f[o][s], s_mine + (r * FILTER_W + s) * CHANNELS);
            }
#pragma unroll
            for (int j = 0; j < WINDOW; j++) {
                float v[VEC];
                in[j].unpack(v);
#pragma unroll
                for (int o = 0; o < ROWS; o++) {
                    const int r = row - o * STRIDE_H;
                    if (r < 0 || r >= FILTER_H) continue;
#pragma unroll
                    for (int s = 0; s < FILTER_W; s++) {
                        const int from = j - s * DIL_W, column = from / STRIDE_W;
                        if (from < 0 || from % STRIDE_W != 0 || column >= COLUMNS) continue;
#pragma unroll
                        for (int i = 0; i < VEC; i++) acc[o][column][i] += f[o][s][i] * v[i];
                    }
                }
            }
        }
#else
        for (int r = 0; r < FILTER_H; r++) {
            const i32 h = h0 + r * DIL_H;
            if ((u32)h >= (u32)params.h) continue;
            for (int s = 0; s < FILTER_W; s++) {
                const i32 column = w0 + s * DIL_W;
                if ((u32)column >= (u32)params.w) continue;
                float f[VEC], v[VEC];
                Channels<VEC, T_IN> in;
                load_vec(f, s_mine + (r * FILTER_W + s) * CHANNELS);
                in.load(g_x + ((i64)h * params.w + column) * params.c);
                in.unpack(v);
#pragma unroll
                for (int i = 0; i < VEC; i++) acc[0][0][i] += f[i] * v[i];
            }
        }
#endif
#pragma unroll
        for (int o = 0; o < ROWS; o++) {
#pragma unroll
            for (int v = 0; v < COLUMNS; v++) {
                if (p0 + o >= params.p || q0 + v >= params.q) continue;
                const i32 pixel = (p0 + o) * params.q + q0 + v;
                apply_channels(acc[o][v], epilogue_of, image, channel, pixel);
                store_channels(y + ((i64)image * params.p * params.q + pixel) * params.c + channel, acc[o][v]);
            }
        }
    }
}
