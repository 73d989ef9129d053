// roi_pool.cu — greatest element of each cell of regions:  y[k,c,i,j] = max of x[image(k),c] over the cell, 0 for an empty one
// Args     x: T_IN [n,c,h,w] · rois: T_IN [k,5] as image x1 y1 x2 y2 · y: T_IN [k,c,ph,pw] · params: RoiParams, a 64-bit struct of
//          7: n, c, h, w, ph, pw, k · scale: float
// Params   T_IN {float,f16,bf16,double} · THREADS {128,256}
// Requires n, h, w from 1, h and w below 2^31
// Launch   grid = min(ceil(k*c*ph*pw/THREADS), 2^31-1), the kernel strides · block = THREADS · smem = 0
// Numerics exact elements; cell edges in float (double for double), each step rounded as on the host
// Notes    corners are rounded, half away from zero, and belong to the region; an image out of range is clamped
#if !defined(T_IN) || !defined(THREADS)
#error "T_IN or THREADS is not defined"
#endif
#include "common/math.cuh"
#include "common/rounded.cuh"

typedef Compute<T_IN>::type REAL;
#define FAR REAL(1 << 30)

struct RoiParams
{
    i64 n, c, h, w, ph, pw, k;
};

DEVICE float round_away(float x) { return ::roundf(x); }
DEVICE double round_away(double x) { return ::round(x); }

DEVICE i64 corner(REAL v, REAL scale) { return (i64)within(round_away(mul_rn(v, scale)), -FAR, FAR); }

DEVICE i64 edge(REAL v, i64 first, i64 n)
{
    const i64 at = (i64)v + first;
    return at < 0 ? 0 : at > n ? n : at;
}

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_IN* x, const T_IN* rois, T_IN* y, const RoiParams params, const float scale)
{
    griddepcontrol_wait();
    const i64 cells = params.ph * params.pw, total = params.k * params.c * cells;
    for (i64 flat = (i64)blockIdx.x * THREADS + threadIdx.x; flat < total; flat += (i64)gridDim.x * THREADS) {
        const i64 channel = flat / cells % params.c, region = flat / cells / params.c;
        const i64 ow = flat % params.pw, oh = flat / params.pw % params.ph;
        const T_IN* g_roi = rois + region * 5;
        const i64 image = (i64)within(to_compute(g_roi[0]), REAL(0), REAL(params.n - 1));
        const i64 x1 = corner(to_compute(g_roi[1]), REAL(scale)), y1 = corner(to_compute(g_roi[2]), REAL(scale));
        const i64 x2 = corner(to_compute(g_roi[3]), REAL(scale)), y2 = corner(to_compute(g_roi[4]), REAL(scale));
        const REAL cell_h = div_rn(REAL(::max(y2 - y1 + 1, (i64)1)), REAL(params.ph));
        const REAL cell_w = div_rn(REAL(::max(x2 - x1 + 1, (i64)1)), REAL(params.pw));
        const i64 top = edge(op::floor(mul_rn(REAL(oh), cell_h)), y1, params.h);
        const i64 bottom = edge(op::ceil(mul_rn(REAL(oh + 1), cell_h)), y1, params.h);
        const i64 left = edge(op::floor(mul_rn(REAL(ow), cell_w)), x1, params.w);
        const i64 right = edge(op::ceil(mul_rn(REAL(ow + 1), cell_w)), x1, params.w);
        const T_IN* g_x = x + (image * params.c + channel) * params.h * params.w;
        REAL best = 0;
        bool first = true;
        for (i64 h = top; h < bottom; h++) {
            for (i64 w = left; w < right; w++) {
                const REAL v = to_compute(g_x[h * params.w + w]);
                best = first || v > best ? v : best;
                first = false;
            }
        }
        y[flat] = from_compute<T_IN>(best);
    }
}
