// resize.cuh — how resizing maps an output position of one axis to input positions and weights.
//
// Contract  The including file defines MODE {NEAREST 0, LINEAR 1, CUBIC 2}, COORD, ROUND (NEAREST) and EXCLUDE_OUTSIDE (LINEAR,
//           CUBIC) by the numbers below, and has ResizeParams as an argument: a 32-bit struct of 17, in[3] out[3] as integers,
//           scale[3] roi_start[3] roi_end[3] cubic_a extrapolation as floats.
// axis_of(o, d, params)   the TAPS input positions along dimension d of output position o, and their weights.
#pragma once
#include "common/math.cuh"

#define MODE_NEAREST 0
#define MODE_LINEAR 1
#define MODE_CUBIC 2
#define COORD_HALF_PIXEL 0
#define COORD_PYTORCH_HALF_PIXEL 1
#define COORD_ALIGN_CORNERS 2
#define COORD_ASYMMETRIC 3
#define COORD_TF_CROP_AND_RESIZE 4
#define COORD_HALF_PIXEL_SYMMETRIC 5
#define COORD_TF_HALF_PIXEL_FOR_NN 6
#define ROUND_PREFER_FLOOR 0
#define ROUND_PREFER_CEIL 1
#define ROUND_FLOOR 2
#define ROUND_CEIL 3
#if MODE == MODE_NEAREST && !defined(ROUND)
#error "ROUND is not defined"
#endif
#if MODE != MODE_NEAREST && !defined(EXCLUDE_OUTSIDE)
#error "EXCLUDE_OUTSIDE is not defined"
#endif

struct ResizeParams
{
    i32 in[3], out[3];
    float scale[3], roi_start[3], roi_end[3], cubic_a, extrapolation;
};

#define TAPS (MODE == MODE_NEAREST ? 1 : MODE == MODE_LINEAR ? 2 : 4)

// The input positions of one axis that an output position is made of.
struct Axis
{
    i32 at[TAPS];
    float weight[TAPS];
    bool outside;
};

// Products are rounded apart from sums (no contraction), so that ties fall as on the host.
DEVICE float coordinate(i32 o, int d, const ResizeParams& p)
{
    [[maybe_unused]] const float x = (float)o, scale = p.scale[d], in = (float)p.in[d], out = (float)p.out[d];
#if COORD == COORD_HALF_PIXEL
    return (x + 0.5f) / scale - 0.5f;
#elif COORD == COORD_PYTORCH_HALF_PIXEL
    return p.out[d] > 1 ? (x + 0.5f) / scale - 0.5f : 0.0f;
#elif COORD == COORD_ALIGN_CORNERS
    return p.out[d] > 1 ? __fmul_rn(x, in - 1.0f) / (out - 1.0f) : 0.0f;
#elif COORD == COORD_ASYMMETRIC
    return x / scale;
#elif COORD == COORD_TF_HALF_PIXEL_FOR_NN
    return (x + 0.5f) / scale;
#elif COORD == COORD_TF_CROP_AND_RESIZE
    const float first = __fmul_rn(p.roi_start[d], in - 1.0f), last = __fmul_rn(p.roi_end[d], in - 1.0f);
    return p.out[d] > 1 ? __fadd_rn(first, __fmul_rn(x, last - first) / (out - 1.0f)) : __fmul_rn(0.5f, first + last);
#else
    const float adjustment = out / __fmul_rn(scale, in), center = 0.5f * in;
    const float offset = __fmul_rn(center, 1.0f - adjustment);
    return __fadd_rn(offset, (x + 0.5f) / scale) - 0.5f;
#endif
}

DEVICE Axis axis_of(i32 o, int d, const ResizeParams& p)
{
    Axis r;
    const i32 n = p.in[d];
    const float x = coordinate(o, d, p);
    r.outside = COORD == COORD_TF_CROP_AND_RESIZE && (x < 0.0f || x > (float)(n - 1));
#if MODE == MODE_NEAREST
#if ROUND == ROUND_PREFER_FLOOR
    const float f = ceilf(x - 0.5f);
#elif ROUND == ROUND_PREFER_CEIL
    const float f = floorf(x + 0.5f);
#elif ROUND == ROUND_FLOOR
    const float f = floorf(x);
#else
    const float f = ceilf(x);
#endif
    r.at[0] = ::min(::max((i32)f, 0), n - 1);
    r.weight[0] = 1.0f;
#elif MODE == MODE_LINEAR
    const float c = fminf(fmaxf(x, 0.0f), (float)(n - 1));
    const i32 i = ::min((i32)c, n - 1);
    r.at[0] = i;
    r.at[1] = ::min(i + 1, n - 1);
    r.weight[1] = c - (float)i;
    r.weight[0] = 1.0f - r.weight[1];
#else
    const float floor_x = floorf(x), t = x - floor_x, a = p.cubic_a;
    const i32 i = (i32)floor_x - 1;
    // Keys' kernel at distances 1+t, t, 1-t, 2-t.
    const float u = 1.0f - t;
    r.weight[0] = ((a * (t + 1.0f) - 5.0f * a) * (t + 1.0f) + 8.0f * a) * (t + 1.0f) - 4.0f * a;
    r.weight[1] = ((a + 2.0f) * t - (a + 3.0f)) * t * t + 1.0f;
    r.weight[2] = ((a + 2.0f) * u - (a + 3.0f)) * u * u + 1.0f;
    r.weight[3] = ((a * (u + 1.0f) - 5.0f * a) * (u + 1.0f) + 8.0f * a) * (u + 1.0f) - 4.0f * a;
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < 4; k++) {
        if (EXCLUDE_OUTSIDE && (u32)(i + k) >= (u32)n) r.weight[k] = 0.0f;
        sum += r.weight[k];
        r.at[k] = ::min(::max(i + k, 0), n - 1);
    }
    if (EXCLUDE_OUTSIDE) {
#pragma unroll
        for (int k = 0; k < 4; k++) r.weight[k] /= sum;
    }
#endif
    return r;
}
