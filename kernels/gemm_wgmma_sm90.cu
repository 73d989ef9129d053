// gemm_wgmma_sm90.cu — matrix product by wgmma: c[m,n] = epilogue(alpha * a op(b) + bias)
// Args     map_a: a T_IN [m, k], box (TILE_M, 64) · map_b: b T_IN [n, k], box (TILE_N, 64), or (TRANS_B 0) [k, n], box (64, 64);
//          both SWIZZLE_128B · map_c: c T_OUT [m, n], box (64, EPI_COLS), SWIZZLE_128B, or 64B where EPI_COLS is 32 ·
//          bias: T_BIAS [n] or [m] · params: TileParams · alpha: float · e0..e3, epi as in common/epilogue.cuh
// Params   T_IN {f16,bf16} · T_OUT {f16,bf16} · T_BIAS · tile: common/sm90_tile.cuh · MIN_BLOCKS on a multiprocessor ·
//          HAS_BIAS, BIAS_ROWS, EPILOGUE {0,1}
// Requires sm_90a · k and n multiples of 8, k > 0, addresses multiples of 16 bytes (host checks) · m, n, tiles < 2^31
// Launch   grid = min(tiles, multiprocessors * MIN_BLOCKS) · block = 32*(4*WARPGROUPS + 1) · smem: common/sm90_tile.cuh
//          [ops/matmul/wgmma.rs]
// Numerics products in f16/bf16, sums in f32, k in order: deterministic; class rel(2e-3) f16, rel(1e-2) bf16
// Notes    edges need no care: TMA loads zeros and clips stores. EPI_COLS is 64, or 32 where TILE_N is no multiple of 64
#if !defined(T_IN) || !defined(T_OUT)
#error "T_IN or T_OUT is not defined"
#endif
#if !defined(HAS_BIAS) || !defined(BIAS_ROWS) || !defined(MIN_BLOCKS)
#error "HAS_BIAS, BIAS_ROWS or MIN_BLOCKS is not defined"
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
#include "common/sm90_tile.cuh"

struct GemmLoader
{
    const TensorMap *a, *b;
    i32 m0, n0;

    DEVICE void prefetch() const
    {
        prefetch_tensormap(a);
        prefetch_tensormap(b);
    }

    DEVICE void tile(i32 m, i32 n) { m0 = m, n0 = n; }

    DEVICE void load_a(u32 s, u32 bar, i32 k) const
    {
#pragma unroll
        for (int kb = 0; kb < K_BLOCKS; kb++) cp_async_bulk_tensor_2d_load(s + kb * TILE_M * 128, a, bar, (k * K_BLOCKS + kb) * 64, m0);
    }

    DEVICE void load_b(u32 s, u32 bar, i32 k) const
    {
#pragma unroll
        for (int kb = 0; kb < K_BLOCKS; kb++) {
            const i32 k0 = (k * K_BLOCKS + kb) * 64;
            const u32 s_block = s + kb * TILE_N * 128;
#if TRANS_B
            cp_async_bulk_tensor_2d_load(s_block, b, bar, k0, n0);
#else
#pragma unroll
            for (int nb = 0; nb < TILE_N / 64; nb++) cp_async_bulk_tensor_2d_load(s_block + nb * 64 * 128, b, bar, n0 + nb * 64, k0);
#endif
        }
    }
};

struct GemmFinish
{
    static constexpr bool READS = N_EXTRA > 0;
    const Epilogue& epilogue_of;
    const T_BIAS* bias_at;
    float alpha;

#if HAS_BIAS
    DEVICE float column(i32 n) const { return BIAS_ROWS ? 0 : to_acc<ACC>(bias_at[n]); }
    DEVICE float row(i32 m) const { return BIAS_ROWS ? to_acc<ACC>(bias_at[m]) : 0; }
#else
    DEVICE float column(i32) const { return 0; }
    DEVICE float row(i32) const { return 0; }
#endif

    DEVICE float apply(float x, float bias, i32 m, i32 n) const { return epilogue_of.apply(x * alpha + bias, 0, 0, 0, m, n); }
};

extern "C" __global__ void __launch_bounds__(TILE_THREADS, MIN_BLOCKS)
KERNEL_NAME(const __grid_constant__ TensorMap map_a, const __grid_constant__ TensorMap map_b, const __grid_constant__ TensorMap map_c,
            const T_BIAS* bias, const TileParams params, const float alpha,
            const void* e0, const void* e1, const void* e2, const void* e3, const EpilogueStrides epi)
{
    const Epilogue epilogue_of{{e0, e1, e2, e3}, epi};
    GemmLoader loader{&map_a, &map_b, 0, 0};
    tile_engine(loader, GemmFinish{epilogue_of, bias, alpha}, &map_c, params);
}
