// gemm_skinny_sm80.cu — batched matrix product with few rows: c[b,m,n] = epilogue(alpha * a op(b) + bias)
// Args     as gemm_simt.cu: a, b: T_IN · bias: T_BIAS [n] or [m] · c: T_OUT · params: GemmParams · alpha: float · e0..e3, epi
// Params   T_IN {f16,bf16} · T_OUT · T_BIAS · BLOCK_M {8,16,32} rows, BLOCK_N {8 (TRANS_B 1), 16, 32, 64} columns of a block ·
//          BLOCK_K 32, of a warp · WARPS {2..32} that share k · TRANS_A 0 · TRANS_B {0,1} · ALIGNED {0,1} vector loads, or element loads · CONST_B {0,1}: no kernel
//          writes b, so that its first loads come before griddepcontrol_wait · HAS_BIAS, BIAS_ROWS, EPILOGUE {0,1}
// Requires sm_80 · m, n, k < 2^31 · a lies [m,k] · ALIGNED 1: lda, ldb, their inner sizes and batch strides are multiples of 8
//          elements and both addresses of 16 bytes (host checks)
// Launch   grid = common/gemm.cuh with gridDim.y = 1 · block = 32*WARPS · smem = 0 (static: 4*WARPS*BLOCK_M*BLOCK_N)
// Numerics products in f16/bf16, sums in f32: each warp sums every WARPS-th 32 of k, then the warps in order: deterministic;
//          class rel(2e-3) f16, rel(1e-2) bf16
// Notes    Weights are read once, straight into fragments of mma.m16n8k16: both operands permute k alike, so that a lane's 8
//          neighbours along k serve two instructions. TRANS_B 0: a lane has neighbours along n, each a column of another instruction
#if !defined(T_IN) || !defined(T_OUT)
#error "T_IN or T_OUT is not defined"
#endif
#if !defined(BLOCK_M) || !defined(BLOCK_N) || !defined(WARPS) || !defined(TRANS_B) || !defined(ALIGNED) || !defined(CONST_B)
#error "BLOCK_M, BLOCK_N, WARPS, TRANS_B, ALIGNED or CONST_B is not defined"
#endif
#if BLOCK_K != 32 || TRANS_A
#error "BLOCK_K is 32 and TRANS_A 0"
#endif
#if !defined(HAS_BIAS) || !defined(BIAS_ROWS)
#error "HAS_BIAS or BIAS_ROWS is not defined"
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

constexpr int STEP = 32 * WARPS;                  // of k, by all warps
constexpr int ROW_TILES = (BLOCK_M + 15) / 16;    // of 16 rows, of which BLOCK_M 8 uses half
constexpr int COLUMN_TILES = BLOCK_N / 8;
constexpr int AHEAD = WARPS * COLUMN_TILES > 32 ? 2 : 4;  // steps of b whose loads are in flight

static_assert(BLOCK_M == 8 || BLOCK_M % 16 == 0, "whole tiles of rows");
static_assert(BLOCK_N % 8 == 0 && (TRANS_B || BLOCK_N >= 16), "whole tiles of columns, loads of 4 bytes at least");
static_assert(4 * WARPS * BLOCK_M * BLOCK_N <= 48 << 10, "static shared memory");

// N elements, zeros from `left` on.
template <int N> union Piece
{
    T_IN v[N];
    u32 w[N / 2];

    DEVICE void load(const T_IN* g, i32 left)
    {
#pragma unroll
        for (int i = 0; i < N / 2; i++) w[i] = 0;
#if ALIGNED
        if (left > 0) load_vec<N>(v, g);
#else
#pragma unroll
        for (int i = 0; i < N; i++)
            if (i < left) v[i] = g[i];
#endif
    }
};

// A lane's part of b for 32 of k: fragments for two instructions along k, of each tile of columns.
struct Weights
{
#if TRANS_B
    Piece<8> piece[COLUMN_TILES];  // column g of tile j, 8 of k

    DEVICE void load(const T_IN* b, const GemmParams& p, i32 n_left, i32 k, i32 k_len, int g, int t)
    {
#pragma unroll
        for (int j = 0; j < COLUMN_TILES; j++)
            piece[j].load(b + (i64)(j * 8 + g) * p.ldb + k + t * 8, j * 8 + g < n_left ? k_len - k - t * 8 : 0);
    }
    DEVICE u32 word(int j, int i) const { return piece[j].w[i]; }
    DEVICE static int column(int j, int c) { return j * 8 + c; }
#else
    Piece<COLUMN_TILES> piece[8];  // one of k each, neighbours along n from COLUMN_TILES*g on

    DEVICE void load(const T_IN* b, const GemmParams& p, i32 n_left, i32 k, i32 k_len, int g, int t)
    {
#pragma unroll
        for (int r = 0; r < 8; r++)
            piece[r].load(b + (i64)(k + t * 8 + r) * p.ldb + g * COLUMN_TILES, k + t * 8 + r < k_len ? n_left - g * COLUMN_TILES : 0);
    }
    // Of k 2*i and 2*i + 1.
    DEVICE u32 word(int j, int i) const { return __byte_perm(piece[2 * i].w[j / 2], piece[2 * i + 1].w[j / 2], j % 2 ? 0x7632 : 0x5410); }
    DEVICE static int column(int j, int c) { return c * COLUMN_TILES + j; }
#endif
};

extern "C" __global__ void __launch_bounds__(32 * WARPS)
KERNEL_NAME(const T_IN* a, const T_IN* b, const T_BIAS* bias, T_OUT* c, const GemmParams params, const float alpha,
            const void* e0, const void* e1, const void* e2, const void* e3, const EpilogueStrides epi)
{
    __shared__ float s_part[WARPS][BLOCK_M][BLOCK_N];
    griddepcontrol_launch_dependents();
    const GemmTile tile = GemmTile::of_block<BLOCK_M, BLOCK_N, 32>(params);
    const i32 m_left = (i32)(params.m - tile.m0), n_left = (i32)(params.n - tile.n0), k_len = (i32)params.k;
    const T_IN* g_a = a + tile.offset(params.stride_a) + tile.m0 * params.lda;
    const T_IN* g_b = b + tile.offset(params.stride_b) + (TRANS_B ? tile.n0 * params.ldb : tile.n0);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    float acc[ROW_TILES][COLUMN_TILES][4];
#pragma unroll
    for (int i = 0; i < ROW_TILES; i++)
#pragma unroll
        for (int j = 0; j < COLUMN_TILES; j++)
#pragma unroll
            for (int v = 0; v < 4; v++) acc[i][j][v] = 0;

    Weights weights[AHEAD];
    if (!CONST_B) griddepcontrol_wait();
#pragma unroll
    for (int i = 0; i < AHEAD; i++) weights[i].load(g_b, params, n_left, warp * 32 + i * STEP, k_len, g, t);
    if (CONST_B) griddepcontrol_wait();
    for (i32 k0 = warp * 32; k0 < k_len; k0 += AHEAD * STEP) {
#pragma unroll
        for (int s = 0; s < AHEAD; s++) {
            const i32 k = k0 + s * STEP;
            Piece<8> rows[ROW_TILES][2];
#pragma unroll
            for (int i = 0; i < ROW_TILES; i++)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    const int m = i * 16 + half * 8 + g;
                    rows[i][half].load(g_a + (i64)m * params.lda + k + t * 8, m < BLOCK_M && m < m_left ? k_len - k - t * 8 : 0);
                }
#pragma unroll
            for (int kk = 0; kk < 2; kk++)
#pragma unroll
                for (int i = 0; i < ROW_TILES; i++) {
                    const u32 fa[4] = {rows[i][0].w[2 * kk], rows[i][1].w[2 * kk], rows[i][0].w[2 * kk + 1], rows[i][1].w[2 * kk + 1]};
#pragma unroll
                    for (int j = 0; j < COLUMN_TILES; j++) mma<T_IN>(acc[i][j], fa, weights[s].word(j, 2 * kk), weights[s].word(j, 2 * kk + 1));
                }
            weights[s].load(g_b, params, n_left, k + AHEAD * STEP, k_len, g, t);
        }
    }

#pragma unroll
    for (int i = 0; i < ROW_TILES; i++)
#pragma unroll
        for (int j = 0; j < COLUMN_TILES; j++)
#pragma unroll
            for (int v = 0; v < 4; v++) {
                const int m = i * 16 + v / 2 * 8 + g;
                if (m < BLOCK_M) s_part[warp][m][Weights::column(j, t * 2 + v % 2)] = acc[i][j][v];
            }
    __syncthreads();
    const Epilogue epilogue_of{{e0, e1, e2, e3}, epi};
    T_OUT* g_c = c + tile.offset(params.stride_c);
    for (int i = threadIdx.x; i < BLOCK_M * BLOCK_N; i += 32 * WARPS) {
        const int row = i / BLOCK_N, column = i % BLOCK_N;
        if (row >= m_left || column >= n_left) continue;
        float x = 0;
#pragma unroll
        for (int w = 0; w < WARPS; w++) x += s_part[w][row][column];
        const i32 m = tile.m0 + row, n = tile.n0 + column;
        x *= alpha;
#if HAS_BIAS
        x += to_acc<ACC>(bias[BIAS_ROWS ? m : n]);
#endif
        g_c[m * params.ldc + n] = from_acc<T_OUT>(epilogue_of.apply(x, tile.batch[0], tile.batch[1], tile.batch[2], m, n));
    }
}
