// gemm_wgmma_sm90.cu — batched matrix product by wgmma: c[z,m,n] = epilogue(alpha * op(a) op(b) + bias)
// Args     map_a: a T_IN [m, k], box (TILE_M, K_BLOCK), or (TRANS_A 1) [k, m], box (64, 64) · map_b: b T_IN [n, k], box
//          (TILE_N/CLUSTER, K_BLOCK), or (TRANS_B 0) [k, n], box (64/CLUSTER, 64); both SWIZZLE_128B · map_c: c T_OUT [m, n], map_r:
//          the residual as c (RESIDUAL 0: any map), boxes as in common/sm90_tile.cuh · with BATCHED 1 all maps have the matrix as
//          their outermost dimension, with boxes of one · bias: T_BIAS [n] or [m] · c: T_OUT, where map_c starts ·
//          params: ProductParams · alpha: float · e0..e3, epi as in common/epilogue.cuh
// Params   T_IN {f16,bf16, float as TF32} · T_OUT {f16,bf16,float} · tile: common/sm90_tile.cuh · bias and epilogue:
//          common/sm90_finish.cuh
// Requires sm_90a · rows of all matrices multiples of 16 bytes, n even, k > 0, addresses multiples of 16 bytes (host checks) ·
//          m, n, tiles < 2^31
// Launch   common/sm90_tile.cuh [ops/matmul/wgmma.rs]
// Numerics products in f16/bf16/TF32, sums in f32, k in order, or SPLIT_K parts of it: deterministic; class rel(2e-3) f16, rel(1e-2) bf16
// Notes    The engine calls griddepcontrol_wait: first thing but for loads of constant operands. Edges need no care: TMA loads zeros and clips stores
#if !defined(T_IN) || !defined(T_OUT)
#error "T_IN or T_OUT is not defined"
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
#include "common/sm90_finish.cuh"
#include "common/sm90_tile.cuh"

// Matrix z of c is the product of the matrices sum over i of b[i] * step[i] of a and b, b being the digits of z.
struct ProductParams
{
    TileParams tile;
    i32 batch[3];  // sizes of the batch dimensions
    i32 step_a[3], step_b[3];
};

DEVICE void digits(const ProductParams& p, i32 z, i32 (&b)[3])
{
    b[0] = z / p.batch[2], b[2] = z - b[0] * p.batch[2];
    b[1] = b[0] % p.batch[1], b[0] /= p.batch[1];
}

struct ProductLoader
{
    const TensorMap *a, *b;
    const ProductParams& p;
    i32 m0, n0, z_a, z_b, rank;

    DEVICE void prefetch() const
    {
        prefetch_tensormap(a);
        prefetch_tensormap(b);
    }

    DEVICE void tile(i32 m, i32 n, i32 z, i32 r)
    {
        m0 = m, n0 = n, rank = r;
        if (BATCHED) {
            i32 i[3];
            digits(p, z, i);
            z_a = i[0] * p.step_a[0] + i[1] * p.step_a[1] + i[2] * p.step_a[2];
            z_b = i[0] * p.step_b[0] + i[1] * p.step_b[1] + i[2] * p.step_b[2];
        }
    }

    DEVICE void load_a(u32 s, u32 bar, i32 k) const
    {
#pragma unroll
        for (int kb = 0; kb < K_BLOCKS; kb++) {
            const i32 k0 = (k * K_BLOCKS + kb) * K_BLOCK;
            const u32 s_block = s + kb * TILE_M * 128;
#pragma unroll
            for (int mb = 0; mb < (TRANS_A ? TILE_M / 64 : 1); mb++) {
                const i32 x = TRANS_A ? m0 + mb * 64 : k0, y = TRANS_A ? k0 : m0;
                if (BATCHED) cp_async_bulk_tensor_3d_load(s_block + mb * 64 * 128, a, bar, x, y, z_a);
                else cp_async_bulk_tensor_2d_load(s_block + mb * 64 * 128, a, bar, x, y);
            }
        }
    }

    DEVICE void load_b(u32 s, u32 bar, i32 k) const
    {
        constexpr u16 ALL = (1 << CLUSTER) - 1;
        constexpr int PART = (TRANS_B ? TILE_N : 64) / CLUSTER;  // rows of a box
        const i32 part = CLUSTER > 1 ? rank * PART : 0;
#pragma unroll
        for (int kb = 0; kb < K_BLOCKS; kb++) {
            const i32 k0 = (k * K_BLOCKS + kb) * K_BLOCK;
            const u32 s_block = s + kb * TILE_N * 128 + part * 128;
#pragma unroll
            for (int nb = 0; nb < (TRANS_B ? 1 : TILE_N / 64); nb++) {
                const i32 x = TRANS_B ? k0 : n0 + nb * 64, y = (TRANS_B ? n0 : k0) + part;
                const u32 s_box = s_block + nb * 64 * 128;
                if (BATCHED && CLUSTER > 1) cp_async_bulk_tensor_3d_load_multicast(s_box, b, bar, x, y, z_b, ALL);
                else if (BATCHED) cp_async_bulk_tensor_3d_load(s_box, b, bar, x, y, z_b);
                else if (CLUSTER > 1) cp_async_bulk_tensor_2d_load_multicast(s_box, b, bar, x, y, ALL);
                else cp_async_bulk_tensor_2d_load(s_box, b, bar, x, y);
            }
        }
    }
};

struct ProductPlace
{
    const ProductParams& p;
    i32 b[3];

    DEVICE void tile(i32 z)
    {
        if (BATCHED) digits(p, z, b);
    }

    DEVICE void coords(i32 m, i32 n, i32 (&c)[5]) const
    {
        c[0] = BATCHED ? b[0] : 0, c[1] = BATCHED ? b[1] : 0, c[2] = BATCHED ? b[2] : 0, c[3] = m, c[4] = n;
    }
};

TILE_KERNEL KERNEL_NAME(const __grid_constant__ TensorMap map_a, const __grid_constant__ TensorMap map_b,
                        const __grid_constant__ TensorMap map_c, const __grid_constant__ TensorMap map_r, const T_BIAS* bias, T_OUT* c,
                        const ProductParams params, const float alpha,
                        const void* e0, const void* e1, const void* e2, const void* e3, const EpilogueStrides epi)
{
    const Epilogue epilogue_of{{e0, e1, e2, e3}, epi};
    ProductLoader loader{&map_a, &map_b, params, 0, 0, 0, 0, 0};
    TileFinish<ProductPlace> finish{epilogue_of, bias, alpha, {params, {0, 0, 0}}};
    tile_engine(loader, finish, &map_c, &map_r, c, params.tile, params.batch[0] * params.batch[1] * params.batch[2]);
}
