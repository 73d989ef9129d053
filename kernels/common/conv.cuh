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

// Filter extents that are known at compile time (else 0) make the divisions below multiplications by constants.
#if !defined(FILTER_H) || !defined(FILTER_W)
#error "FILTER_H or FILTER_W (0: known at run time) is not defined"
#endif

// What row kk = (channel, tap) of the unfolded input means, for every pixel alike: how far its element lies from the one of
// row 0, and one bit each for the tap's row (0..14) and column (16..31). A row past the end has bit 15, which no pixel has.
struct Tap
{
    i32 offset;
    u32 bits;

    DEVICE static Tap of(i32 kk, const ConvParams& p)
    {
        if (kk >= p.crs) return Tap{0, 1u << 15};
#if FILTER_H
        const i32 channel = (u32)kk / (FILTER_H * FILTER_W), tap = (u32)kk % (FILTER_H * FILTER_W);
        const i32 fh = tap / FILTER_W, fw = tap % FILTER_W;
#else
        const i32 channel = (i32)divide(kk, p.by_rs), tap = kk - channel * p.r * p.s;
        const i32 fh = (i32)divide(tap, p.by_s), fw = tap - fh * p.s;
#endif
        return Tap{(channel * p.h + fh * p.dil_h) * p.w + fw * p.dil_w, 1u << (fh & 15) | 0x10000u << (fw & 15)};
    }
};

// Bits do for filters up to 15 x 16; beyond, positions are compared one by one.
DEVICE bool has_tap_bits(const ConvParams& p) { return (FILTER_H ? FILTER_H : p.r) <= 15 && (FILTER_W ? FILTER_W : p.s) <= 16; }

// Reads the unfolded input at one output pixel. Outside the input it is zero; the load itself is never skipped, so that the
// loads of a tile are all in flight together.
struct Gather
{
    Pixel at;
    i32 first;  // offset of tap (0, 0) of channel 0, perhaps outside the input
    u32 bits;   // tap rows and columns that fall inside, as in Tap
    bool inside;

    DEVICE static Gather of(i32 flat, i32 n_pixels, const ConvParams& p)
    {
        Gather r;
        r.inside = flat < n_pixels;
        r.at = Pixel::of(r.inside ? flat : 0, p);
        r.first = r.at.h0 * p.w + r.at.w0;
        r.bits = 0;
        if (r.inside && has_tap_bits(p)) {
            for (i32 f = 0; f < p.r; f++) r.bits |= (u32)((u32)(r.at.h0 + f * p.dil_h) < (u32)p.h) << f;
            for (i32 f = 0; f < p.s; f++) r.bits |= (u32)((u32)(r.at.w0 + f * p.dil_w) < (u32)p.w) << (16 + f);
        }
        return r;
    }

    template <class T> DEVICE T read(const T* g_group, const Tap& tap) const
    {
        const bool ok = (bits & tap.bits) == tap.bits;
        const T x = g_group[ok ? first + tap.offset : 0];
        return ok ? x : T{};
    }

    // For filters without tap bits.
    template <class T> DEVICE T read_compared(const T* g_group, i32 kk, const ConvParams& p) const
    {
        const i32 channel = (i32)divide(kk, p.by_rs), tap = kk - channel * p.r * p.s;
        const i32 fh = (i32)divide(tap, p.by_s), h = at.h0 + fh * p.dil_h, w = at.w0 + (tap - fh * p.s) * p.dil_w;
        const bool ok = inside && kk < p.crs && (u32)h < (u32)p.h && (u32)w < (u32)p.w;
        const T x = g_group[ok ? (channel * p.h + h) * p.w + w : 0];
        return ok ? x : T{};
    }
};

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
