// conv_nd.cuh — the arguments of the generic convolutions with up to three spatial dimensions (leading ones are 1).
//
// ConvNdParams  64-bit struct of 24: n c k groups · in[3] out[3] filter[3] stride[3] pad[3] (before) dil[3] · in_image
//               out_image (elements between images).
#pragma once
#include "common/types.cuh"

struct ConvNdParams
{
    i64 n, c, k, groups;
    i64 in[3], out[3], filter[3], stride[3], pad[3], dil[3];
    i64 in_image, out_image;
};

// An output element: image, channel, flat pixel and position.
struct OutputAt
{
    i32 image, channel, pixel, at[3];

    DEVICE static OutputAt of(i64 flat, const ConvNdParams& p)
    {
        const i64 pixels = p.out[0] * p.out[1] * p.out[2], plane = flat / pixels;
        OutputAt r;
        r.pixel = (i32)(flat - plane * pixels);
        r.image = (i32)(plane / p.k);
        r.channel = (i32)(plane - r.image * p.k);
        r.place(p);
        return r;
    }

    // The same of an output with its channels last.
    DEVICE static OutputAt of_last(i64 flat, const ConvNdParams& p)
    {
        const i64 pixels = p.out[0] * p.out[1] * p.out[2], row = flat / p.k;
        OutputAt r;
        r.channel = (i32)(flat - row * p.k);
        r.image = (i32)(row / pixels);
        r.pixel = (i32)(row - r.image * pixels);
        r.place(p);
        return r;
    }

    DEVICE void place(const ConvNdParams& p)
    {
        const i32 o2 = (i32)p.out[2], o1 = (i32)p.out[1];
        at[2] = pixel % o2;
        at[1] = pixel / o2 % o1;
        at[0] = pixel / o2 / o1;
    }
};
