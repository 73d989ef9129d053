// sm90_tile.cuh — output tiles by wgmma on Hopper: a producer warp fills a ring of shared memory through TMA, warpgroups
// multiply, and results leave through TMA.
//
// Contract  The including file defines the parameters below, T_IN, T_OUT, and calls tile_engine with
//             a loader: prefetch(), tile(m0, n0), load_a(s, bar, k), load_b(s, bar, k): A_BYTES and B_BYTES of step k
//             a finish: column(n) and row(m), whose sum is the bias, inside of the output; apply(x, bias, m, n), from a sum
//               to what is stored, inside of the output too unless READS is false: then it reads no memory
// Params    TILE_M, TILE_N output tile · TILE_K step along k, multiple of 64 · STAGES of the ring · WARPGROUPS that multiply ·
//           PINGPONG {0,1}: all warpgroups share a tile, TILE_M/WARPGROUPS rows each, or each takes every WARPGROUPS-th
//           tile alone, so that one's epilogue runs beside another's products · EPI_BUFS store buffers of a warpgroup ·
//           TRANS_B {0,1}: b lies [k,n] or [n,k]
// Shared    dynamic: 1024 + STAGES*(A_BYTES + B_BYTES) + WARPGROUPS*EPI_BUFS*BLOCK_BYTES + 16*STAGES, base rounded up to 1024
//           a: TILE_K/64 blocks (TILE_M, 64), rows of 128 bytes with SWIZZLE_128B · b: (TILE_N, 64) blocks likewise; TRANS_B 0:
//           TILE_K/64 times TILE_N/64 blocks (64 of k, 64 of n)
// Notes     The producer's parity waits tell neighbouring phases apart only: see the turn barrier of PINGPONG below.
#pragma once
#include "common/ptx_sm90.cuh"
#include "common/types.cuh"

#if !defined(TILE_M) || !defined(TILE_N) || !defined(TILE_K) || !defined(STAGES) || !defined(WARPGROUPS)
#error "TILE_M, TILE_N, TILE_K, STAGES or WARPGROUPS is not defined"
#endif
#if !defined(PINGPONG) || !defined(EPI_BUFS) || !defined(TRANS_B)
#error "PINGPONG, EPI_BUFS or TRANS_B is not defined"
#endif

constexpr int TILE_THREADS = 32 * (4 * WARPGROUPS + 1);
constexpr int K_BLOCKS = TILE_K / 64;
constexpr int GROUP_ROWS = PINGPONG ? TILE_M : TILE_M / WARPGROUPS;  // tile rows of one warpgroup
constexpr int M_BLOCKS = GROUP_ROWS / 64;
constexpr int EPI_COLS = TILE_N % 64 ? 32 : 64;  // columns of one stored block, 64 or 128 bytes
constexpr int N_BLOCKS = TILE_N / EPI_COLS, BLOCKS = M_BLOCKS * N_BLOCKS;
constexpr int A_BYTES = TILE_M * TILE_K * 2, B_BYTES = TILE_N * TILE_K * 2;
constexpr int BLOCK_BYTES = 64 * EPI_COLS * 2;
constexpr int OFFSET_B = STAGES * A_BYTES, OFFSET_EPI = OFFSET_B + STAGES * B_BYTES;
constexpr int OFFSET_BAR = OFFSET_EPI + WARPGROUPS * EPI_BUFS * BLOCK_BYTES;
// What the descriptors step by, in 16 bytes: 16 of k, the next 64 of k, the next 64 rows of a.
constexpr int STEP_A = 2, STEP_B = TRANS_B ? 2 : 128;
constexpr int NEXT_A = TILE_M * 8, NEXT_B = TILE_N * 8, NEXT_ROWS = 64 * 8;

static_assert(TILE_K % 64 == 0 && GROUP_ROWS % 64 == 0 && GROUP_ROWS * (PINGPONG ? 1 : WARPGROUPS) == TILE_M, "whole wgmma tiles");
static_assert(TILE_N % (TRANS_B ? 32 : 64) == 0 && TILE_N <= 256 && TILE_M <= 256, "boxes and stored blocks");
static_assert(STAGES >= 2 && TILE_THREADS <= 1024 && 2 * WARPGROUPS < 16, "a ring, and named barriers");

struct TileParams
{
    i32 m, n;
    i32 k_steps;           // of TILE_K
    i32 tiles_m, tiles_n;  // of TILE_M rows, TILE_N columns
    i32 group_m;           // tile order: group_m row tiles, then the next column, which then is in the second-level cache
};

// Shared-memory descriptor of wgmma with SWIZZLE_128B: address, distance of 64-column blocks (neighbours along n only),
// distance of 8-row groups (1024 bytes), layout.
DEVICE u64 descriptor(u32 s_addr, u32 leading)
{
    return (u64)((s_addr & 0x3FFFF) >> 4) | (u64)leading << 16 | (u64)64 << 32 | (u64)1 << 62;
}

template <class Loader, class Finish>
DEVICE void tile_engine(Loader& loader, const Finish& finish, const TensorMap* map_c, const TileParams& p)
{
    extern __shared__ __align__(1024) u8 s_raw[];
    const u32 base = (shared_address(s_raw) + 1023) & ~1023u;
    const u32 s_a = base, s_b = base + OFFSET_B, s_epi = base + OFFSET_EPI;
    const u32 full = base + OFFSET_BAR, empty = full + 8 * STAGES;
    const int tid = threadIdx.x, warp = __shfl_sync(~0u, tid >> 5, 0), lane = tid & 31;
    const int tiles = p.tiles_m * p.tiles_n;

    if (tid == 128 * WARPGROUPS) {
        loader.prefetch();
        prefetch_tensormap(map_c);
        for (int i = 0; i < STAGES; i++) {
            mbarrier_init(full + 8 * i, 1);
            mbarrier_init(empty + 8 * i, 4 * (PINGPONG ? 1 : WARPGROUPS));  // one lane of each reading warp
        }
        fence_mbarrier_init();
        fence_proxy_async();
    }
    __syncthreads();  // the barriers exist

    auto place = [&](int t, int& m0, int& n0) {
        const int per = p.group_m * p.tiles_n, g = t / per, first = g * p.group_m, r = t - g * per;
        const int rows = p.tiles_m - first < p.group_m ? p.tiles_m - first : p.group_m;
        n0 = r / rows * TILE_N;
        m0 = (first + r % rows) * TILE_M;
    };

    if (warp >= 4 * WARPGROUPS) {  // the producer: one lane keeps the ring full
        if (lane == 0) {
            int stage = 0;
            u32 phase = 0;
            for (int t = blockIdx.x; t < tiles; t += gridDim.x) {
                int m0, n0;
                place(t, m0, n0);
                loader.tile(m0, n0);
                for (int k = 0; k < p.k_steps; k++) {
                    mbarrier_wait_parity(empty + 8 * stage, phase ^ 1);
                    mbarrier_arrive_expect_tx(full + 8 * stage, A_BYTES + B_BYTES);
                    loader.load_a(s_a + stage * A_BYTES, full + 8 * stage, k);
                    loader.load_b(s_b + stage * B_BYTES, full + 8 * stage, k);
                    if (++stage == STAGES) stage = 0, phase ^= 1;
                }
            }
        }
        return;
    }

    const int group = warp >> 2, group_tid = tid & 127, group_warp = warp & 3;
    const int row_offset = PINGPONG ? 0 : group * GROUP_ROWS;
    const u32 s_blocks = s_epi + group * EPI_BUFS * BLOCK_BYTES;
    int stage = 0, turn = 0, epi_buf = 0;
    u32 phase = 0;
    float acc[M_BLOCKS][TILE_N / 2];  // [M_BLOCKS, 64, TILE_N] over 128 threads
    for (int t = blockIdx.x; t < tiles; t += gridDim.x) {
        if (PINGPONG) {
            const bool mine = turn == group;
            if (++turn == WARPGROUPS) turn = 0;
            if (!mine) {
                stage += p.k_steps;
                phase ^= (stage / STAGES) & 1;
                stage %= STAGES;
                continue;
            }
        }
        int m0, n0;
        place(t, m0, n0);
        // Turn: the warpgroup of the tile before has passed its last wait for a full stage. One that looked a whole tile
        // ahead (k_steps > STAGES) would take an older fill of the stage for its own.
        if (PINGPONG && t != (int)blockIdx.x) bar_sync(1 + WARPGROUPS + group, 256);
        int previous = 0;
        for (int k = 0; k < p.k_steps; k++) {
            mbarrier_wait_parity(full + 8 * stage, phase);
            const u64 da = descriptor(s_a + stage * A_BYTES + row_offset * 128, 1);
            const u64 db = descriptor(s_b + stage * B_BYTES, TRANS_B ? 1 : 512);
            wgmma_fence();
#pragma unroll
            for (int kb = 0; kb < K_BLOCKS; kb++)
#pragma unroll
                for (int kk = 0; kk < 4; kk++)  // 16 of k
#pragma unroll
                    for (int mb = 0; mb < M_BLOCKS; mb++)
                        wgmma_m64k16<!TRANS_B>(Tag<T_IN>(), acc[mb], da + kb * NEXT_A + mb * NEXT_ROWS + kk * STEP_A,
                                               db + kb * NEXT_B + kk * STEP_B, (k | kb | kk) != 0);
            wgmma_commit_group();
            if (k > 0) {  // the group before has read its stage
                wgmma_wait_group<1>();
                if (lane == 0) mbarrier_arrive(empty + 8 * previous);
            }
            previous = stage;
            if (++stage == STAGES) stage = 0, phase ^= 1;
        }
        if (PINGPONG && t + (int)gridDim.x < tiles) bar_arrive(1 + WARPGROUPS + (group + 1 == WARPGROUPS ? 0 : group + 1), 256);
        wgmma_wait_group<0>();
        if (lane == 0) mbarrier_arrive(empty + 8 * previous);
#pragma unroll
        for (int mb = 0; mb < M_BLOCKS; mb++)
#pragma unroll
            for (int i = 0; i < TILE_N / 2; i++) wgmma_settle(acc[mb][i]);

        // Registers to a swizzled block (64, EPI_COLS), and that by TMA, which clips at the edges.
#pragma unroll
        for (int b = 0; b < BLOCKS; b++) {
            // Buffers rotate across tiles: the wait below frees exactly the one of EPI_BUFS stores ago.
            const int mb = b / N_BLOCKS, nb = b % N_BLOCKS, buf = BLOCKS % EPI_BUFS == 0 ? b % EPI_BUFS : epi_buf;
            epi_buf = epi_buf + 1 == EPI_BUFS ? 0 : epi_buf + 1;
            const u32 s_block = s_blocks + buf * BLOCK_BYTES;
            const i32 m_block = m0 + row_offset + mb * 64, n_block = n0 + nb * EPI_COLS;
            const i32 m_own = m_block + group_warp * 16 + lane / 4, n_own = n_block + lane % 4 * 2;
            float columns[EPI_COLS / 8][2], rows[2];  // bias, read before the barrier
#pragma unroll
            for (int j = 0; j < EPI_COLS / 4; j++) {
                const i32 n = n_own + j / 2 * 8 + j % 2;
                columns[j / 2][j % 2] = n < p.n ? finish.column(n) : 0;
            }
#pragma unroll
            for (int i = 0; i < 2; i++) rows[i] = m_own + i * 8 < p.m ? finish.row(m_own + i * 8) : 0;
            if (group_tid == 0) cp_async_bulk_wait_group_read<EPI_BUFS - 1>();
            bar_sync(1 + group, 128);  // the buffer is free
            const int row = group_warp * 16 + (lane & 15);  // stmatrix: each lane gives the address of one row of 16 bytes
#pragma unroll
            for (int j = 0; j < EPI_COLS / 16; j++) {
                const int chunk = j * 2 + (lane >> 4), swizzled = chunk ^ (EPI_COLS == 64 ? row & 7 : (row >> 1) & 3);
                const float* r = &acc[mb][nb * (EPI_COLS / 2) + j * 8];
                float x[8];
#pragma unroll
                for (int i = 0; i < 8; i++) {
                    const int half = i >> 1 & 1, pair = j * 2 + (i >> 2);
                    const i32 m = m_own + half * 8, n = n_own + pair * 8 + (i & 1);
                    const bool outside = Finish::READS && !(m < p.m && n < p.n);
                    x[i] = outside ? 0 : finish.apply(r[i], columns[pair][i & 1] + rows[half], m, n);
                }
                stmatrix_x4(s_block + row * (EPI_COLS * 2) + (swizzled << 4), cvt_rn_x2(Tag<T_OUT>(), x[0], x[1]),
                            cvt_rn_x2(Tag<T_OUT>(), x[2], x[3]), cvt_rn_x2(Tag<T_OUT>(), x[4], x[5]),
                            cvt_rn_x2(Tag<T_OUT>(), x[6], x[7]));
            }
            fence_proxy_async();
            bar_sync(1 + group, 128);  // the block is complete
            if (group_tid == 0) {
                cp_async_bulk_tensor_2d_store(map_c, s_block, n_block, m_block);
                cp_async_bulk_commit_group();
            }
        }
    }
    if (group_tid == 0) cp_async_bulk_wait_group<0>();  // shared memory is read from until then
}
