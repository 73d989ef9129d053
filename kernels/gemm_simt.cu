// gemm_simt.cu — batched matrix product on scalar units:  c[b,m,n] = epilogue(alpha * sum_k op(a)[b,m,k] op(b)[b,k,n] + bias)
// Args     a, b: T_IN · bias: T_BIAS [n] (BIAS_ROWS: [m]), null without HAS_BIAS · c: T_OUT, all row-major, described by
//          params: GemmParams (common/gemm.cuh) · alpha: float · e0..e3, epi: common/epilogue.cuh, coordinates (b0,b1,b2,m,n)
// Params   T_IN {float,f16,bf16,double; i32,u32,i64,u64 with alpha 1} · T_OUT · T_BIAS · BLOCK_M, BLOCK_N {16..128} output tile · BLOCK_K {4,8,16,32} ·
//          THREAD_M, THREAD_N {1,2,4,8} outputs per thread · TRANS_A, TRANS_B {0,1} · VEC {1,2,4,8} elements per load ·
//          HAS_BIAS, BIAS_ROWS, EPILOGUE {0,1}
// Requires static_asserts below · VEC > 1: lda, ldb, their inner sizes and batch strides are multiples of VEC and both
//          addresses are aligned to VEC elements (host checks)
// Launch   grid = common/gemm.cuh · block = (BLOCK_M/THREAD_M)*(BLOCK_N/THREAD_N) · smem = 0
// Numerics FMA in float (double for double), k in order: deterministic; class rel(1e-5) f32, rel(2e-3) f16; integers are
//          summed in 64 bits and wrap to their type: exact
// Notes    register prefetch of the next k tile, two shared buffers, one barrier a tile
#if !defined(T_IN) || !defined(T_OUT)
#error "T_IN or T_OUT is not defined"
#endif
#if !defined(BLOCK_M) || !defined(BLOCK_N) || !defined(BLOCK_K) || !defined(THREAD_M) || !defined(THREAD_N) || !defined(VEC)
#error "BLOCK_M, BLOCK_N, BLOCK_K, THREAD_M, THREAD_N or VEC is not defined"
#endif
#if !defined(TRANS_A) || !defined(TRANS_B) || !defined(HAS_BIAS) || !defined(BIAS_ROWS)
#error "TRANS_A, TRANS_B, HAS_BIAS or BIAS_ROWS is not defined"
#endif
#if HAS_BIAS && !defined(T_BIAS)
#error "T_BIAS is not defined"
#endif
#if !HAS_BIAS
#undef T_BIAS
#define T_BIAS T_IN
#endif
#include "common/types.cuh"
typedef Acc<T_IN>::type ACC;
#include "common/epilogue.cuh"
#include "common/gemm.cuh"

#define THREADS ((BLOCK_M / THREAD_M) * (BLOCK_N / THREAD_N))
#define PAD (16 / (int)sizeof(ACC))  // keeps rows 16-byte aligned, and spreads transposed stores over the banks

static_assert(BLOCK_M % THREAD_M == 0 && BLOCK_N % THREAD_N == 0, "thread tiles divide the block tile");
static_assert(THREADS % 32 == 0 && THREADS <= 1024, "a block is whole warps, at most 32");
static_assert(BLOCK_K % VEC == 0 && BLOCK_M % VEC == 0 && BLOCK_N % VEC == 0, "vectors divide the tile");
static_assert(BLOCK_M * BLOCK_K % (THREADS * VEC) == 0 && BLOCK_N * BLOCK_K % (THREADS * VEC) == 0,
              "each thread loads the same number of vectors");
static_assert(2 * BLOCK_K * (BLOCK_M + BLOCK_N + 2 * PAD) * sizeof(ACC) <= 48 * 1024, "tiles fit static shared memory");

// OUTER rows of INNER contiguous elements into registers, zeros past the edge.
template <int OUTER, int INNER>
DEVICE void load_tile(T_IN (&r)[OUTER * INNER / THREADS], const T_IN* g, i64 pitch, i64 outer_left, i64 inner_left)
{
#pragma unroll
    for (int i = 0; i < OUTER * INNER / THREADS / VEC; i++) {
        const int item = threadIdx.x + i * THREADS, o = item / (INNER / VEC), in = item % (INNER / VEC) * VEC;
        T_IN x[VEC];
        if (o < outer_left && in < inner_left) {
            load_vec<VEC>(x, g + o * pitch + in);
        } else {
#pragma unroll
            for (int v = 0; v < VEC; v++) x[v] = T_IN{};
        }
#pragma unroll
        for (int v = 0; v < VEC; v++) r[i * VEC + v] = x[v];
    }
}

// Registers of load_tile into s[k][x]; K_INNER: the contiguous direction was k.
template <int OUTER, int INNER, bool K_INNER, int PITCH>
DEVICE void store_tile(ACC (*s)[PITCH], const T_IN (&r)[OUTER * INNER / THREADS])
{
#pragma unroll
    for (int i = 0; i < OUTER * INNER / THREADS / VEC; i++) {
        const int item = threadIdx.x + i * THREADS, o = item / (INNER / VEC), in = item % (INNER / VEC) * VEC;
#pragma unroll
        for (int v = 0; v < VEC; v++) {
            if (K_INNER) s[in + v][o] = to_acc<ACC>(r[i * VEC + v]);
            else s[o][in + v] = to_acc<ACC>(r[i * VEC + v]);
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_IN* a, const T_IN* b, const T_BIAS* bias, T_OUT* c, const GemmParams params, const float alpha,
            const void* e0, const void* e1, const void* e2, const void* e3, const EpilogueStrides epi)
{
    griddepcontrol_wait();
    __shared__ __attribute__((aligned(16))) ACC s_a[2][BLOCK_K][BLOCK_M + PAD];  // [stage, k, m]
    __shared__ __attribute__((aligned(16))) ACC s_b[2][BLOCK_K][BLOCK_N + PAD];  // [stage, k, n]
    constexpr int A_OUTER = TRANS_A ? BLOCK_K : BLOCK_M, A_INNER = TRANS_A ? BLOCK_M : BLOCK_K;
    constexpr int B_OUTER = TRANS_B ? BLOCK_N : BLOCK_K, B_INNER = TRANS_B ? BLOCK_K : BLOCK_N;
    T_IN r_a[BLOCK_M * BLOCK_K / THREADS], r_b[BLOCK_N * BLOCK_K / THREADS];
    ACC acc[THREAD_M][THREAD_N];
#pragma unroll
    for (int i = 0; i < THREAD_M; i++)
#pragma unroll
        for (int j = 0; j < THREAD_N; j++) acc[i][j] = 0;

    const GemmTile tile = GemmTile::of_block<BLOCK_M, BLOCK_N, BLOCK_K>(params);
    const i64 m_left = params.m - tile.m0, n_left = params.n - tile.n0;
    const T_IN* g_a = a + tile.offset(params.stride_a) + (TRANS_A ? tile.k_begin * params.lda + tile.m0 : tile.m0 * params.lda + tile.k_begin);
    const T_IN* g_b = b + tile.offset(params.stride_b) + (TRANS_B ? tile.n0 * params.ldb + tile.k_begin : tile.k_begin * params.ldb + tile.n0);
    const i64 step_a = TRANS_A ? BLOCK_K * params.lda : BLOCK_K, step_b = TRANS_B ? BLOCK_K : BLOCK_K * params.ldb;
    const int tx = threadIdx.x % (BLOCK_N / THREAD_N), ty = threadIdx.x / (BLOCK_N / THREAD_N);

    i64 k_left = tile.k_end - tile.k_begin;
    load_tile<A_OUTER, A_INNER>(r_a, g_a, params.lda, TRANS_A ? k_left : m_left, TRANS_A ? m_left : k_left);
    load_tile<B_OUTER, B_INNER>(r_b, g_b, params.ldb, TRANS_B ? n_left : k_left, TRANS_B ? k_left : n_left);
    for (int stage = 0; k_left > 0; stage ^= 1) {
        store_tile<A_OUTER, A_INNER, !TRANS_A>(s_a[stage], r_a);
        store_tile<B_OUTER, B_INNER, TRANS_B>(s_b[stage], r_b);
        __syncthreads();  // orders this stage's stores before its reads, and the other stage's reads before its next stores
        k_left -= BLOCK_K;
        if (k_left > 0) {
            g_a += step_a;
            g_b += step_b;
            load_tile<A_OUTER, A_INNER>(r_a, g_a, params.lda, TRANS_A ? k_left : m_left, TRANS_A ? m_left : k_left);
            load_tile<B_OUTER, B_INNER>(r_b, g_b, params.ldb, TRANS_B ? n_left : k_left, TRANS_B ? k_left : n_left);
        }
#pragma unroll
        for (int kk = 0; kk < BLOCK_K; kk++) {
            ACC x[THREAD_M], y[THREAD_N];
#pragma unroll
            for (int i = 0; i < THREAD_M; i++) x[i] = s_a[stage][kk][ty * THREAD_M + i];
#pragma unroll
            for (int j = 0; j < THREAD_N; j++) y[j] = s_b[stage][kk][tx * THREAD_N + j];
#pragma unroll
            for (int i = 0; i < THREAD_M; i++)
#pragma unroll
                for (int j = 0; j < THREAD_N; j++) acc[i][j] += x[i] * y[j];
        }
    }

    const Epilogue epilogue_of{{e0, e1, e2, e3}, epi};
    T_OUT* g_c = c + tile.offset(params.stride_c) + GemmTile::split_offset(params);
#pragma unroll
    for (int i = 0; i < THREAD_M; i++) {
        const i32 m = tile.m0 + ty * THREAD_M + i;
#pragma unroll
        for (int j = 0; j < THREAD_N; j++) {
            const i32 n = tile.n0 + tx * THREAD_N + j;
            if (m < params.m && n < params.n) {
                ACC x = acc[i][j] * (ACC)alpha;
#if HAS_BIAS
                x += to_acc<ACC>(bias[BIAS_ROWS ? m : n]);
#endif
                x = epilogue_of.apply(x, tile.batch[0], tile.batch[1], tile.batch[2], m, n);
                g_c[m * params.ldc + n] = from_acc<T_OUT>(x);
            }
        }
    }
}
