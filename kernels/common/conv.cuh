// conv.cuh — the arguments of two-dimensional convolutions (one-dimensional: h = r = p = 1), NCHW and KCRS.
//
// ConvParams  32-bit struct of 30, in this order: n c h w (input) · k p q (output channels, height, width) · r s (filter) ·
//             groups · stride_h stride_w · pad_h pad_w (before) · dil_h dil_w · c_group = c/groups · k_group = k/groups ·
//             in_image, out_image (elements between images: c*h*w and k*p*q, more where the tensor is a slice) ·
//             pq = p*q, crs = c_group*r*s · (magic, shift) of pq, of q, of r*s, of s as common/index.cuh defines them
// Requires    n*p*q < 2^31, in_image and out_image < 2^31 (host checks); addresses are 64-bit.
#pragma once
#include "common/types.cuh"

struct Magic
{
    u32 magic, shift;
};

struct ConvParams
{
    i32 n, c, h, w, k, p, q, r, s, groups, stride_h, stride_w, pad_h, pad_w, dil_h, dil_w;
    i32 c_group, k_group, in_image, out_image, pq, crs;
    Magic by_pq, by_q, by_rs, by_s;
};

DEVICE u32 divide(u32 n, const Magic& d) { return (__umulhi(n, d.magic) + n) >> d.shift; }

// Where one output pixel reads: its image and the input position of filter tap (0, 0).
struct Pixel
{
    i32 image, pixel, h0, w0;

    DEVICE static Pixel of(u32 flat, const ConvParams& p)
    {
        Pixel r;
        r.image = (i32)divide(flat, p.by_pq);
        r.pixel = (i32)flat - r.image * p.pq;
        const i32 oh = (i32)divide(r.pixel, p.by_q), ow = r.pixel - oh * p.q;
        r.h0 = oh * p.stride_h - p.pad_h;
        r.w0 = ow * p.stride_w - p.pad_w;
        return r;
    }
};

// Filter extents that are known at compile time make the divisions below shifts and multiplies by constants.
#if !defined(FILTER_H) || !defined(FILTER_W)
#error "FILTER_H or FILTER_W (0: known at run time) is not defined"
#endif

// One element of the unfolded input: row kk = (channel, tap) of the product, for one output pixel. Outside it is zero; the
// load itself is never skipped, so that the loads of a tile are all in flight together.
template <class T> DEVICE T unfolded(const T* g_group, const ConvParams& p, const Pixel& at, i32 kk, bool inside)
{
#if FILTER_H == 1 && FILTER_W == 1
    const i32 channel = kk, h = at.h0, w = at.w0;
#else
#if FILTER_H
    const u32 channel = (u32)kk / (FILTER_H * FILTER_W), tap = (u32)kk % (FILTER_H * FILTER_W);
    const i32 fh = tap / FILTER_W, fw = tap % FILTER_W;
#else
    const i32 channel = (i32)divide(kk, p.by_rs), tap = kk - channel * p.r * p.s;
    const i32 fh = (i32)divide(tap, p.by_s), fw = tap - fh * p.s;
#endif
    const i32 h = at.h0 + fh * p.dil_h, w = at.w0 + fw * p.dil_w;
#endif
    inside = inside && kk < p.crs && (u32)h < (u32)p.h && (u32)w < (u32)p.w;
    const T x = g_group[inside ? ((i32)channel * p.h + h) * p.w + w : 0];
    return inside ? x : T{};
}

// A launch with gridDim.z = groups * splits divides crs among the splits in whole tiles; split i writes its part of the sum
// to y + i * n * out_image, for split_finish.cu to add.
struct Split
{
    i32 group, index, k_begin, k_end;

    template <int BLOCK_K_> DEVICE static Split of_block(const ConvParams& p)
    {
        const i32 splits = gridDim.z / p.groups, tiles = (p.crs + BLOCK_K_ - 1) / BLOCK_K_, each = (tiles + splits - 1) / splits;
        Split r;
        r.group = blockIdx.z / splits;
        r.index = blockIdx.z - r.group * splits;
        r.k_begin = r.index * each * BLOCK_K_;
        r.k_end = min(r.k_begin + each * BLOCK_K_, p.crs);
        return r;
    }
};
