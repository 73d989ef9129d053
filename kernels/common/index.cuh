// index.cuh — flat index to coordinates by multiplication, and how shapes and strides travel as arguments.
//
// Shape    32-bit struct of 24: size[8], magic[8], shift[8]. The last used dimension is the innermost. For each size d:
//              shift = ceil(log2 d)      magic = floor(2^32 * (2^shift - d) / d) + 1 (mod 2^32)
//          Then n / d == (umulhi(n, magic) + n) >> shift for every 0 <= n < 2^31 (d = 1: shift 0, magic 1).
// Strides  64-bit struct of 8: elements between neighbours along each dimension; 0 broadcasts, negative runs back.
// INDEX64  define of the including file: 0 = the host checked that flat indices stay below 2^31; 1 = 64-bit division.
#pragma once
#include "common/types.cuh"

#ifndef INDEX64
#error "INDEX64 (0: flat indices below 2^31, 1: any) is not defined"
#endif

#define MAX_RANK 8

struct Shape
{
    i32 size[MAX_RANK];
    u32 magic[MAX_RANK];
    u32 shift[MAX_RANK];
};

struct Strides
{
    i64 s[MAX_RANK];
};

#if INDEX64
typedef i64 Index;
#else
typedef u32 Index;
#endif

DEVICE u32 fast_div(u32 n, u32 magic, u32 shift) { return (__umulhi(n, magic) + n) >> shift; }

// Coordinates of a flat index in a dense shape. The outermost is not reduced: the caller keeps the index in range.
template <int N> DEVICE void unravel(i32 (&coord)[N], Index flat, const Shape& shape)
{
#pragma unroll
    for (int d = N - 1; d > 0; d--) {
#if INDEX64
        Index q = flat / shape.size[d];
#else
        Index q = fast_div(flat, shape.magic[d], shape.shift[d]);
#endif
        coord[d] = (i32)(flat - q * (Index)shape.size[d]);
        flat = q;
    }
    coord[0] = (i32)flat;
}

template <int N> DEVICE i64 offset_of(const i32 (&coord)[N], const i64 (&stride)[MAX_RANK])
{
    i64 offset = 0;
#pragma unroll
    for (int d = 0; d < N; d++) offset += coord[d] * stride[d];
    return offset;
}
