// roi_align.cu — regions pooled at sampled positions:  y[k,c,i,j] = mean | max over samples of the cell of x[batch[k],c] interpolated
// Args     x: T_IN [n,c,h,w] · rois: T_IN [k,4] as x1 y1 x2 y2 · batch: T_INDEX [k] · y: T_IN [k,c,ph,pw] · params: RoiParams, a
//          64-bit struct of 9: n, c, h, w, ph, pw, k, ratio (samples of a cell along each dimension; 0: as the cell has
//          elements), max_samples · scale: float
// Params   T_IN {float,f16,bf16,double} · T_INDEX any integer type · IS_MAX {0,1} · HALF_PIXEL {0,1}: regions shifted by half
//          an element; without it at least one element large · THREADS {128,256}
// Requires n, h, w from 1, h and w below 2^31
// Launch   grid = min(ceil(k*c*ph*pw/THREADS), 2^31-1), the kernel strides · block = THREADS · smem = 0
// Numerics float (double for double), positions rounded step by step as on the host, samples in order: deterministic
// Notes    a sample more than one element outside is zero; a batch index out of range is clamped
#if !defined(T_IN) || !defined(T_INDEX) || !defined(IS_MAX) || !defined(HALF_PIXEL) || !defined(THREADS)
#error "T_IN, T_INDEX, IS_MAX, HALF_PIXEL or THREADS is not defined"
#endif
#include "common/math.cuh"
#include "common/rounded.cuh"

typedef Compute<T_IN>::type REAL;

struct RoiParams
{
    i64 n, c, h, w, ph, pw, k, ratio, max_samples;
};

// One region along one dimension.
struct Span
{
    REAL start, cell;
    i32 samples;
};

struct Neighbours
{
    bool inside;
    i32 low, high;
    REAL weight;  // of high
};

DEVICE Span span(REAL first, REAL last, REAL scale, i64 cells, const RoiParams& p)
{
    const REAL shift = HALF_PIXEL ? REAL(0.5) : REAL(0);
    Span s;
    s.start = sub_rn(mul_rn(first, scale), shift);
    REAL size = sub_rn(sub_rn(mul_rn(last, scale), shift), s.start);
    if (!HALF_PIXEL && size < REAL(1)) size = REAL(1);
    s.cell = div_rn(size, REAL(cells));
    s.samples = p.ratio ? (i32)p.ratio : (i32)within(op::ceil(s.cell), REAL(0), REAL(p.max_samples));
    return s;
}

DEVICE Neighbours neighbours(const Span& s, i64 o, i32 i, i32 n)
{
    const REAL step = div_rn(mul_rn(add_rn(REAL(i), REAL(0.5)), s.cell), REAL(s.samples));
    REAL at = add_rn(add_rn(s.start, mul_rn(REAL(o), s.cell)), step);
    Neighbours r;
    r.inside = at >= REAL(-1) && at <= REAL(n);
    at = r.inside && at > REAL(0) ? at : REAL(0);
    r.low = (i32)at;
    const bool last = r.low >= n - 1;
    r.weight = last ? REAL(0) : sub_rn(at, REAL(r.low));
    r.low = last ? n - 1 : r.low;
    r.high = last ? n - 1 : r.low + 1;
    return r;
}

DEVICE REAL larger(REAL a, REAL b) { return a > b ? a : b; }

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_IN* x, const T_IN* rois, const T_INDEX* batch, T_IN* y, const RoiParams params, const float scale)
{
    griddepcontrol_wait();
    const i64 cells = params.ph * params.pw, total = params.k * params.c * cells;
    const i32 h = (i32)params.h, w = (i32)params.w;
    for (i64 flat = (i64)blockIdx.x * THREADS + threadIdx.x; flat < total; flat += (i64)gridDim.x * THREADS) {
        const i64 channel = flat / cells % params.c, region = flat / cells / params.c;
        const i64 ow = flat % params.pw, oh = flat / params.pw % params.ph;
        const T_IN* g_roi = rois + region * 4;
        i64 image = (i64)batch[region];
        image = image < 0 ? 0 : image >= params.n ? params.n - 1 : image;
        const T_IN* g_x = x + (image * params.c + channel) * params.h * params.w;
        const Span rows = span(to_compute(g_roi[1]), to_compute(g_roi[3]), REAL(scale), params.ph, params);
        const Span cols = span(to_compute(g_roi[0]), to_compute(g_roi[2]), REAL(scale), params.pw, params);
        REAL acc = 0;
        bool first = true;
        for (i32 i = 0; i < rows.samples; i++) {
            const Neighbours r = neighbours(rows, oh, i, h);
            for (i32 j = 0; j < cols.samples; j++) {
                const Neighbours q = neighbours(cols, ow, j, w);
                const REAL vr = REAL(1) - r.weight, vq = REAL(1) - q.weight;
                const bool inside = r.inside && q.inside;
                const REAL a = inside ? vr * vq * to_compute(g_x[(i64)r.low * w + q.low]) : REAL(0);
                const REAL b = inside ? vr * q.weight * to_compute(g_x[(i64)r.low * w + q.high]) : REAL(0);
                const REAL d = inside ? r.weight * vq * to_compute(g_x[(i64)r.high * w + q.low]) : REAL(0);
                const REAL e = inside ? r.weight * q.weight * to_compute(g_x[(i64)r.high * w + q.high]) : REAL(0);
#if IS_MAX
                const REAL most = larger(larger(a, b), larger(d, e));
                acc = first ? most : larger(acc, most);
#else
                acc += a + b + d + e;
#endif
                first = false;
            }
        }
        const i64 count = (i64)rows.samples * cols.samples;
        y[flat] = from_compute<T_IN>(IS_MAX || first ? acc : acc / REAL(count));
    }
}
