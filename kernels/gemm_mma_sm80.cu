// gemm_mma_sm80.cu — batched matrix product on tensor cores (mma.sync): c[b,m,n] = epilogue(alpha * op(a) op(b) + bias)
// Args     as gemm_simt.cu: a, b: T_IN · bias: T_BIAS [n] or [m] · c: T_OUT · params: GemmParams · alpha: float · e0..e3, epi
// Params   T_IN {f16,bf16} · T_OUT · T_BIAS · BLOCK_M {32..256}, BLOCK_N {32..256}, BLOCK_K {16,32,64} block tile ·
//          WARPS_M, WARPS_N warps along each side · STAGES {2..6} shared buffers · TRANS_A, TRANS_B {0,1} ·
//          ALIGNED {0,1} 16-byte asynchronous loads, or element loads · HAS_BIAS, BIAS_ROWS, EPILOGUE {0,1}
// Requires sm_80 · m, n, k < 2^31 · warp tile a multiple of 16 x 16 (static_assert) · ALIGNED 1: lda, ldb, their inner sizes and batch strides
//          are multiples of 8 elements and both addresses of 16 bytes (host checks)
// Launch   grid = common/gemm.cuh · block = 32*WARPS_M*WARPS_N ·
//          smem = 2*STAGES*(A + B) bytes, A = TRANS_A ? BLOCK_K*(BLOCK_M+8) : BLOCK_M*(BLOCK_K+8),
//                                         B = TRANS_B ? BLOCK_N*(BLOCK_K+8) : BLOCK_K*(BLOCK_N+8)
// Numerics products in f16/bf16, sums in f32, k in order: deterministic; class rel(2e-3) f16, rel(1e-2) bf16
// Notes    rows are padded by 16 bytes, so that the eight rows of an ldmatrix fall into different banks
#if !defined(T_IN) || !defined(T_OUT)
#error "T_IN or T_OUT is not defined"
#endif
#if !defined(BLOCK_M) || !defined(BLOCK_N) || !defined(BLOCK_K) || !defined(WARPS_M) || !defined(WARPS_N) || !defined(STAGES)
#error "BLOCK_M, BLOCK_N, BLOCK_K, WARPS_M, WARPS_N or STAGES is not defined"
#endif
#if !defined(TRANS_A) || !defined(TRANS_B) || !defined(ALIGNED) || !defined(HAS_BIAS) || !defined(BIAS_ROWS)
#error "TRANS_A, TRANS_B, ALIGNED, HAS_BIAS or BIAS_ROWS is not defined"
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
#include "common/epilogue.cuh"
#include "common/gemm.cuh"
#include "common/mma_sm80.cuh"

#define THREADS (32 * WARPS_M * WARPS_N)
#define A_OUTER (TRANS_A ? BLOCK_K : BLOCK_M)
#define A_INNER (TRANS_A ? BLOCK_M : BLOCK_K)
#define B_OUTER (TRANS_B ? BLOCK_N : BLOCK_K)
#define B_INNER (TRANS_B ? BLOCK_K : BLOCK_N)
#define A_PITCH (A_INNER + 8)
#define B_PITCH (B_INNER + 8)
#define STAGE_ELEMENTS (A_OUTER * A_PITCH + B_OUTER * B_PITCH)

static_assert(BLOCK_M % (16 * WARPS_M) == 0 && BLOCK_N % (16 * WARPS_N) == 0, "a warp tile is a multiple of 16 x 16");
static_assert(BLOCK_K % 16 == 0 && STAGES >= 2, "whole mma steps and at least two buffers");
static_assert(THREADS <= 1024, "at most 32 warps");

// OUTER rows of INNER contiguous elements to shared memory, zeros past the edge.
template <int OUTER, int INNER>
DEVICE void load_tile(T_IN* s, const T_IN* g, i64 pitch, i32 outer_left, i32 inner_left)
{
#if ALIGNED
    constexpr int CHUNKS = INNER / 8;
    for (int item = threadIdx.x; item < OUTER * CHUNKS; item += THREADS) {
        const int o = item / CHUNKS, in = item % CHUNKS * 8;
        const bool inside = o < outer_left && in < inner_left;
        cp_async_16(shared_address(s + o * (INNER + 8) + in), inside ? g + (i64)o * pitch + in : g, inside ? 16 : 0);
    }
#else
    for (int item = threadIdx.x; item < OUTER * INNER; item += THREADS) {
        const int o = item / INNER, in = item % INNER;
        s[o * (INNER + 8) + in] = o < outer_left && in < inner_left ? g[(i64)o * pitch + in] : T_IN{};
    }
#endif
}

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_IN* a, const T_IN* b, const T_BIAS* bias, T_OUT* c, const GemmParams params, const float alpha,
            const void* e0, const void* e1, const void* e2, const void* e3, const EpilogueStrides epi)
{
    griddepcontrol_wait();
    extern __shared__ uint4 s_bytes[];  // 16-byte aligned
    T_IN* s_tiles = (T_IN*)s_bytes;  // [STAGES, STAGE_ELEMENTS]: a tile, then b tile
    constexpr int WARP_M = BLOCK_M / WARPS_M, WARP_N = BLOCK_N / WARPS_N;
    float acc[WARP_M / 16][WARP_N / 8][4];
#pragma unroll
    for (int i = 0; i < WARP_M / 16; i++)
#pragma unroll
        for (int j = 0; j < WARP_N / 8; j++)
#pragma unroll
            for (int v = 0; v < 4; v++) acc[i][j][v] = 0;

    const GemmTile tile = GemmTile::of_block<BLOCK_M, BLOCK_N, BLOCK_K>(params);
    const i32 m_left = (i32)(params.m - tile.m0), n_left = (i32)(params.n - tile.n0);
    const T_IN* g_a = a + tile.offset(params.stride_a) + (TRANS_A ? tile.k_begin * params.lda + tile.m0 : tile.m0 * params.lda + tile.k_begin);
    const T_IN* g_b = b + tile.offset(params.stride_b) + (TRANS_B ? tile.n0 * params.ldb + tile.k_begin : tile.k_begin * params.ldb + tile.n0);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int warp_m = warp / WARPS_N * WARP_M, warp_n = warp % WARPS_N * WARP_N;
    const i32 k_len = (i32)max(tile.k_end - tile.k_begin, 0ll), k_tiles = (k_len + BLOCK_K - 1) / BLOCK_K;

    auto fetch = [&](int kt) {
        if (kt < k_tiles) {
            T_IN* s_a = s_tiles + kt % STAGES * STAGE_ELEMENTS;
            const i32 k0 = kt * BLOCK_K, left = k_len - k0;
            load_tile<A_OUTER, A_INNER>(s_a, g_a + (TRANS_A ? k0 * params.lda : k0), params.lda, TRANS_A ? left : m_left,
                                        TRANS_A ? m_left : left);
            load_tile<B_OUTER, B_INNER>(s_a + A_OUTER * A_PITCH, g_b + (TRANS_B ? k0 : k0 * params.ldb), params.ldb,
                                        TRANS_B ? n_left : left, TRANS_B ? left : n_left);
        }
        cp_async_commit_group();  // also when empty: the wait below counts groups
    };

    for (int s = 0; s < STAGES - 1; s++) fetch(s);
    for (int kt = 0; kt < k_tiles; kt++) {
        cp_async_wait_group<STAGES - 2>();
        __syncthreads();  // tile kt is there for all, and all have read tile kt-1, whose buffer is filled next
        fetch(kt + STAGES - 1);
        const T_IN* s_a = s_tiles + kt % STAGES * STAGE_ELEMENTS;
        const T_IN* s_b = s_a + A_OUTER * A_PITCH;
#pragma unroll
        for (int kk = 0; kk < BLOCK_K; kk += 16) {
            u32 fa[WARP_M / 16][4], fb[WARP_N / 16][4];
#pragma unroll
            for (int i = 0; i < WARP_M / 16; i++) load_fragment_a<TRANS_A>(fa[i], s_a, A_PITCH, warp_m + i * 16, kk, lane);
#pragma unroll
            for (int j = 0; j < WARP_N / 16; j++) load_fragment_b<TRANS_B>(fb[j], s_b, B_PITCH, warp_n + j * 16, kk, lane);
#pragma unroll
            for (int i = 0; i < WARP_M / 16; i++)
#pragma unroll
                for (int j = 0; j < WARP_N / 8; j++)
                    mma<T_IN>(acc[i][j], fa[i], fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]);
        }
    }
    cp_async_wait_group<0>();

    const Epilogue epilogue_of{{e0, e1, e2, e3}, epi};
    T_OUT* g_c = c + tile.offset(params.stride_c) + GemmTile::split_offset(params);
    const bool pairs = is_aligned<2>(g_c) && params.ldc % 2 == 0;
#pragma unroll
    for (int i = 0; i < WARP_M / 16; i++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const i32 m = tile.m0 + warp_m + i * 16 + half * 8 + lane / 4;
            if (m >= params.m) continue;
#pragma unroll
            for (int j = 0; j < WARP_N / 8; j++) {
                const i32 n = tile.n0 + warp_n + j * 8 + lane % 4 * 2;
                T_OUT y[2];
#pragma unroll
                for (int v = 0; v < 2; v++) {
                    if (n + v < params.n) {
                        float x = acc[i][j][half * 2 + v] * alpha;
#if HAS_BIAS
                        x += to_acc<ACC>(bias[BIAS_ROWS ? m : n + v]);
#endif
                        y[v] = from_acc<T_OUT>(epilogue_of.apply(x, tile.batch[0], tile.batch[1], tile.batch[2], m, n + v));
                    }
                }
                T_OUT* g = g_c + m * params.ldc + n;
                if (pairs && n + 1 < params.n) {
                    store_vec<2>(g, y);
                } else {
                    if (n < params.n) g[0] = y[0];
                    if (n + 1 < params.n) g[1] = y[1];
                }
            }
        }
    }
}
