// attention_wgmma_sm90.cu — attention by wgmma: y = softmax(cap(scale q k^T) + mask) v, for many queries
// Args     map_q: q T_X [size, q_len, heads, batch], innermost first, box (64, ROWS, 1, 1) · map_k, map_v: likewise of kv_len and kv
//          heads, box (64, KEYS, 1, 1) · map_y: as map_q, box (64, 64, 1, 1); all SWIZZLE_128B · mask: T_MASK or null · offsets:
//          T_OFFSET [1 or batch] or null · sinks: T_X [heads] or null · p: Attention (see common/attention.cuh), of which the
//          strides of q, k, v and y are not read · heads_at: first heads of q, k and v in their maps · scale, cap: float ·
//          n_tiles: i32, tiles of ROWS queries · n_batch: i32
// Params   T_X {f16,bf16} · T_MASK {bool,float,T_X} · T_OFFSET {i32,i64} · SIZE {64,128}: elements of a head of q, k and v · GROUPS:
//          warpgroups of 64 queries each, ROWS = 64 * GROUPS · KEYS {64,128} of a step · STAGES of k and v · Q_BUFS tiles of
//          queries · MIN_BLOCKS on a multiprocessor · HAS_MASK, HAS_CAP {0,1}
// Requires sm_90a · scale > 0, kv_len and queries below 2^31, what tensor maps ask of addresses and strides (host checks)
//          [ops/attention/wgmma.rs]
// Launch   grid = min(n_tiles * heads * batch, multiprocessors * MIN_BLOCKS) · block = 128 * (GROUPS + 1) · smem = dynamic: 1024 +
//          Q_BUFS*ROWS*SIZE*2 + STAGES*2*KEYS*SIZE*2 + 16*(Q_BUFS + 2*STAGES), base rounded up to 1024
// Numerics as attention_mma_sm80.cu
// Notes    a producer thread keeps k and v of this and of the next tile of queries coming; a warpgroup weighs its scores with one
//          step's keys while the product of the weights before with their values runs.
#if !defined(T_X) || !defined(T_MASK) || !defined(T_OFFSET) || !defined(SIZE)
#error "T_X, T_MASK, T_OFFSET or SIZE is not defined"
#endif
#if !defined(GROUPS) || !defined(KEYS) || !defined(STAGES) || !defined(Q_BUFS) || !defined(MIN_BLOCKS) || !defined(HAS_MASK) || !defined(HAS_CAP)
#error "GROUPS, KEYS, STAGES, Q_BUFS, MIN_BLOCKS, HAS_MASK or HAS_CAP is not defined"
#endif
#include "common/attention_half.cuh"
#include "common/ptx_sm90.cuh"

constexpr int THREADS = 128 * (GROUPS + 1), ROWS = 64 * GROUPS, D_BLOCKS = SIZE / 64;
constexpr int Q_BYTES = ROWS * SIZE * 2, KV_BYTES = KEYS * SIZE * 2;
constexpr int OFFSET_K = Q_BUFS * Q_BYTES, OFFSET_V = OFFSET_K + STAGES * KV_BYTES, OFFSET_BAR = OFFSET_V + STAGES * KV_BYTES;
// Registers of a thread at launch, and how producer and consumers share them.
constexpr int LAUNCH_REGS = 65536 / (THREADS * MIN_BLOCKS) / 8 * 8, PRODUCER_REGS = GROUPS == 3 ? 32 : 24;
constexpr int SHARED_REGS = ((LAUNCH_REGS > 168 ? 168 : LAUNCH_REGS) * (GROUPS + 1) - PRODUCER_REGS) / GROUPS / 8 * 8;
constexpr int CONSUMER_REGS = SHARED_REGS > 240 ? 240 : SHARED_REGS;
static_assert(SIZE == 64 || SIZE == 128, "heads of one or two swizzled rows");

struct HeadsAt
{
    i32 q, k, v;
};

// One tile of queries of one head.
struct Item
{
    i64 b, h;
    int first_row, start, end, steps;
};

// Shared-memory descriptor of wgmma with SWIZZLE_128B: see common/sm90_tile.cuh.
DEVICE u64 descriptor(u32 s_addr, u32 leading)
{
    return (u64)((s_addr & 0x3FFFF) >> 4) | (u64)leading << 16 | (u64)64 << 32 | (u64)1 << 62;
}

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS)
KERNEL_NAME(const __grid_constant__ TensorMap map_q, const __grid_constant__ TensorMap map_k, const __grid_constant__ TensorMap map_v,
            const __grid_constant__ TensorMap map_y, const T_MASK* mask, const T_OFFSET* offsets, const T_X* sinks, const Attention p,
            const HeadsAt heads_at, const float scale, const float cap, const int n_tiles, const int n_batch)
{
    extern __shared__ __align__(1024) u8 s_raw[];
    const u32 s_q = (shared_address(s_raw) + 1023) & ~1023u, s_k = s_q + OFFSET_K, s_v = s_q + OFFSET_V;
    const u32 q_full = s_q + OFFSET_BAR, q_empty = q_full + 8 * Q_BUFS, k_full = q_empty + 8 * Q_BUFS, k_empty = k_full + 8 * STAGES;
    const u32 v_full = k_empty + 8 * STAGES, v_empty = v_full + 8 * STAGES;
    const int warp = __shfl_sync(~0u, threadIdx.x >> 5, 0), lane = threadIdx.x & 31;
    const int items = n_tiles * (int)p.n_heads * n_batch;

    griddepcontrol_launch_dependents();
    if (threadIdx.x == 128 * GROUPS) {
        prefetch_tensormap(&map_q);
        prefetch_tensormap(&map_k);
        prefetch_tensormap(&map_v);
        prefetch_tensormap(&map_y);
        for (int i = 0; i < Q_BUFS; i++) mbarrier_init(q_full + 8 * i, 1), mbarrier_init(q_empty + 8 * i, GROUPS);
        for (int i = 0; i < STAGES; i++) {
            mbarrier_init(k_full + 8 * i, 1), mbarrier_init(v_full + 8 * i, 1);
            mbarrier_init(k_empty + 8 * i, 4 * GROUPS), mbarrier_init(v_empty + 8 * i, 4 * GROUPS);
        }
        fence_mbarrier_init();
        fence_proxy_async();
    }
    __syncthreads();  // the barriers exist

    auto place = [&](int index) {
        Item item;
        // The last queries of a causal problem see the most keys: they start first.
        const int tile = p.causal == CAUSAL_EXCLUDE ? n_tiles - 1 - index % n_tiles : index % n_tiles;
        const int unit = index / n_tiles;
        item.h = unit % (int)p.n_heads, item.b = unit / (int)p.n_heads, item.first_row = tile * ROWS;
        const int last = item.first_row + ROWS < (int)p.q_len ? item.first_row + ROWS - 1 : (int)p.q_len - 1;
        const i32* none = nullptr;
        item.start = (int)seen_by(p, none, offsets, item.b, item.first_row).start;
        item.end = (int)seen_by(p, none, offsets, item.b, last).end;
        item.steps = (item.end - item.start + KEYS - 1) / KEYS;
        return item;
    };

    if (warp >= 4 * GROUPS) {  // the producer
        setmaxnreg_dec<PRODUCER_REGS>();
        if (threadIdx.x == 128 * GROUPS) {
            griddepcontrol_wait();
            int stage = 0, buf = 0;
            u32 phase = 0, q_phase = 0;
            for (int index = blockIdx.x; index < items; index += gridDim.x) {
                const Item item = place(index);
                const i32 kv_head = (i32)(item.h / p.group), b = (i32)item.b;
                mbarrier_wait_parity(q_empty + 8 * buf, q_phase ^ 1);
                mbarrier_arrive_expect_tx(q_full + 8 * buf, Q_BYTES);
#pragma unroll
                for (int d = 0; d < D_BLOCKS; d++)
                    cp_async_bulk_tensor_4d_load(s_q + buf * Q_BYTES + d * ROWS * 128, &map_q, q_full + 8 * buf, d * 64, item.first_row, heads_at.q + (i32)item.h, b);
                if (++buf == Q_BUFS) buf = 0, q_phase ^= 1;
                for (int i = 0; i < item.steps; i++) {
                    const i32 key = item.start + i * KEYS;
                    mbarrier_wait_parity(k_empty + 8 * stage, phase ^ 1);
                    mbarrier_arrive_expect_tx(k_full + 8 * stage, KV_BYTES);
#pragma unroll
                    for (int d = 0; d < D_BLOCKS; d++)
                        cp_async_bulk_tensor_4d_load(s_k + stage * KV_BYTES + d * KEYS * 128, &map_k, k_full + 8 * stage, d * 64, key, heads_at.k + kv_head, b);
                    mbarrier_wait_parity(v_empty + 8 * stage, phase ^ 1);
                    mbarrier_arrive_expect_tx(v_full + 8 * stage, KV_BYTES);
#pragma unroll
                    for (int d = 0; d < D_BLOCKS; d++)
                        cp_async_bulk_tensor_4d_load(s_v + stage * KV_BYTES + d * KEYS * 128, &map_v, v_full + 8 * stage, d * 64, key, heads_at.v + kv_head, b);
                    if (++stage == STAGES) stage = 0, phase ^= 1;
                }
            }
        }
        return;
    }

    setmaxnreg_inc<CONSUMER_REGS>();
    griddepcontrol_wait();
    const int group = warp >> 2, warp_row = (warp & 3) * 16;
    int stage = 0, buf = 0;
    u32 phase = 0, q_phase = 0;
    const float log2e = 1.4426950408889634f, factor = HAS_MASK || HAS_CAP ? 1.0f : scale * log2e;
    auto release = [&](u32 bar) {
        if (lane == 0) mbarrier_arrive(bar);
    };
    for (int index = blockIdx.x; index < items; index += gridDim.x) {
        const Item item = place(index);
        const int row0 = item.first_row + group * 64;
        RowKeys<T_MASK> rows[2];
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const int row = row0 + warp_row + r * 8 + lane / 4;
            const i32* none = nullptr;
            rows[r].set(p, none, offsets, mask, item.b, item.h, row < (int)p.q_len ? row : (int)p.q_len - 1);
        }
        float o[SIZE / 2], s[KEYS / 2], max[2] = {-INFINITY_F32, -INFINITY_F32}, sum[2] = {0, 0}, keep[2];
        u32 w[KEYS / 16][4];
#pragma unroll
        for (int i = 0; i < SIZE / 2; i++) o[i] = 0;
        const u32 s_mine = s_q + buf * Q_BYTES + group * 64 * 128;
        auto score = [&](int st) {
            const u64 dq = descriptor(s_mine, 1), dk = descriptor(s_k + st * KV_BYTES, 1);
            wgmma_fence();
#pragma unroll
            for (int d = 0; d < D_BLOCKS; d++)
#pragma unroll
                for (int kk = 0; kk < 4; kk++)
                    wgmma_m64<0, 0>(Tag<T_X>(), s, dq + d * ROWS * 8 + kk * 2, dk + d * KEYS * 8 + kk * 2, (d | kk) != 0);
            wgmma_commit_group();
        };
        auto gather = [&](int st) {
            const u64 dv = descriptor(s_v + st * KV_BYTES, KEYS * 8);
            wgmma_fence();
#pragma unroll
            for (int j = 0; j < KEYS / 16; j++) wgmma_m64_rs<1>(Tag<T_X>(), o, w[j], dv + j * 128, 1);
            wgmma_commit_group();
        };
        auto weights = [&](int i) {
#pragma unroll
            for (int e = 0; e < KEYS / 2; e++) wgmma_settle(s[e]);
            weigh<KEYS / 8, HAS_MASK, HAS_CAP>([&](int j, int e) -> float& { return s[4 * j + e]; }, rows, p, item.start + i * KEYS, scale, cap, max, sum, keep);
        };
        auto round = [&]() {
#pragma unroll
            for (int j = 0; j < KEYS / 16; j++)
#pragma unroll
                for (int e = 0; e < 4; e++) w[j][e] = two_halves(Tag<T_X>(), s[8 * j + 2 * e], s[8 * j + 2 * e + 1]);
        };

        mbarrier_wait_parity(q_full + 8 * buf, q_phase);
        if (item.steps > 0) {
            mbarrier_wait_parity(k_full + 8 * stage, phase);
            score(stage);
            wgmma_wait_group<0>();
            release(k_empty + 8 * stage);
            weights(0);
            round();
            for (int i = 1; i < item.steps; i++) {
                const int next = stage + 1 == STAGES ? 0 : stage + 1;
                const u32 next_phase = next == 0 ? phase ^ 1 : phase;
                mbarrier_wait_parity(k_full + 8 * next, next_phase);
                score(next);
                mbarrier_wait_parity(v_full + 8 * stage, phase);
                gather(stage);
                wgmma_wait_group<1>();  // the scores; the sums run on
                release(k_empty + 8 * next);
                weights(i);
                wgmma_wait_group<0>();
#pragma unroll
                for (int c = 0; c < SIZE / 2; c++) wgmma_settle(o[c]);
                release(v_empty + 8 * stage);
#pragma unroll
                for (int c = 0; c < SIZE / 2; c++) o[c] *= keep[c >> 1 & 1];
                round();
                stage = next, phase = next_phase;
            }
            mbarrier_wait_parity(v_full + 8 * stage, phase);
            gather(stage);
            wgmma_wait_group<0>();
#pragma unroll
            for (int c = 0; c < SIZE / 2; c++) wgmma_settle(o[c]);
            release(v_empty + 8 * stage);
            if (++stage == STAGES) stage = 0, phase ^= 1;
        }

        const bool has_sink = sinks || p.smooth;
        const float sink = sinks ? to_acc<float>(sinks[item.h]) * log2e : 0.0f;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float total = sum[r];
            total += __shfl_xor_sync(~0u, total, 1);
            total += __shfl_xor_sync(~0u, total, 2);
            const float own = max[r] * factor, top = has_sink ? fmaxf(own, sink) : own, zero = top == -INFINITY_F32 ? 0 : top;
            const float lower = ex2_approx_ftz_f32(own - zero);
            total = total * lower + (has_sink ? ex2_approx_ftz_f32(sink - zero) : 0.0f);
            keep[r] = total == 0 ? 0 : lower / total;
        }
        bar_sync(1 + group, 128);  // the warpgroup's queries have been read: their place takes the results
#pragma unroll
        for (int c = 0; c < SIZE / 16; c++) {
            const int row = warp_row + (lane & 15), chunk = (c & 3) * 2 + (lane >> 4);
            u32 r[4];
#pragma unroll
            for (int e = 0; e < 4; e++) r[e] = two_halves(Tag<T_X>(), o[8 * c + 2 * e] * keep[e & 1], o[8 * c + 2 * e + 1] * keep[e & 1]);
            stmatrix_x4(s_mine + (c >> 2) * ROWS * 128 + row * 128 + ((chunk ^ (row & 7)) << 4), r[0], r[1], r[2], r[3]);
        }
        fence_proxy_async();
        bar_sync(1 + group, 128);  // the results lie there
        if ((threadIdx.x & 127) == 0) {
#pragma unroll
            for (int d = 0; d < D_BLOCKS; d++)
                cp_async_bulk_tensor_4d_store(&map_y, s_mine + d * ROWS * 128, d * 64, row0, (i32)item.h, (i32)item.b);
            cp_async_bulk_commit_group();
            cp_async_bulk_wait_group_read<0>();
            mbarrier_arrive(q_empty + 8 * buf);
        }
        if (++buf == Q_BUFS) buf = 0, q_phase ^= 1;
    }
    if ((threadIdx.x & 127) == 0) cp_async_bulk_wait_group<0>();
}
