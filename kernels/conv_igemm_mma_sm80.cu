// conv_igemm_mma_sm80.cu — convolution as a product, on tensor cores (mma.sync):  y = epilogue(w * unfold(x) + bias)
// Args     as conv_igemm_simt.cu: x: T_IN [n,c,h,w] · w: T_IN [k,c/groups,r,s] · bias: T_BIAS [k] or null · y: T_OUT [n,k,p,q] ·
//          params: ConvParams · e0..e3, epi, coordinates (n, k, pixel, 0, 0)
// Params   T_IN {f16,bf16} · T_OUT · T_BIAS · BLOCK_M {32..128} channels, BLOCK_N {32,64,128} pixels, BLOCK_K {16,32,64} ·
//          WARPS_M, WARPS_N · FILTER_H, FILTER_W {0 = run time, or the filter} · ALIGNED {0,1}: crs % 8 == 0 and w 16-byte
//          aligned, so that filters are loaded 16 bytes at a time · HAS_BIAS, EPILOGUE {0,1}
// Requires sm_80 · warp tile a multiple of 16 x 16, THREADS % BLOCK_N == 0 (static_asserts)
// Launch   grid = (ceil(n*p*q/BLOCK_N), ceil(k_group/BLOCK_M), groups*splits) · block = 32*WARPS_M*WARPS_N ·
//          smem = 4*(BLOCK_M*(BLOCK_K+8) + BLOCK_K*(BLOCK_N+8)) bytes
//          splits > 1: compile with T_OUT = T_ACC (float, or double), HAS_BIAS 0, EPILOGUE 0, give y splits*n*out_image
//          elements, and run split_finish.cu on it
// Numerics products in f16/bf16, sums in f32, c, r, s in order: deterministic; class rel(2e-3) f16, rel(1e-2) bf16
// Notes    x is gathered element by element (NCHW has no 16-byte runs along crs): the next tile waits in registers while
//          this one is multiplied. A 1x1 filter with stride 1 and no padding is better a batched product.
#if !defined(T_IN) || !defined(T_OUT)
#error "T_IN or T_OUT is not defined"
#endif
#if !defined(BLOCK_M) || !defined(BLOCK_N) || !defined(BLOCK_K) || !defined(WARPS_M) || !defined(WARPS_N)
#error "BLOCK_M, BLOCK_N, BLOCK_K, WARPS_M or WARPS_N is not defined"
#endif
#if !defined(HAS_BIAS) || !defined(ALIGNED)
#error "HAS_BIAS or ALIGNED is not defined"
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
#include "common/conv.cuh"
#include "common/epilogue.cuh"
#include "common/mma_sm80.cuh"

#define THREADS (32 * WARPS_M * WARPS_N)
#define A_PITCH (BLOCK_K + 8)
#define B_PITCH (BLOCK_N + 8)
#define STAGE_ELEMENTS (BLOCK_M * A_PITCH + BLOCK_K * B_PITCH)
#define ROWS_PER_PASS (THREADS / BLOCK_N)
#define B_ITEMS (BLOCK_K / ROWS_PER_PASS)

static_assert(BLOCK_M % (16 * WARPS_M) == 0 && BLOCK_N % (16 * WARPS_N) == 0, "a warp tile is a multiple of 16 x 16");
static_assert(BLOCK_K % 16 == 0 && THREADS <= 1024, "whole mma steps, at most 32 warps");
static_assert(THREADS % BLOCK_N == 0 && BLOCK_K % ROWS_PER_PASS == 0, "a thread keeps its pixel over all rows that it loads");

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_IN* x, const T_IN* w, const T_BIAS* bias, T_OUT* y, const ConvParams params, const void* e0,
            const void* e1, const void* e2, const void* e3, const EpilogueStrides epi)
{
    griddepcontrol_wait();
    extern __shared__ uint4 s_bytes[];  // 16-byte aligned
    T_IN* s_tiles = (T_IN*)s_bytes;  // [2, STAGE_ELEMENTS]: w tile [channel, crs], then x tile [crs, pixel]
    __shared__ __attribute__((aligned(16))) Tap s_taps[2][BLOCK_K];  // [tile parity, crs]
    constexpr int WARP_M = BLOCK_M / WARPS_M, WARP_N = BLOCK_N / WARPS_N;
    float acc[WARP_M / 16][WARP_N / 8][4];
#pragma unroll
    for (int i = 0; i < WARP_M / 16; i++)
#pragma unroll
        for (int j = 0; j < WARP_N / 8; j++)
#pragma unroll
            for (int v = 0; v < 4; v++) acc[i][j][v] = 0;

    const Split split = Split::of_block<BLOCK_K>(params);
    const i32 n_pixels = params.n * params.pq, group = split.group;
    const i32 n0 = blockIdx.x * BLOCK_N, m0 = blockIdx.y * BLOCK_M;
    const i32 load_n = threadIdx.x % BLOCK_N, load_row = threadIdx.x / BLOCK_N;
    const Gather gather = Gather::of(n0 + load_n, n_pixels, params);
    const T_IN* g_x = x + (i64)gather.at.image * params.in_image + (i64)group * params.c_group * params.h * params.w;
    const T_IN* g_w = w + ((i64)group * params.k_group + m0) * params.crs;
    const i32 m_left = params.k_group - m0;

    // The filter tile goes straight to shared memory, the input tile through registers.
    auto fetch_w = [&](i32 k0, int stage) {
        T_IN* s_w = s_tiles + stage * STAGE_ELEMENTS;
#if ALIGNED
        for (int item = threadIdx.x; item < BLOCK_M * BLOCK_K / 8; item += THREADS) {
            const int m = item / (BLOCK_K / 8), in = item % (BLOCK_K / 8) * 8;
            const bool inside = m < m_left && k0 + in < params.crs;
            cp_async_16(shared_address(s_w + m * A_PITCH + in), inside ? g_w + (i64)m * params.crs + k0 + in : w, inside ? 16 : 0);
        }
#else
        for (int item = threadIdx.x; item < BLOCK_M * BLOCK_K; item += THREADS) {
            const int m = item / BLOCK_K, in = item % BLOCK_K;
            s_w[m * A_PITCH + in] = m < m_left && k0 + in < params.crs ? g_w[(i64)m * params.crs + k0 + in] : T_IN{};
        }
#endif
        cp_async_commit_group();
    };
    T_IN r_x[B_ITEMS];
    auto load_x = [&](i32 k0) {
        // Both tables were filled before the last barrier.
        const Tap* taps = s_taps[k0 / BLOCK_K % 2];
        if (has_tap_bits(params)) {
#pragma unroll
            for (int i = 0; i < B_ITEMS; i++) r_x[i] = gather.read(g_x, taps[load_row + i * ROWS_PER_PASS]);
        } else {
#pragma unroll
            for (int i = 0; i < B_ITEMS; i++) r_x[i] = gather.read_compared(g_x, k0 + load_row + i * ROWS_PER_PASS, params);
        }
    };
    auto store_x = [&](int stage) {
        T_IN* s_x = s_tiles + stage * STAGE_ELEMENTS + BLOCK_M * A_PITCH;
#pragma unroll
        for (int i = 0; i < B_ITEMS; i++) s_x[(load_row + i * ROWS_PER_PASS) * B_PITCH + load_n] = r_x[i];
    };

    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int warp_m = warp / WARPS_N * WARP_M, warp_n = warp % WARPS_N * WARP_N;
    auto fill_taps = [&](i32 k0) {
        for (int i = threadIdx.x; i < BLOCK_K; i += THREADS) s_taps[k0 / BLOCK_K % 2][i] = Tap::of(k0 + i, params);
    };
    fill_taps(split.k_begin);
    fill_taps(split.k_begin + BLOCK_K);
    __syncthreads();  // orders the tables before the first loads
    fetch_w(split.k_begin, 0);
    load_x(split.k_begin);
    store_x(0);
    for (i32 k0 = split.k_begin, stage = 0; k0 < split.k_end; k0 += BLOCK_K, stage ^= 1) {
        cp_async_wait_group<0>();
        __syncthreads();  // this stage is complete, and all have read the other one, which is filled next
        const bool more = k0 + BLOCK_K < split.k_end;
        if (more) {
            fetch_w(k0 + BLOCK_K, stage ^ 1);
            load_x(k0 + BLOCK_K);
        }
        fill_taps(k0 + 2 * BLOCK_K);  // over the table of this tile, which was read before the barrier
        const T_IN* s_w = s_tiles + stage * STAGE_ELEMENTS;
        const T_IN* s_x = s_w + BLOCK_M * A_PITCH;
#pragma unroll
        for (int kk = 0; kk < BLOCK_K; kk += 16) {
            u32 fa[WARP_M / 16][4], fb[WARP_N / 16][4];
#pragma unroll
            for (int i = 0; i < WARP_M / 16; i++) load_fragment_a<false>(fa[i], s_w, A_PITCH, warp_m + i * 16, kk, lane);
#pragma unroll
            for (int j = 0; j < WARP_N / 16; j++) load_fragment_b<false>(fb[j], s_x, B_PITCH, warp_n + j * 16, kk, lane);
#pragma unroll
            for (int i = 0; i < WARP_M / 16; i++)
#pragma unroll
                for (int j = 0; j < WARP_N / 8; j++)
                    mma<T_IN>(acc[i][j], fa[i], fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]);
        }
        if (more) store_x(stage ^ 1);
    }

    const Epilogue epilogue_of{{e0, e1, e2, e3}, epi};
    y += (i64)split.index * params.n * params.out_image;
#pragma unroll
    for (int j = 0; j < WARP_N / 8; j++) {
#pragma unroll
        for (int side = 0; side < 2; side++) {
            const i32 flat = n0 + warp_n + j * 8 + lane % 4 * 2 + side;
            if (flat >= n_pixels) continue;
            const i32 image = (i32)divide(flat, params.by_pq), pixel = flat - image * params.pq;
#pragma unroll
            for (int i = 0; i < WARP_M / 16 * 2; i++) {
                const i32 m = m0 + warp_m + i * 8 + lane / 4, channel = group * params.k_group + m;
                if (m >= params.k_group) continue;
                float v = acc[i / 2][j][i % 2 * 2 + side];
#if HAS_BIAS
                v += to_acc<ACC>(bias[channel]);
#endif
                v = epilogue_of.apply(v, image, channel, pixel, 0, 0);
                y[(i64)image * params.out_image + (i64)channel * params.pq + pixel] = from_acc<T_OUT>(v);
            }
        }
    }
}
