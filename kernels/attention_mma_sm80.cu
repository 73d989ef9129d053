// attention_mma_sm80.cu — attention on tensor cores: y = softmax(cap(scale q k^T) + mask) v, a block per tile of queries
// Args     q, k, v: T_X · mask: T_MASK or null · lengths: T_LENGTH [batch] or null · offsets: T_OFFSET [1 or batch] or null ·
//          sinks: T_X [heads] or null · y: T_X · p: Attention (see common/attention.cuh) · scale, cap: float · n_tiles: i32, tiles
//          of ROWS queries · n_splits: i32, pieces of the keys · parts: float, per split and row V_SIZE sums, then maximum and
//          sum of the weights, for n_splits > 1, else null
// Params   T_X {f16,bf16} · T_MASK {bool,float,T_X} · T_LENGTH, T_OFFSET {i32,i64} · SIZE, V_SIZE: elements of a head of q and k,
//          and of v, rounded up to 16 · WARPS_M, M_TILES: a block takes ROWS = 16 * M_TILES * WARPS_M queries · WARPS_N: warps that
//          share queries and divide the keys · KEYS of a warp's step, multiple of 16 · HAS_MASK, HAS_CAP, PACK {0,1}: rows are
//          the queries of all heads that share one of k and v
// Requires sm_80 · sizes of a head, all strides and addresses of q, k, v, y multiples of 8 elements · scale > 0, kv_len and rows
//          below 2^31 (host checks) [ops/attention/mma.rs]
// Launch   grid = n_tiles * batch * (heads / (PACK ? group : 1)) * n_splits · block = 32 * WARPS_M * WARPS_N · smem = dynamic:
//          max(q + 2 * (k + v), joined sums), see the constants below
// Numerics products in T_X with sums in f32, weights by ex2.approx, rounded to T_X for the product with v; keys in a fixed order;
//          class rel(2e-3) f16, rel(1e-2) bf16. A query without keys gives zeros
// Notes    a warp keeps the scores of its queries with KEYS keys in registers, which are operands of the second product as they
//          lie. Powers of two instead of e: scores are multiplied by log2 e.
#if !defined(T_X) || !defined(T_MASK) || !defined(T_LENGTH) || !defined(T_OFFSET) || !defined(SIZE) || !defined(V_SIZE)
#error "T_X, T_MASK, T_LENGTH, T_OFFSET, SIZE or V_SIZE is not defined"
#endif
#if !defined(WARPS_M) || !defined(M_TILES) || !defined(WARPS_N) || !defined(KEYS)
#error "WARPS_M, M_TILES, WARPS_N or KEYS is not defined"
#endif
#if !defined(HAS_MASK) || !defined(HAS_CAP) || !defined(PACK)
#error "HAS_MASK, HAS_CAP or PACK is not defined"
#endif
#include "common/attention.cuh"
#include "common/attention_half.cuh"
#include "common/mma_sm80.cuh"

#define THREADS (32 * WARPS_M * WARPS_N)
#define ROWS (16 * M_TILES * WARPS_M)
#define TILE_KEYS (KEYS * WARPS_N)
#define PITCH_K (SIZE + 8)    // rows of a tile are 16 bytes apart modulo 128: ldmatrix without conflicts
#define PITCH_V (V_SIZE + 8)
#define PITCH_O (V_SIZE + 8)  // floats
#define Q_KEPT (M_TILES * SIZE <= 128)
#define N_K (KEYS / 8)
#define N_V (V_SIZE / 8)

static_assert(SIZE % 16 == 0 && V_SIZE % 16 == 0 && KEYS % 16 == 0, "whole fragments");

// `n` rows of SIZE_ elements, zeros from `valid` on and behind `size`.
template <int SIZE_, int PITCH> DEVICE void stage(T_X* s, const T_X* g, i64 stride, int n, int valid, int size)
{
    constexpr int CHUNKS = SIZE_ / 8;
    for (int i = threadIdx.x; i < n * CHUNKS; i += THREADS) {
        const int r = i / CHUNKS, c = i % CHUNKS * 8;
        const bool is_there = r < valid && c < size;
        cp_async_16(shared_address(s + r * PITCH + c), is_there ? g + r * stride + c : g, is_there ? 16 : 0);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_X* q, const T_X* k, const T_X* v, const T_MASK* mask, const T_LENGTH* lengths, const T_OFFSET* offsets,
            const T_X* sinks, T_X* y, const Attention p, const float scale, const float cap, const int n_tiles,
            const int n_splits, float* parts)
{
    extern __shared__ __align__(128) u8 s_raw[];
    T_X* s_q = (T_X*)s_raw;
    T_X* s_k = s_q + ROWS * PITCH_K;
    T_X* s_v = s_k + 2 * TILE_KEYS * PITCH_K;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int warp_m = warp % WARPS_M, warp_n = warp / WARPS_M;
    const int share = PACK ? (int)p.group : 1, units = (int)p.n_heads / share;
    int at = blockIdx.x;
    const int split = at % n_splits;
    at /= n_splits;
    // The last queries of a causal problem see the most keys: they start first.
    const int tile = p.causal == CAUSAL_EXCLUDE ? n_tiles - 1 - at % n_tiles : at % n_tiles;
    at /= n_tiles;
    const int unit = at % units;
    const i64 b = at / units, kv_head = PACK ? unit : unit / p.group;
    const int n_rows = (int)p.q_len * share, first_row = tile * ROWS;

    griddepcontrol_wait();
    const int last_row = (first_row + ROWS < n_rows ? first_row + ROWS : n_rows) - 1;
    const int start = (int)seen_by(p, lengths, offsets, b, first_row / share).start;
    const int end = (int)seen_by(p, lengths, offsets, b, last_row / share).end;
    const int n_steps = (end - start + TILE_KEYS - 1) / TILE_KEYS, per_split = (n_steps + n_splits - 1) / n_splits;
    const int from = split * per_split < n_steps ? split * per_split : n_steps;
    const int to = from + per_split < n_steps ? from + per_split : n_steps;

    // Row r of the tile belongs to query row / share of head unit * share + row % share.
    q += p.q_at + b * p.q_b;
    for (int i = threadIdx.x; i < ROWS * (SIZE / 8); i += THREADS) {
        const int r = i / (SIZE / 8), c = i % (SIZE / 8) * 8, row = first_row + r;
        const bool is_there = row < n_rows && c < (int)p.size;
        const T_X* g = q + (i64)(unit * share + row % share) * p.q_h + (i64)(row / share) * p.q_s + c;
        cp_async_16(shared_address(s_q + r * PITCH_K + c), is_there ? g : q, is_there ? 16 : 0);
    }
    k += p.k_at + b * p.k_b + kv_head * p.k_h;
    v += p.v_at + b * p.v_b + kv_head * p.v_h;
    auto stage_k = [&](int step) {
        const int first = start + step * TILE_KEYS;
        stage<SIZE, PITCH_K>(s_k + (step & 1) * TILE_KEYS * PITCH_K, k + first * p.k_s, p.k_s, TILE_KEYS, end - first, (int)p.size);
        cp_async_commit_group();
    };
    auto stage_v = [&](int step) {
        const int first = start + step * TILE_KEYS;
        stage<V_SIZE, PITCH_V>(s_v + (step & 1) * TILE_KEYS * PITCH_V, v + first * p.v_s, p.v_s, TILE_KEYS, end - first, (int)p.v_size);
        cp_async_commit_group();
    };
    if (from < to) stage_k(from), stage_v(from);
    else cp_async_commit_group();

    // What the lane's rows see: rows[i][half] is row 16 * i + 8 * half + lane / 4 of the warp.
    RowKeys<T_MASK> rows[M_TILES][2];
#pragma unroll
    for (int i = 0; i < 2 * M_TILES; i++) {
        const int row = first_row + (warp_m * M_TILES + i / 2) * 16 + i % 2 * 8 + lane / 4, held = row < n_rows ? row : n_rows - 1;
        rows[i / 2][i % 2].set(p, lengths, offsets, mask, b, unit * share + held % share, held / share);
    }

    const float log2e = 1.4426950408889634f;
    const float factor = HAS_MASK || HAS_CAP ? 1.0f : scale * log2e;  // brings maxima to powers of two
    float o[M_TILES][N_V][4] = {}, max[M_TILES][2], sum[M_TILES][2];
#pragma unroll
    for (int i = 0; i < 2 * M_TILES; i++) max[i / 2][i % 2] = -INFINITY_F32, sum[i / 2][i % 2] = 0;
#if Q_KEPT
    u32 qf[SIZE / 16][M_TILES][4];
#endif
    for (int step = from; step < to; step++) {
        if (step == from) cp_async_wait_group<1>();  // q and k; v follows
        else cp_async_wait_group<0>();
        __syncthreads();  // orders the staged tiles before they are read, and the last reads before the next are staged
        if (step + 1 < to) stage_k(step + 1), stage_v(step + 1);
        else cp_async_commit_group(), cp_async_commit_group();
        const T_X* tile_k = s_k + (step & 1) * TILE_KEYS * PITCH_K;
        const T_X* tile_v = s_v + (step & 1) * TILE_KEYS * PITCH_V;
        const int first = start + step * TILE_KEYS + warp_n * KEYS;
        const bool is_used = first < end;  // of the whole warp

        float s[M_TILES][N_K][4] = {};
        if (is_used) {
#pragma unroll
            for (int c = 0; c < SIZE / 16; c++) {
#if Q_KEPT
                u32(&a)[M_TILES][4] = qf[c];
                if (step == from)
#else
                u32 a[M_TILES][4];
#endif
                {
#pragma unroll
                    for (int i = 0; i < M_TILES; i++) load_fragment_a<false>(a[i], s_q, PITCH_K, (warp_m * M_TILES + i) * 16, c * 16, lane);
                }
#pragma unroll
                for (int j = 0; j < KEYS / 16; j++) {
                    u32 kf[4];
                    load_fragment_b<true>(kf, tile_k, PITCH_K, warp_n * KEYS + j * 16, c * 16, lane);
#pragma unroll
                    for (int i = 0; i < M_TILES; i++) {
                        mma<T_X>(s[i][2 * j], a[i], kf[0], kf[1]);
                        mma<T_X>(s[i][2 * j + 1], a[i], kf[2], kf[3]);
                    }
                }
            }
#pragma unroll
            for (int i = 0; i < M_TILES; i++) {
                float keep[2];
                weigh<N_K, HAS_MASK, HAS_CAP>([&](int j, int e) -> float& { return s[i][j][e]; }, rows[i], p, first, scale, cap, max[i], sum[i], keep);
#pragma unroll
                for (int c = 0; c < N_V; c++)
#pragma unroll
                    for (int e = 0; e < 4; e++) o[i][c][e] *= keep[e / 2];
            }
        }
        if (step == from) {
            cp_async_wait_group<2>();
            __syncthreads();  // orders the first values before they are read
        }
        if (is_used) {
#pragma unroll
            for (int j = 0; j < KEYS / 16; j++) {
                u32 w[M_TILES][4];
#pragma unroll
                for (int i = 0; i < M_TILES; i++)
#pragma unroll
                    for (int e = 0; e < 4; e++)
                        w[i][e] = two_halves(Tag<T_X>(), s[i][2 * j + e / 2][e % 2 * 2], s[i][2 * j + e / 2][e % 2 * 2 + 1]);
#pragma unroll
                for (int c = 0; c < V_SIZE / 16; c++) {
                    u32 vf[4];
                    load_fragment_b<false>(vf, tile_v, PITCH_V, c * 16, warp_n * KEYS + j * 16, lane);
#pragma unroll
                    for (int i = 0; i < M_TILES; i++) {
                        mma<T_X>(o[i][2 * c], w[i], vf[0], vf[1]);
                        mma<T_X>(o[i][2 * c + 1], w[i], vf[2], vf[3]);
                    }
                }
            }
        }
    }
    cp_async_wait_group<0>();
    __syncthreads();  // orders the last reads of the tiles before the sums overwrite them

    float* s_o = (float*)s_raw;                        // [WARPS_N][ROWS][PITCH_O]
    float* s_max = s_o + WARPS_N * ROWS * PITCH_O;     // [WARPS_N][ROWS], in powers of two
    float* s_sum = s_max + WARPS_N * ROWS;
#pragma unroll
    for (int i = 0; i < 2 * M_TILES; i++) {
        float total = sum[i / 2][i % 2];
        total += __shfl_xor_sync(~0u, total, 1);
        total += __shfl_xor_sync(~0u, total, 2);
        const int r = (warp_m * M_TILES + i / 2) * 16 + i % 2 * 8 + lane / 4;
        if (lane % 4 == 0) s_max[warp_n * ROWS + r] = max[i / 2][i % 2] * factor, s_sum[warp_n * ROWS + r] = total;
        float* to_o = s_o + (warp_n * ROWS + r) * PITCH_O + lane % 4 * 2;
#pragma unroll
        for (int c = 0; c < N_V; c++) {
            const float two[2] = {o[i / 2][c][i % 2 * 2], o[i / 2][c][i % 2 * 2 + 1]};
            store_vec<2>(to_o + c * 8, two);
        }
    }
    __syncthreads();  // orders the warps' sums before they are joined
    for (int i = threadIdx.x; i < ROWS * N_V; i += THREADS) {
        const int r = i / N_V, c = i % N_V * 8, row = first_row + r;
        if (row >= n_rows || c >= (int)p.v_size) continue;
        const int h = unit * share + row % share;
        const bool has_sink = (sinks || p.smooth) && n_splits == 1;
        const float sink = has_sink && sinks ? to_acc<float>(sinks[h]) * log2e : 0.0f;
        float top = has_sink ? sink : -INFINITY_F32;
#pragma unroll
        for (int w = 0; w < WARPS_N; w++) top = fmaxf(top, s_max[w * ROWS + r]);
        const float zero = top == -INFINITY_F32 ? 0 : top;
        float total = has_sink ? ex2_approx_ftz_f32(sink - zero) : 0.0f, value[8] = {};
#pragma unroll
        for (int w = 0; w < WARPS_N; w++) {
            const float keep = ex2_approx_ftz_f32(s_max[w * ROWS + r] - zero);
            total += s_sum[w * ROWS + r] * keep;
            float part[8];
            load_vec<8>(part, s_o + (w * ROWS + r) * PITCH_O + c);
#pragma unroll
            for (int e = 0; e < 8; e++) value[e] += part[e] * keep;
        }
        if (n_splits > 1) {
            float* to_part = parts + (((b * units + unit) * (i64)n_rows + row) * n_splits + split) * (V_SIZE + 2);
#pragma unroll
            for (int e = 0; e < 8; e++) to_part[c + e] = value[e];
            if (c == 0) to_part[V_SIZE] = top, to_part[V_SIZE + 1] = total;
            continue;
        }
        const float inverse = total == 0 ? 0 : 1.0f / total;
        union { u32 words[4]; T_X v[8]; } out;
#pragma unroll
        for (int e = 0; e < 4; e++) out.words[e] = two_halves(Tag<T_X>(), value[2 * e] * inverse, value[2 * e + 1] * inverse);
        store_vec<8>(y + b * p.y_b + h * p.y_h + (i64)(row / share) * p.y_s + c, out.v);
    }
}
