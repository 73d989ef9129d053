// mma_sm80.cuh — fragments of mma.m16n8k16 out of padded shared tiles.
//
// Tiles    a: [m][k] rows of `pitch` elements (TRANS: [k][m]) · b: [k][n] (TRANS: [n][k]). Rows start 16-byte aligned.
// Notes    fragment a covers 16 x 16 at (m0, k0); fragment b covers 16 (k) x 16 (n): registers 0,1 are columns n0..n0+7,
//          registers 2,3 are n0+8..n0+15. Accumulator v of lane l: row l/4 + 8*(v/2), column 2*(l%4) + v%2.
#pragma once
#include "common/types.cuh"

#if __CUDA_ARCH__ < 800
#error "mma.m16n8k16 with f16 and bf16 needs sm_80"
#endif

template <bool TRANS, class T> DEVICE void load_fragment_a(u32 (&r)[4], const T* s, int pitch, int m0, int k0, int lane)
{
    if (!TRANS) {
        ldmatrix_x4(r, shared_address(s + (m0 + lane % 16) * pitch + k0 + lane / 16 * 8));
    } else {
        ldmatrix_x4_trans(r, shared_address(s + (k0 + lane / 16 * 8 + lane % 8) * pitch + m0 + lane / 8 % 2 * 8));
    }
}

template <bool TRANS, class T> DEVICE void load_fragment_b(u32 (&r)[4], const T* s, int pitch, int n0, int k0, int lane)
{
    if (TRANS) {
        ldmatrix_x4(r, shared_address(s + (n0 + lane / 16 * 8 + lane % 8) * pitch + k0 + lane / 8 % 2 * 8));
    } else {
        ldmatrix_x4_trans(r, shared_address(s + (k0 + lane / 8 % 2 * 8 + lane % 8) * pitch + n0 + lane / 16 * 8));
    }
}

DEVICE void mma_as(Tag<f16>, float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) { mma_m16n8k16_f16(d, a, b0, b1); }
DEVICE void mma_as(Tag<bf16>, float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) { mma_m16n8k16_bf16(d, a, b0, b1); }
template <class T> DEVICE void mma(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) { mma_as(Tag<T>(), d, a, b0, b1); }

// The same over 8 along k: registers 0, 1 of fragment a and one of b.
DEVICE void mma_8_as(Tag<f16>, float (&d)[4], u32 a0, u32 a1, u32 b0) { mma_m16n8k8_f16(d, a0, a1, b0); }
DEVICE void mma_8_as(Tag<bf16>, float (&d)[4], u32 a0, u32 a1, u32 b0) { mma_m16n8k8_bf16(d, a0, a1, b0); }
template <class T> DEVICE void mma_8(float (&d)[4], u32 a0, u32 a1, u32 b0) { mma_8_as(Tag<T>(), d, a0, a1, b0); }
