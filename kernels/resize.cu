// resize.cu — interpolation along one to three spatial dimensions:  y[plane, o] = sum of weights * x[plane, neighbours of map(o)]
// Args     x: T_IN [planes, in..] · y: T_IN [planes, out..] · planes: i64 · params: ResizeParams, a 32-bit struct of 17: in[3]
//          out[3] as integers, scale[3] roi_start[3] roi_end[3] cubic_a extrapolation as floats (leading dimensions of size 1,
//          scale 1, where fewer are used)
// Params   T_IN any type · T_ACC {float,double}: what sums are kept in · MODE {NEAREST 0, LINEAR 1, CUBIC 2} · COORD {HALF_PIXEL 0,
//          PYTORCH_HALF_PIXEL 1, ALIGN_CORNERS 2, ASYMMETRIC 3, TF_CROP_AND_RESIZE 4, HALF_PIXEL_SYMMETRIC 5, TF_HALF_PIXEL_FOR_NN
//          6} · ANTIALIAS {0,1}: the filter is widened where an axis shrinks (LINEAR, CUBIC) · ROUND (NEAREST)
//          {ROUND_PREFER_FLOOR 0, ROUND_PREFER_CEIL 1, FLOOR 2, CEIL 3} · EXCLUDE_OUTSIDE {0,1} (LINEAR, CUBIC) · ACTIVE {1,2,3}
//          innermost dimensions that are resized · THREADS {128,256}
// Requires pixels of one plane below 2^31; dimensions beyond ACTIVE have in = out
// Launch   grid = min(ceil(planes*out/THREADS), 2^31-1), the kernel strides · block = THREADS · smem = 0
// Numerics coordinates in f32 as the ONNX runtimes compute them; class rel(1e-5) f32; integers are
//          truncated and saturated
// Notes    TF_CROP_AND_RESIZE gives `extrapolation` where the coordinate leaves the input
#if !defined(T_IN) || !defined(MODE) || !defined(COORD) || !defined(ACTIVE) || !defined(THREADS)
#error "T_IN, MODE, COORD, ACTIVE or THREADS is not defined"
#endif
#if !defined(ANTIALIAS) || !defined(T_ACC)
#error "ANTIALIAS or T_ACC is not defined"
#endif
#include "common/resize.cuh"

// An axis that is not resized.
DEVICE Axis same(i32 o)
{
    Axis r{};
    r.at[0] = o;
    r.weight[0] = 1.0f;
    return r;
}

#if ANTIALIAS
// The neighbours of one axis with the filter stretched by 1/scale where the axis shrinks; weights are made when they are read.
struct Wide
{
    i32 base, first, count, n;
    float ratio, scale, sum;
    bool outside;

    DEVICE float raw(i32 k) const
    {
        const float d = fabsf(((float)k - ratio) * scale);
#if MODE == MODE_LINEAR
        return d < 1.0f ? 1.0f - d : 0.0f;
#else
        const float a = cubic_a;
        return d <= 1.0f ? ((a + 2.0f) * d - (a + 3.0f)) * d * d + 1.0f
             : d < 2.0f  ? ((a * d - 5.0f * a) * d + 8.0f * a) * d - 4.0f * a
                         : 0.0f;
#endif
    }
    DEVICE bool counts(i32 k) const { return !EXCLUDE_OUTSIDE || (u32)(base + k) < (u32)n; }
    DEVICE float weight(i32 k) const { return counts(k) ? raw(k) / sum : 0.0f; }
    DEVICE i32 at(i32 k) const { return ::min(::max(base + k, 0), n - 1); }
    float cubic_a;
};

DEVICE Wide wide(i32 o, int d, const ResizeParams& p)
{
    Wide r;
    const float x = coordinate(o, d, p), floor_x = floorf(x), reach = MODE == MODE_LINEAR ? 1.0f : 2.0f;
    r.n = p.in[d];
    r.outside = COORD == COORD_TF_CROP_AND_RESIZE && (x < 0.0f || x > (float)(r.n - 1));
    r.base = (i32)fminf(fmaxf(floor_x, -1073741824.0f), 1073741824.0f);
    r.ratio = x - floor_x;
    r.scale = fminf(p.scale[d], 1.0f);
    r.cubic_a = p.cubic_a;
    r.first = (i32)floorf(-reach / r.scale) + 1;
    r.count = 2 - 2 * r.first;
    r.sum = 0.0f;
    for (i32 k = r.first; k < r.first + r.count; k++) r.sum += r.counts(k) ? r.raw(k) : 0.0f;
    if (r.sum == 0.0f) r.sum = 1.0f;
    return r;
}

DEVICE Wide same_wide(i32 o)
{
    Wide r{};
    r.base = o;
    r.count = r.n = 1;
    r.n = o + 1;
    r.sum = r.scale = 1.0f;
    return r;
}
#endif

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_IN* x, T_IN* y, const i64 planes, const ResizeParams params)
{
    griddepcontrol_wait();
    const i32 o1 = params.out[1], o2 = params.out[2], pixels = params.out[0] * o1 * o2;
    const i32 n1 = params.in[1], n2 = params.in[2];
    const i64 plane_size = (i64)params.in[0] * n1 * n2, total = planes * pixels;
    for (i64 flat = (i64)blockIdx.x * THREADS + threadIdx.x; flat < total; flat += (i64)gridDim.x * THREADS) {
        const i64 plane = flat / pixels;
        const i32 pixel = (i32)(flat - plane * pixels), c2 = pixel % o2, c1 = pixel / o2 % o1, c0 = pixel / o2 / o1;
        const T_IN* g_x = x + plane * plane_size;
#if ANTIALIAS
        const Wide a2 = wide(c2, 2, params);
        const Wide a1 = ACTIVE > 1 ? wide(c1, 1, params) : same_wide(c1);
        const Wide a0 = ACTIVE > 2 ? wide(c0, 0, params) : same_wide(c0);
        T_ACC acc = 0;
        for (i32 i = a0.first; i < a0.first + a0.count; i++) {
            for (i32 j = a1.first; j < a1.first + a1.count; j++) {
                const T_IN* g_row = g_x + ((i64)a0.at(i) * n1 + a1.at(j)) * n2;
                const T_ACC f = (T_ACC)a0.weight(i) * (T_ACC)a1.weight(j);
                if (f == T_ACC(0)) continue;
                for (i32 k = a2.first; k < a2.first + a2.count; k++)
                    acc += f * (T_ACC)a2.weight(k) * (T_ACC)to_compute(g_row[a2.at(k)]);
            }
        }
        y[flat] = weighted_result<T_IN>(a0.outside || a1.outside || a2.outside ? (T_ACC)params.extrapolation : acc);
#else
        const Axis a2 = axis_of(c2, 2, params);
        const Axis a1 = ACTIVE > 1 ? axis_of(c1, 1, params) : same(c1);
        const Axis a0 = ACTIVE > 2 ? axis_of(c0, 0, params) : same(c0);
        const bool outside = a2.outside || a1.outside || a0.outside;
#if MODE == MODE_NEAREST
        const T_IN v = g_x[((i64)a0.at[0] * n1 + a1.at[0]) * n2 + a2.at[0]];
        y[flat] = outside ? from_compute<T_IN>(params.extrapolation) : v;
#else
        typedef T_ACC ACC;
        ACC acc = 0;
#pragma unroll
        for (int i = 0; i < (ACTIVE > 2 ? TAPS : 1); i++) {
#pragma unroll
            for (int j = 0; j < (ACTIVE > 1 ? TAPS : 1); j++) {
                const T_IN* g_row = g_x + ((i64)a0.at[i] * n1 + a1.at[j]) * n2;
                const ACC f = (ACC)a0.weight[i] * (ACC)a1.weight[j];
#pragma unroll
                for (int k = 0; k < TAPS; k++) acc += f * (ACC)a2.weight[k] * (ACC)to_compute(g_row[a2.at[k]]);
            }
        }
        y[flat] = weighted_result<T_IN>(outside ? (ACC)params.extrapolation : acc);
#endif
#endif
    }
}
