// gemm.cuh — the arguments that all matrix products share, and which tile a block computes.
//
// GemmParams  64-bit struct of 18: m n k lda ldb ldc batch[3] stride_a[3] stride_b[3] stride_c[3], in elements. A is stored
//             [m,k] with row pitch lda (TRANS_A: [k,m]), B [k,n] with row pitch ldb (TRANS_B: [n,k]), C [m,n] with row pitch
//             ldc. batch are three outer dimensions (1 where unused); a stride of 0 broadcasts.
// Grid        x: ceil(m/BLOCK_M) * ceil(n/BLOCK_N) * batch[0]*batch[1]*batch[2] blocks, y: splits of k (1: none).
// Splits      gridDim.y = splits divides k among the splits in whole BLOCK_K tiles; split i writes its part of the sum to
//             c + i * split_c, where split_c is the element count of the whole batch (ldc = n, dense), for split_finish.cu
//             to add. Compile such a product with T_OUT = T_ACC, HAS_BIAS 0, EPILOGUE 0.
// Order       tiles of one matrix go in bands of GROUP_M tile rows, so that blocks running together share operands in L2.
#pragma once
#include "common/types.cuh"

#define GROUP_M 8

struct GemmParams
{
    i64 m, n, k, lda, ldb, ldc;
    i64 batch[3], stride_a[3], stride_b[3], stride_c[3];
};

struct GemmTile
{
    i32 m0, n0, batch[3];
    i64 k_begin, k_end;

    template <int BLOCK_M_, int BLOCK_N_, int BLOCK_K_> DEVICE static GemmTile of_block(const GemmParams& p)
    {
        const u32 tiles_m = (u32)((p.m + BLOCK_M_ - 1) / BLOCK_M_), tiles_n = (u32)((p.n + BLOCK_N_ - 1) / BLOCK_N_);
        const u32 tiles = tiles_m * tiles_n;
        u32 b = blockIdx.x / tiles, t = blockIdx.x % tiles;
        const u32 band = t / (GROUP_M * tiles_n), first = band * GROUP_M;
        const u32 rows = tiles_m - first < GROUP_M ? tiles_m - first : GROUP_M;
        t -= band * GROUP_M * tiles_n;
        GemmTile r;
        r.m0 = (i32)((first + t % rows) * BLOCK_M_);
        r.n0 = (i32)((t / rows) * BLOCK_N_);
        r.batch[2] = (i32)(b % (u32)p.batch[2]);
        b /= (u32)p.batch[2];
        r.batch[1] = (i32)(b % (u32)p.batch[1]);
        r.batch[0] = (i32)(b / (u32)p.batch[1]);
        const i64 each = ((p.k + BLOCK_K_ - 1) / BLOCK_K_ + gridDim.y - 1) / gridDim.y * BLOCK_K_;
        r.k_begin = blockIdx.y * each;
        r.k_end = min(r.k_begin + each, p.k);
        return r;
    }

    // Where this split's copy of C lies.
    DEVICE static i64 split_offset(const GemmParams& p)
    {
        return blockIdx.y * (p.batch[0] * p.batch[1] * p.batch[2] * p.m * p.n);
    }

    DEVICE i64 offset(const i64 (&stride)[3]) const
    {
        return batch[0] * stride[0] + batch[1] * stride[1] + batch[2] * stride[2];
    }
};
