// conv_nhwc_mma.cu — convolution with channels last as a product, on tensor cores (mma.sync):  y = epilogue(unfold(x) * w + bias)
// Args     x: T_IN [n,h,w,c], or (X_FIRST) [n,c,h,w] · w: T_IN [m,r,s,c/groups], or (X_FIRST) [m,c/groups,r,s] ·
//          bias: T_BIAS [m] or null · y: T_OUT [n,p,q,m] · params: MmaParams · e0..e3, epi: common/epilogue.cuh, coordinates
//          (n, m, pixel, 0, 0)
// Params   T_IN {f16,bf16} · T_OUT · T_BIAS · BLOCK_M {16..128} pixels, BLOCK_N {16..128} channels, BLOCK_K {32,64} · WARPS_M,
//          WARPS_N · STAGES {2..5} · VEC_A, VEC_B {1,2,4,8} elements of a load · VEC_Y {1,2,4,8} channels of a store · X_FIRST
//          {0,1} · JOINED {0,1}: a block's group is several of the convolution's, whose filters stand on a diagonal · CONST_W
//          {0,1}: no kernel before this one writes w · HAS_BIAS, EPILOGUE {0,1}
// Requires sm_80 · channels of a group a multiple of VEC_A and (JOINED: of the convolution's) of VEC_B, k_total of VEC_B, m_group
//          of VEC_Y; X_FIRST: s, w, stride_w, pad_w multiples of VEC_A, dil_w 1 where VEC_A > 1 · addresses multiples of 16 bytes
// Launch   grid = (ceil(m_group/BLOCK_N) * groups * ceil(n*p*q/BLOCK_M), splits) · block = 32*WARPS_M*WARPS_N ·
//          smem = max(2*STAGES*(BLOCK_M+BLOCK_N)*(BLOCK_K+8), 4*WARPS_M*WARPS_N*16*(BLOCK_N/WARPS_N+8)) + 16*BLOCK_M
//          splits > 1: compile with T_OUT = float, HAS_BIAS 0, EPILOGUE 0, give y splits*n*p*q*m elements, and run
//          split_finish.cu on it
// Numerics products in f16/bf16, sums in f32, k in order: deterministic; class rel(2e-3) f16, rel(1e-2) bf16
// Notes    k is (r, s, c), X_FIRST (c, r, s): as filters lie in memory
#if !defined(T_IN) || !defined(T_OUT)
#error "T_IN or T_OUT is not defined"
#endif
#if !defined(BLOCK_M) || !defined(BLOCK_N) || !defined(BLOCK_K) || !defined(WARPS_M) || !defined(WARPS_N) || !defined(STAGES)
#error "BLOCK_M, BLOCK_N, BLOCK_K, WARPS_M, WARPS_N or STAGES is not defined"
#endif
#if !defined(VEC_A) || !defined(VEC_B) || !defined(VEC_Y) || !defined(X_FIRST) || !defined(JOINED)
#error "VEC_A, VEC_B, VEC_Y, X_FIRST or JOINED is not defined"
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

#define THREADS (32 * WARPS_M * WARPS_N)
#define PITCH (BLOCK_K + 8)
#define STAGE_ELEMENTS ((BLOCK_M + BLOCK_N) * PITCH)
#define WARP_M (BLOCK_M / WARPS_M)
#define WARP_N (BLOCK_N / WARPS_N)
#define OUT_PITCH (WARP_N + 8)
#define RING_BYTES (2 * STAGES * STAGE_ELEMENTS)
#define OUT_BYTES (4 * WARPS_M * WARPS_N * 16 * OUT_PITCH)
#define TABLE_AT ((RING_BYTES > OUT_BYTES ? RING_BYTES : OUT_BYTES) / 16)

static_assert(BLOCK_M % (16 * WARPS_M) == 0 && BLOCK_N % (16 * WARPS_N) == 0 && BLOCK_K % 16 == 0, "whole fragments");
static_assert(THREADS % (BLOCK_K / VEC_A) == 0 && THREADS % (BLOCK_K / VEC_B) == 0, "a thread keeps its column");
static_assert(WARP_N % VEC_Y == 0 && STAGES >= 2 && THREADS <= 1024, "whole stores");

// groups, c_group and m_group are those of blocks; JOINED: the convolution's groups have c_single and m_single channels.
struct MmaParams
{
    i32 n, h, w, c, m, p, q, groups, c_group, m_group, c_single, m_single, k_total, taps, s;
    i32 stride_h, stride_w, pad_h, pad_w, dil_h, dil_w, pixels, blocks_n;
    // p*q, q, c_group (X_FIRST: r*s), s, blocks_n, groups, c_single, m_single
    Magic by_pq, by_q, by_inner, by_s, by_blocks_n, by_groups, by_c_single, by_m_single;
};

// Where a row of the unfolded input begins: the input position of tap (0, 0), perhaps outside; h = -2^30 past the last pixel.
struct Row
{
    i32 h, w;
    i64 base;
};

// What a position along k means for every row alike.
struct Step
{
    i32 dh, dw, inside;
    i64 offset;

    DEVICE static Step of(i32 k, const MmaParams& p)
    {
        Step t;
        t.inside = k < p.k_total;
        const i32 outer = (i32)divide(k, p.by_inner);
#if X_FIRST
        const i32 tap = k - outer * p.taps;
#else
        const i32 tap = outer;
#endif
        const i32 r = (i32)divide(tap, p.by_s), s = tap - r * p.s;
        t.dh = r * p.dil_h;
        t.dw = s * p.dil_w;
#if X_FIRST
        t.offset = ((i64)outer * p.h + t.dh) * p.w + t.dw;
#else
        t.offset = ((i64)t.dh * p.w + t.dw) * p.c + (k - outer * p.c_group);
#endif
        return t;
    }
};

template <int V> DEVICE void copy_piece(T_IN* s, const T_IN* g, bool inside)
{
    if constexpr (V >= 2) cp_async_ca<2 * V>(shared_address(s), g, inside ? 2 * V : 0);
    else *s = inside ? *g : T_IN{};
}

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_IN* x, const T_IN* w, const T_BIAS* bias, T_OUT* y, const MmaParams params, const void* e0,
            const void* e1, const void* e2, const void* e3, const EpilogueStrides epi)
{
    extern __shared__ uint4 s_bytes[];
    T_IN* s_tiles = (T_IN*)s_bytes;  // [STAGES, STAGE_ELEMENTS]: x tile [pixel, k], then w tile [channel, k]
    Row* s_rows = (Row*)(s_bytes + TABLE_AT);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int warp_m = warp / WARPS_N * WARP_M, warp_n = warp % WARPS_N * WARP_N;

    i32 m_block, group, n0;
    {
        const i32 rest = (i32)divide(blockIdx.x, params.by_blocks_n);
        n0 = ((i32)blockIdx.x - rest * params.blocks_n) * BLOCK_N;
        m_block = (i32)divide(rest, params.by_groups);
        group = rest - m_block * params.groups;
    }
    const i32 m0 = m_block * BLOCK_M;
    const i32 all_steps = (params.k_total + BLOCK_K - 1) / BLOCK_K, each = (all_steps + gridDim.y - 1) / gridDim.y;
    const i32 step_begin = blockIdx.y * each, steps = min(each, all_steps - step_begin);

    for (int i = threadIdx.x; i < BLOCK_M; i += THREADS) {
        const i32 flat = m0 + i, image = (i32)divide(flat, params.by_pq), pixel = flat - image * params.p * params.q;
        const i32 oh = (i32)divide(pixel, params.by_q), ow = pixel - oh * params.q;
        Row r;
        r.h = oh * params.stride_h - params.pad_h;
        r.w = ow * params.stride_w - params.pad_w;
#if X_FIRST
        r.base = (((i64)image * params.c + (i64)group * params.c_group) * params.h + r.h) * params.w + r.w;
#else
        r.base = (((i64)image * params.h + r.h) * params.w + r.w) * params.c + group * params.c_group;
#endif
        if (flat >= params.pixels) r.h = -(1 << 30);
        s_rows[i] = r;
    }

    auto load_b = [&](i32 step, int stage) {
        constexpr int PIECES = BLOCK_K / VEC_B;
        T_IN* s_b = s_tiles + stage * STAGE_ELEMENTS + BLOCK_M * PITCH;
        const int in = threadIdx.x % PIECES * VEC_B;
        const i32 k = (step_begin + step) * BLOCK_K + in;
        const bool inside = k < params.k_total;
#if JOINED
        const i32 tap = (i32)divide(k, params.by_inner), c = k - tap * params.c_group, single = (i32)divide(c, params.by_c_single);
        const i64 offset = (i64)tap * params.c_single + c - single * params.c_single;
#endif
#pragma unroll
        for (int row = threadIdx.x / PIECES; row < BLOCK_N; row += THREADS / PIECES) {
            const i32 channel = n0 + row;
            bool ok = inside && channel < params.m_group;
#if JOINED
            ok = ok && (i32)divide(channel, params.by_m_single) == single;
            const i64 at = ((i64)group * params.m_group + channel) * params.taps * params.c_single + offset;
#else
            const i64 at = ((i64)group * params.m_group + channel) * params.k_total + k;
#endif
            copy_piece<VEC_B>(s_b + row * PITCH + in, ok ? w + at : w, ok);
        }
    };
    auto load_a = [&](i32 step, int stage) {
        constexpr int PIECES = BLOCK_K / VEC_A;
        T_IN* s_a = s_tiles + stage * STAGE_ELEMENTS;
        const int in = threadIdx.x % PIECES * VEC_A;
        const Step t = Step::of((step_begin + step) * BLOCK_K + in, params);
#pragma unroll
        for (int row = threadIdx.x / PIECES; row < BLOCK_M; row += THREADS / PIECES) {
            const Row r = s_rows[row];
            const bool ok = t.inside && (u32)(r.h + t.dh) < (u32)params.h && (u32)(r.w + t.dw) < (u32)params.w;
            copy_piece<VEC_A>(s_a + row * PITCH + in, ok ? x + r.base + t.offset : x, ok);
        }
    };

    // Filters of the first stages are on their way before the kernel that makes x has ended.
#if !CONST_W
    griddepcontrol_wait();
#endif
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++)
        if (s < steps) load_b(s, s);
#if CONST_W
    griddepcontrol_wait();
#endif
    __syncthreads();  // the table of rows is complete
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++) {
        if (s < steps) load_a(s, s);
        cp_async_commit_group();  // the first one holds the filters of all
    }

    float acc[WARP_M / 16][WARP_N / 8][4];
#pragma unroll
    for (int i = 0; i < WARP_M / 16; i++)
#pragma unroll
        for (int j = 0; j < WARP_N / 8; j++)
#pragma unroll
            for (int v = 0; v < 4; v++) acc[i][j][v] = 0;

    for (i32 step = 0, stage = 0; step < steps; step++, stage = stage + 1 == STAGES ? 0 : stage + 1) {
        cp_async_wait_group<STAGES - 2>();
        __syncthreads();  // this stage is complete, and all have read the one before, which is filled next
        const T_IN* s_a = s_tiles + stage * STAGE_ELEMENTS;
        const T_IN* s_b = s_a + BLOCK_M * PITCH;
#pragma unroll
        for (int kk = 0; kk < BLOCK_K; kk += 16) {
            u32 fa[WARP_M / 16][4], fb[WARP_N / 16][4];
#pragma unroll
            for (int i = 0; i < WARP_M / 16; i++) load_fragment_a<false>(fa[i], s_a, PITCH, warp_m + i * 16, kk, lane);
#pragma unroll
            for (int j = 0; j < WARP_N / 16; j++) load_fragment_b<true>(fb[j], s_b, PITCH, warp_n + j * 16, kk, lane);
#pragma unroll
            for (int i = 0; i < WARP_M / 16; i++)
#pragma unroll
                for (int j = 0; j < WARP_N / 8; j++)
                    mma<T_IN>(acc[i][j], fa[i], fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]);
        }
        // Behind the products: what these addresses take is computed while they run.
        if (step + STAGES - 1 < steps) {
            const int next = stage == 0 ? STAGES - 1 : stage - 1;
            load_b(step + STAGES - 1, next);
            load_a(step + STAGES - 1, next);
        }
        cp_async_commit_group();
    }
    cp_async_wait_group<0>();
    __syncthreads();  // the ring has been read: results go over it

    const Epilogue epilogue_of{{e0, e1, e2, e3}, epi};
    float* s_out = (float*)s_bytes + warp * 16 * OUT_PITCH;
    y += (i64)blockIdx.y * params.pixels * params.m;
    float b[WARP_N / 8][2];
    const i32 first = group * params.m_group;
    bias_fragment(b, bias, first + n0 + warp_n, params.m);
#pragma unroll
    for (int i = 0; i < WARP_M / 16; i++) {
        store_fragments<VEC_Y>(s_out, acc[i], b, epilogue_of, y, [&](int row, int column) {
            const i32 flat = m0 + warp_m + i * 16 + row, in_group = n0 + warp_n + column;
            Place r;
            r.image = (i32)divide(flat, params.by_pq);
            r.pixel = flat - r.image * params.p * params.q;
            r.channel = first + in_group;
            r.inside = flat < params.pixels && in_group < params.m_group;
            r.offset = (i64)flat * params.m + r.channel;
            return r;
        });
    }
}
