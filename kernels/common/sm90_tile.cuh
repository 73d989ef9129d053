// sm90_tile.cuh — output tiles by wgmma on Hopper: a producer warp fills a ring of shared memory through TMA, warpgroups
// multiply, and results leave through TMA.
//
// Contract  The including file defines the parameters below, T_IN, T_OUT, and calls tile_engine with
//             a loader: prefetch() of its maps; tile(m0, n0, z, rank) before the steps of a tile, rank being that in a cluster of
//               CLUSTER blocks; load_a(s, bar, k), load_b(s, bar, k): A_BYTES and B_BYTES of step k. With CLUSTER > 1, load_b
//               loads the part `rank` of CLUSTER parts, to all blocks of the cluster
//             a finish (common/sm90_finish.cuh is one): tile(z) of the tile; Columns and Row, what two columns and a row need,
//               as columns(n), n even, and row(m) read it inside of the output; apply(x, columns, odd, row, residual, m, n): from
//               a sum to what is stored, inside of the output too if READS: then it reads memory;
//               residual(): where that lies, T_OUT as the output (RESIDUAL 1)
//           A kernel is declared TILE_KERNEL NAME(..). Launch: grid = min(tiles, multiprocessors * MIN_BLOCKS / CLUSTER) * CLUSTER,
//           or tiles * SPLIT_K; block = TILE_THREADS; clusters come from the kernel itself.
// Params    TILE_M, TILE_N output tile · TILE_K step along k, multiple of K_BLOCK elements, which are 128 bytes · STAGES of the
//           ring · WARPGROUPS that multiply · MIN_BLOCKS on a multiprocessor ·
//           PINGPONG {0,1}: all warpgroups share a tile, TILE_M/WARPGROUPS rows each, or each takes every WARPGROUPS-th
//           tile alone, so that one's epilogue runs beside another's products ·
//           CLUSTER {1..8} blocks along m that share b · SPLIT_K {1,2,4,8} blocks of a cluster that share the sums of one tile ·
//           EPI_BUFS store buffers of a warpgroup · RESIDUAL {0,1}: an operand of the epilogue lies as the output ·
//           TRANS_A {0,1}: a lies [m,k] or [k,m] · TRANS_B {0,1}: b lies [k,n] or [n,k] · BATCHED {0,1}: map_c and map_r are 3-D ·
//           CONSUMER_REGS 0, or registers of a multiplying thread: then the producer is a whole warpgroup that gives its own away ·
//           CONST_A, CONST_B {0,1}: no kernel writes a, or b: the first steps of it are loaded before griddepcontrol_wait
//           Where they are not defined: CLUSTER 1, SPLIT_K 1, RESIDUAL 0, TRANS_A 0, TRANS_B 1, BATCHED 0, CONSUMER_REGS 0, CONST_A 0,
//           CONST_B 0
// Shared    dynamic: 1024 + STAGES*(A_BYTES + B_BYTES) + EPI_BYTES + 8*(2*STAGES + WARPGROUPS*EPI_BUFS), base rounded up to 1024
//           a: K_BLOCKS blocks (TILE_M, 128 bytes of k) with SWIZZLE_128B; TRANS_A 1: K_BLOCKS times TILE_M/64 blocks (64 of k,
//           64 of m) · b: (TILE_N, 128 bytes of k) likewise; TRANS_B 0: K_BLOCKS times TILE_N/64 blocks (64 of k, 64 of n)
// Notes     The producer's parity waits tell neighbouring phases apart only: see the turn barrier of PINGPONG below.
//           A residual may alias the output: each block is read before it is written, and no other.
//           map_c and map_r: box (64 rows, EPI_COLS), SWIZZLE_128B, or 64B where EPI_COLS are 64 bytes.
#pragma once
#include "common/ptx_sm90.cuh"
#include "common/types.cuh"

#if !defined(TILE_M) || !defined(TILE_N) || !defined(TILE_K) || !defined(STAGES) || !defined(WARPGROUPS) || !defined(MIN_BLOCKS)
#error "TILE_M, TILE_N, TILE_K, STAGES, WARPGROUPS or MIN_BLOCKS is not defined"
#endif
#if !defined(PINGPONG) || !defined(EPI_BUFS)
#error "PINGPONG or EPI_BUFS is not defined"
#endif
#ifndef CLUSTER
#define CLUSTER 1
#endif
#ifndef SPLIT_K
#define SPLIT_K 1
#endif
#ifndef RESIDUAL
#define RESIDUAL 0
#endif
#ifndef TRANS_A
#define TRANS_A 0
#endif
#ifndef TRANS_B
#define TRANS_B 1
#endif
#ifndef BATCHED
#define BATCHED 0
#endif
#ifndef CONSUMER_REGS
#define CONSUMER_REGS 0
#endif
#ifndef CONST_A
#define CONST_A 0
#endif
#ifndef CONST_B
#define CONST_B 0
#endif

constexpr int TILE_THREADS = CONSUMER_REGS ? 128 * (WARPGROUPS + 1) : 32 * (4 * WARPGROUPS + 1);
constexpr int K_BLOCK = 128 / (int)sizeof(T_IN), K_BLOCKS = TILE_K / K_BLOCK;
constexpr int GROUP_ROWS = PINGPONG ? TILE_M : TILE_M / WARPGROUPS;  // tile rows of one warpgroup
constexpr int M_BLOCKS = GROUP_ROWS / 64;
constexpr int EPI_COLS = sizeof(T_OUT) == 4 || TILE_N % 64 ? 32 : 64;  // columns of one stored block
constexpr int EPI_ROW = EPI_COLS * (int)sizeof(T_OUT);                 // its bytes along a row, 64 or 128
constexpr int N_BLOCKS = TILE_N / EPI_COLS, BLOCKS = M_BLOCKS * N_BLOCKS;
constexpr int A_BYTES = TILE_M * TILE_K * (int)sizeof(T_IN), B_BYTES = TILE_N * TILE_K * (int)sizeof(T_IN);
constexpr int BLOCK_BYTES = 64 * EPI_ROW;
constexpr int EPI_BYTES = SPLIT_K > 1 ? TILE_M * TILE_N * 4 : WARPGROUPS * EPI_BUFS * BLOCK_BYTES;
constexpr int OFFSET_B = STAGES * A_BYTES, OFFSET_EPI = OFFSET_B + STAGES * B_BYTES, OFFSET_BAR = OFFSET_EPI + EPI_BYTES;
// What the descriptors step by, in 16 bytes: 32 bytes of k, the next K_BLOCK of k, the next 64 rows of a.
constexpr int STEP_A = TRANS_A ? 128 : 2, STEP_B = TRANS_B ? 2 : 128;
constexpr int NEXT_A = TILE_M * 8, NEXT_B = TILE_N * 8, NEXT_ROWS = 64 * 8;

static_assert(TILE_K % K_BLOCK == 0 && GROUP_ROWS % 64 == 0 && GROUP_ROWS * (PINGPONG ? 1 : WARPGROUPS) == TILE_M, "whole wgmma tiles");
static_assert(TILE_N % (TRANS_B ? 32 : 64) == 0 && TILE_N <= 256 && TILE_M <= 256, "boxes and stored blocks");
static_assert(sizeof(T_IN) == 2 || (sizeof(T_IN) == 4 && !TRANS_A && TRANS_B), "TF32 operands lie along k");
static_assert(STAGES >= 2 && TILE_THREADS <= 1024 && 2 * WARPGROUPS < 16, "a ring, and named barriers");
static_assert(CLUSTER == 1 || (SPLIT_K == 1 && (TRANS_B ? TILE_N : 64) % (8 * CLUSTER) == 0), "parts of b are whole groups of 8 rows");
static_assert(SPLIT_K == 1 || (!PINGPONG && TILE_N / 8 % SPLIT_K == 0), "each block of a cluster finishes whole groups of 8 columns");

#if CLUSTER * SPLIT_K > 1
#define TILE_KERNEL extern "C" __global__ void __cluster_dims__(CLUSTER * SPLIT_K, 1, 1) __launch_bounds__(TILE_THREADS, MIN_BLOCKS)
#else
#define TILE_KERNEL extern "C" __global__ void __launch_bounds__(TILE_THREADS, MIN_BLOCKS)
#endif

struct TileParams
{
    i32 m, n;              // of one matrix of the output
    i32 k_steps;           // of TILE_K
    i32 tiles_m, tiles_n;  // of CLUSTER * TILE_M rows, TILE_N columns
    i32 group_m;           // tile order: group_m row tiles, then the next column, which then is in the second-level cache
};

// Shared-memory descriptor of wgmma with SWIZZLE_128B: address, distance of 64-element blocks (neighbours along m or n only),
// distance of 8-row groups (1024 bytes), layout.
DEVICE u64 descriptor(u32 s_addr, u32 leading)
{
    return (u64)((s_addr & 0x3FFFF) >> 4) | (u64)leading << 16 | (u64)64 << 32 | (u64)1 << 62;
}

// A stored block (64, EPI_COLS), swizzled: 16 columns of a warp's 16 rows. Each lane has 8 numbers as wgmma leaves them: i & 1 the
// column, i >> 1 & 1 the lower rows, i >> 2 the next 8 columns.
template <class T> struct Block  // of 2 bytes
{
    DEVICE static u32 place(u32 s_block, int warp_row, int lane, int j)
    {
        const int row = warp_row + (lane & 15), chunk = j * 2 + (lane >> 4);  // a lane gives the address of 16 bytes of a row
        return s_block + row * EPI_ROW + ((chunk ^ (EPI_ROW == 128 ? row & 7 : row >> 1 & 3)) << 4);
    }
    DEVICE static void load(u32 s_block, int warp_row, int lane, int j, float (&x)[8])
    {
        union { u32 r[4]; T v[8]; } b;
        ldmatrix_x4(b.r, place(s_block, warp_row, lane, j));
#pragma unroll
        for (int i = 0; i < 8; i++) x[i] = to_compute(b.v[i]);
    }
    DEVICE static void store(u32 s_block, int warp_row, int lane, int j, const float (&x)[8])
    {
        stmatrix_x4(place(s_block, warp_row, lane, j), cvt_rn_x2(Tag<T>(), x[0], x[1]), cvt_rn_x2(Tag<T>(), x[2], x[3]),
                    cvt_rn_x2(Tag<T>(), x[4], x[5]), cvt_rn_x2(Tag<T>(), x[6], x[7]));
    }
};
template <> struct Block<float>
{
    DEVICE static u32 place(u32 s_block, int warp_row, int lane, int j, int pair)
    {
        const int row = warp_row + lane / 4 + (pair & 1) * 8, chunk = j * 4 + (pair >> 1) * 2 + (lane >> 1 & 1);
        return s_block + row * EPI_ROW + ((chunk ^ (row & 7)) << 4) + (lane & 1) * 8;
    }
    DEVICE static void load(u32 s_block, int warp_row, int lane, int j, float (&x)[8])
    {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float2 v = ld_shared_v2(place(s_block, warp_row, lane, j, i));
            x[2 * i] = v.x, x[2 * i + 1] = v.y;
        }
    }
    DEVICE static void store(u32 s_block, int warp_row, int lane, int j, const float (&x)[8])
    {
#pragma unroll
        for (int i = 0; i < 4; i++) st_shared_v2(place(s_block, warp_row, lane, j, i), x[2 * i], x[2 * i + 1]);
    }
};

DEVICE void store_block(const TensorMap* map, u32 s_block, i32 n, i32 m, i32 z)
{
    if (BATCHED) cp_async_bulk_tensor_3d_store(map, s_block, n, m, z);
    else cp_async_bulk_tensor_2d_store(map, s_block, n, m);
    cp_async_bulk_commit_group();
}

DEVICE void load_block(const TensorMap* map, u32 s_block, u32 bar, i32 n, i32 m, i32 z)
{
    mbarrier_arrive_expect_tx(bar, BLOCK_BYTES);
    if (BATCHED) cp_async_bulk_tensor_3d_load(s_block, map, bar, n, m, z);
    else cp_async_bulk_tensor_2d_load(s_block, map, bar, n, m);
}

// map_r is read with RESIDUAL 1 only; c is where map_c starts, with SPLIT_K > 1 only; batch: matrices (BATCHED).
template <class Loader, class Finish>
DEVICE void tile_engine(Loader& loader, Finish& finish, const TensorMap* map_c, const TensorMap* map_r, T_OUT* c, const TileParams& p, i32 batch = 1)
{
    extern __shared__ __align__(1024) u8 s_raw[];
    const u32 base = (shared_address(s_raw) + 1023) & ~1023u;
    const u32 s_a = base, s_b = base + OFFSET_B, s_epi = base + OFFSET_EPI;
    const u32 full = base + OFFSET_BAR, empty = full + 8 * STAGES, arrived = empty + 8 * STAGES;
    const int tid = threadIdx.x, warp = __shfl_sync(~0u, tid >> 5, 0), lane = tid & 31;
    const int rank = CLUSTER * SPLIT_K > 1 ? (int)cluster_ctarank() : 0;
    const int first_tile = blockIdx.x / (CLUSTER * SPLIT_K), tile_step = gridDim.x / (CLUSTER * SPLIT_K);
    const int tiles_of_matrix = p.tiles_m * p.tiles_n, tiles = BATCHED ? tiles_of_matrix * batch : tiles_of_matrix;
    const int k_begin = SPLIT_K > 1 ? (int)((i64)p.k_steps * rank / SPLIT_K) : 0;
    const int steps = SPLIT_K > 1 ? (int)((i64)p.k_steps * (rank + 1) / SPLIT_K) - k_begin : p.k_steps;

    griddepcontrol_launch_dependents();
    if (tid == 128 * WARPGROUPS) {
        loader.prefetch();
        prefetch_tensormap(map_c);
        if (RESIDUAL) prefetch_tensormap(map_r);
        for (int i = 0; i < STAGES; i++) {
            mbarrier_init(full + 8 * i, 1);
            mbarrier_init(empty + 8 * i, 4 * CLUSTER * (PINGPONG ? 1 : WARPGROUPS));  // one lane of each reading warp
        }
        for (int i = 0; i < WARPGROUPS * EPI_BUFS; i++) mbarrier_init(arrived + 8 * i, 1);
        if (SPLIT_K > 1) mbarrier_arrive_expect_tx(arrived, EPI_BYTES);
        fence_mbarrier_init();
        fence_proxy_async();
    }
    __syncthreads();  // the barriers exist
    if (CLUSTER * SPLIT_K > 1) barrier_cluster_arrive_relaxed();
    if (CLUSTER > 1) barrier_cluster_wait();  // in every block of the cluster, before one signals another's

    auto place = [&](int t, i32& m0, i32& n0, i32& z) {
        z = BATCHED ? t / tiles_of_matrix : 0;
        if (BATCHED) t -= z * tiles_of_matrix;
        const int per = p.group_m * p.tiles_n, g = t / per, first = g * p.group_m, r = t - g * per;
        const int rows = p.tiles_m - first < p.group_m ? p.tiles_m - first : p.group_m;
        n0 = r / rows * TILE_N;
        m0 = ((first + r % rows) * CLUSTER + (CLUSTER > 1 ? rank : 0)) * TILE_M;
    };

    if (warp >= 4 * WARPGROUPS) {  // the producer: one lane keeps the ring full
        if (CONSUMER_REGS) setmaxnreg_dec<24>();
        if (warp == 4 * WARPGROUPS && lane == 0) {
            int stage = 0, filled = 0;
            u32 phase = 0;
            i32 m0, n0, z;
            if ((CONST_A || CONST_B) && first_tile < tiles) {
                // What no kernel writes comes before the wait, for as many steps as the ring holds.
                place(first_tile, m0, n0, z);
                loader.tile(m0, n0, z, rank);
                filled = steps < STAGES ? steps : STAGES;
                for (int i = 0; i < filled; i++) {
                    mbarrier_arrive_expect_tx(full + 8 * i, A_BYTES + B_BYTES);
                    if (CONST_A) loader.load_a(s_a + i * A_BYTES, full + 8 * i, k_begin + i);
                    if (CONST_B) loader.load_b(s_b + i * B_BYTES, full + 8 * i, k_begin + i);
                }
                griddepcontrol_wait();
                for (int i = 0; i < filled; i++) {
                    if (!CONST_A) loader.load_a(s_a + i * A_BYTES, full + 8 * i, k_begin + i);
                    if (!CONST_B) loader.load_b(s_b + i * B_BYTES, full + 8 * i, k_begin + i);
                }
                stage = filled == STAGES ? 0 : filled;
                phase = filled == STAGES;
            } else {
                griddepcontrol_wait();
            }
            for (int t = first_tile; t < tiles; t += tile_step) {
                place(t, m0, n0, z);
                loader.tile(m0, n0, z, rank);
                for (int k = filled; k < steps; k++) {
                    mbarrier_wait_parity(empty + 8 * stage, phase ^ 1);
                    mbarrier_arrive_expect_tx(full + 8 * stage, A_BYTES + B_BYTES);
                    loader.load_a(s_a + stage * A_BYTES, full + 8 * stage, k_begin + k);
                    loader.load_b(s_b + stage * B_BYTES, full + 8 * stage, k_begin + k);
                    if (++stage == STAGES) stage = 0, phase ^= 1;
                }
                filled = 0;
            }
        }
        __syncwarp();
        if (SPLIT_K > 1) {
            barrier_cluster_wait();
        } else if (CLUSTER > 1) {
            barrier_cluster_arrive_relaxed();
            barrier_cluster_wait();
        }
        return;
    }

    if (CONSUMER_REGS) setmaxnreg_inc<CONSUMER_REGS ? CONSUMER_REGS : 24>();
    const int group = warp >> 2, group_tid = tid & 127, group_warp = warp & 3;
    const int row_offset = PINGPONG ? 0 : group * GROUP_ROWS;
    [[maybe_unused]] const u32 s_blocks = s_epi + group * EPI_BUFS * BLOCK_BYTES, arrived_here = arrived + 8 * group * EPI_BUFS;
    int stage = 0;
    [[maybe_unused]] int turn = 0, epi_buf = 0;
    u32 phase = 0;
    [[maybe_unused]] u32 arrived_phase = 0;
    float acc[M_BLOCKS][TILE_N / 2];  // [M_BLOCKS, 64, TILE_N] over 128 threads
    griddepcontrol_wait();            // operands of the epilogue, and the output, which a kernel ahead may read
    auto release = [&](int s) {
        if (CLUSTER > 1) {
            if (lane < CLUSTER) mbarrier_arrive_remote(empty + 8 * s, lane);
        } else if (lane == 0) {
            mbarrier_arrive(empty + 8 * s);
        }
    };
    for (int t = first_tile; t < tiles; t += tile_step) {
        if (PINGPONG) {
            const bool mine = turn == group;
            if (++turn == WARPGROUPS) turn = 0;
            if (!mine) {
                stage += steps;
                phase ^= (stage / STAGES) & 1;
                stage %= STAGES;
                continue;
            }
        }
        i32 m0, n0, z;
        place(t, m0, n0, z);
        m0 += row_offset;
        finish.tile(z);
        if (RESIDUAL && SPLIT_K == 1 && group_tid == 0) {  // arrives while the products run
            cp_async_bulk_wait_group_read<0>();
#pragma unroll
            for (int b = 0; b < EPI_BUFS && b < BLOCKS; b++)
                load_block(map_r, s_blocks + b * BLOCK_BYTES, arrived_here + 8 * b, n0 + b % N_BLOCKS * EPI_COLS, m0 + b / N_BLOCKS * 64, z);
        }
        [[maybe_unused]] typename Finish::Columns columns[EPI_COLS / 8];  // of the stored block that is next
        [[maybe_unused]] auto read_columns = [&](int nb) {
#pragma unroll
            for (int j = 0; j < EPI_COLS / 8; j++) {
                const i32 n = n0 + nb * EPI_COLS + lane % 4 * 2 + j * 8;
                columns[j] = finish.columns(n < p.n ? n : p.n - 2);
            }
        };
        constexpr bool EARLY = SPLIT_K == 1 && M_BLOCKS * TILE_N <= 192;  // while there are registers
        if (EARLY) read_columns(0);
        // Turn: the warpgroup of the tile before has passed its last wait for a full stage. One that looked a whole tile
        // ahead (steps > STAGES) would take an older fill of the stage for its own.
        if (PINGPONG && t != first_tile) bar_sync(1 + WARPGROUPS + group, 256);
        int previous = 0;
        for (int k = 0; k < steps; k++) {
            mbarrier_wait_parity(full + 8 * stage, phase);
            const u64 da = descriptor(s_a + stage * A_BYTES + row_offset * 128, TRANS_A ? 512 : 1);
            const u64 db = descriptor(s_b + stage * B_BYTES, TRANS_B ? 1 : 512);
            wgmma_fence();
#pragma unroll
            for (int kb = 0; kb < K_BLOCKS; kb++)
#pragma unroll
                for (int kk = 0; kk < 4; kk++)  // 32 bytes of k
#pragma unroll
                    for (int mb = 0; mb < M_BLOCKS; mb++)
                        wgmma_m64<TRANS_A, !TRANS_B>(Tag<T_IN>(), acc[mb], da + kb * NEXT_A + mb * NEXT_ROWS + kk * STEP_A,
                                                     db + kb * NEXT_B + kk * STEP_B, (k | kb | kk) != 0);
            wgmma_commit_group();
            if (k > 0) {  // the group before has read its stage
                wgmma_wait_group<1>();
                release(previous);
            }
            previous = stage;
            if (++stage == STAGES) stage = 0, phase ^= 1;
        }
        if (PINGPONG && t + tile_step < tiles) bar_arrive(1 + WARPGROUPS + (group + 1 == WARPGROUPS ? 0 : group + 1), 256);
        wgmma_wait_group<0>();
        if (SPLIT_K == 1 || steps > 0) release(previous);
#pragma unroll
        for (int mb = 0; mb < M_BLOCKS; mb++)
#pragma unroll
            for (int i = 0; i < TILE_N / 2; i++) wgmma_settle(acc[mb][i]);

#if SPLIT_K == 1
        // Registers to a swizzled block (64, EPI_COLS), and that by TMA, which clips at the edges.
        if (!EARLY) read_columns(0);
#pragma unroll
        for (int b = 0; b < BLOCKS; b++) {
            // Buffers rotate across tiles: the wait below frees exactly the one of EPI_BUFS stores ago. (A residual's loads wait
            // for all of them.)
            const int mb = b / N_BLOCKS, nb = b % N_BLOCKS, buf = RESIDUAL || BLOCKS % EPI_BUFS == 0 ? b % EPI_BUFS : epi_buf;
            epi_buf = epi_buf + 1 == EPI_BUFS ? 0 : epi_buf + 1;
            const u32 s_block = s_blocks + buf * BLOCK_BYTES;
            const i32 m_block = m0 + mb * 64, n_block = n0 + nb * EPI_COLS;
            const i32 m_own = m_block + group_warp * 16 + lane / 4, n_own = n_block + lane % 4 * 2;
            typename Finish::Row rows[2];
#pragma unroll
            for (int i = 0; i < 2; i++) rows[i] = finish.row(m_own + i * 8 < p.m ? m_own + i * 8 : p.m - 1);
            if (RESIDUAL) {
                mbarrier_wait_parity(arrived_here + 8 * buf, arrived_phase >> buf & 1);
                arrived_phase ^= 1u << buf;
            } else {
                if (group_tid == 0) cp_async_bulk_wait_group_read<EPI_BUFS - 1>();
                bar_sync(1 + group, 128);  // the buffer is free
            }
#pragma unroll
            for (int j = 0; j < EPI_COLS / 16; j++) {
                const float* r = &acc[mb][nb * (EPI_COLS / 2) + j * 8];
                float x[8], residual[8] = {};
                if (RESIDUAL) Block<T_OUT>::load(s_block, group_warp * 16, lane, j, residual);
#pragma unroll
                for (int i = 0; i < 8; i++) {
                    const int half = i >> 1 & 1, pair = j * 2 + (i >> 2);
                    const i32 m = m_own + half * 8, n = n_own + pair * 8 + (i & 1);
                    const bool outside = Finish::READS && !(m < p.m && n < p.n);
                    x[i] = outside ? 0 : finish.apply(r[i], columns[pair], i & 1, rows[half], residual[i], m, n);
                }
                Block<T_OUT>::store(s_block, group_warp * 16, lane, j, x);
            }
            if (N_BLOCKS > 1 && b + 1 < BLOCKS) read_columns((b + 1) % N_BLOCKS);
            fence_proxy_async();
            bar_sync(1 + group, 128);  // the block is complete
            if (group_tid == 0) {
                store_block(map_c, s_block, n_block, m_block, z);
                const int next = b + EPI_BUFS;
                if (RESIDUAL && next < BLOCKS) {
                    cp_async_bulk_wait_group_read<0>();
                    load_block(map_r, s_block, arrived_here + 8 * buf, n0 + next % N_BLOCKS * EPI_COLS, m0 + next / N_BLOCKS * 64, z);
                }
            }
        }
#else
        // Each block sends its sums to the one that finishes their columns, and adds those of all, in the order of the ranks.
        constexpr int CHUNKS = TILE_N / 8, OWN = CHUNKS / SPLIT_K;  // groups of 8 columns: of the tile, of one block
        barrier_cluster_wait();  // all blocks of the cluster run
#pragma unroll
        for (int i = 0; i < CHUNKS; i++)
#pragma unroll
            for (int mb = 0; mb < M_BLOCKS; mb++) {
                const u32 there = s_epi + (((rank * OWN + i % OWN) * M_BLOCKS + mb) * (128 * WARPGROUPS) + tid) * 16;
                const float* r = &acc[mb][i * 4];
                const bool any = steps > 0;  // else the registers hold nothing
                st_async_v4(mapa(there, i / OWN), mapa(arrived, i / OWN), any ? r[0] : 0, any ? r[1] : 0, any ? r[2] : 0, any ? r[3] : 0);
            }
        typename Finish::Columns own[OWN];  // read while they are under way
        typename Finish::Row rows[M_BLOCKS][2];
        float residual[OWN][M_BLOCKS][4] = {};
        const i32 n_first = n0 + rank * OWN * 8 + lane % 4 * 2, m_first = m0 + group_warp * 16 + lane / 4;
        const i64 matrix = BATCHED ? (i64)z * p.m * p.n : 0;
#pragma unroll
        for (int i = 0; i < OWN; i++) own[i] = finish.columns(n_first + i * 8 < p.n ? n_first + i * 8 : p.n - 2);
#pragma unroll
        for (int mb = 0; mb < M_BLOCKS; mb++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const i32 m = m_first + mb * 64 + half * 8;
                rows[mb][half] = finish.row(m < p.m ? m : p.m - 1);
#pragma unroll
                for (int i = 0; i < OWN; i++) {
                    const i32 n = n_first + i * 8;
                    T_OUT pair[2];
                    if (!RESIDUAL || m >= p.m || n >= p.n) continue;
                    load_vec<2>(pair, finish.residual() + matrix + (i64)m * p.n + n);
                    residual[i][mb][half * 2] = to_compute(pair[0]), residual[i][mb][half * 2 + 1] = to_compute(pair[1]);
                }
            }
        mbarrier_wait_parity_cluster(arrived, 0);  // all sums are here: none of the cluster leaves before
#pragma unroll
        for (int i = 0; i < OWN; i++)
#pragma unroll
            for (int mb = 0; mb < M_BLOCKS; mb++) {
                float x[4] = {};
#pragma unroll
                for (int q = 0; q < SPLIT_K; q++) {
                    const float4 v = ld_shared_v4(s_epi + (((q * OWN + i) * M_BLOCKS + mb) * (128 * WARPGROUPS) + tid) * 16);
                    x[0] += v.x, x[1] += v.y, x[2] += v.z, x[3] += v.w;
                }
                const i32 n = n_first + i * 8;
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    const i32 m = m_first + mb * 64 + half * 8;
                    if (m >= p.m || n >= p.n) continue;
                    T_OUT y[2];
#pragma unroll
                    for (int o = 0; o < 2; o++)
                        y[o] = from_compute<T_OUT>(finish.apply(x[half * 2 + o], own[i], o, rows[mb][half], residual[i][mb][half * 2 + o], m, n + o));
                    store_vec<2>(c + matrix + (i64)m * p.n + n, y);
                }
            }
#endif
    }
    if (SPLIT_K == 1) {
        // Shared memory is read from until then; the grid ends when what was read is written.
        if (group_tid == 0) cp_async_bulk_wait_group_read<0>();
        __syncwarp();
        if (CLUSTER > 1) {  // none leaves while another may signal its barriers
            barrier_cluster_arrive_relaxed();
            barrier_cluster_wait();
        }
    }
}
