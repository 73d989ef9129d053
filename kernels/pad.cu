// pad.cu — padding and cropping:  y[c] = x[map(c - before)], or value outside (constant)
// Args     x: T_UNIT dense · y: T_UNIT dense · out_shape: Shape of y (common/index.cuh) · in: PadAxes, a 64-bit struct of 32:
//          size[8], before[8], after[8] (negative crops), stride[8] of x in elements · value: u64, the bits of the constant
// Params   T_UNIT {u8,u16,u32,u64} element type by size · MODE {CONSTANT 0, EDGE 1, REFLECT 2, WRAP 3} · RANK {1..8} · THREADS
//          {128,256} · INDEX64 {0,1}
// Requires EDGE, REFLECT, WRAP: what is left of each axis after cropping is not empty
// Launch   grid = min(ceil(n/THREADS), some multiple of the processors; the kernel strides) · block = THREADS · smem = 0
// Numerics exact
// Notes    an axis is cropped first; the border then repeats what is left. REFLECT does not repeat the edge element
#define MODE_CONSTANT 0
#define MODE_EDGE 1
#define MODE_REFLECT 2
#define MODE_WRAP 3
#if !defined(T_UNIT) || !defined(MODE) || !defined(RANK) || !defined(THREADS)
#error "T_UNIT, MODE, RANK or THREADS is not defined"
#endif
#include "common/index.cuh"

struct PadAxes
{
    i64 size[MAX_RANK], before[MAX_RANK], after[MAX_RANK], stride[MAX_RANK];
};

// Position in the part [0, n) that is left of an axis, or -1 for the constant.
DEVICE i64 map(i64 i, i64 n)
{
    if (i >= 0 && i < n) return i;
#if MODE == MODE_CONSTANT
    return -1;
#elif MODE == MODE_EDGE
    return i < 0 ? 0 : n - 1;
#elif MODE == MODE_WRAP
    i %= n;
    return i < 0 ? i + n : i;
#else
    if (n == 1) return 0;
    const i64 period = 2 * (n - 1);
    i %= period;
    i = i < 0 ? i + period : i;
    return i < n ? i : period - i;
#endif
}

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_UNIT* x, T_UNIT* y, const Shape out_shape, const PadAxes in, const u64 value)
{
    griddepcontrol_wait();
    i64 n = 1;
#pragma unroll
    for (int d = 0; d < RANK; d++) n *= out_shape.size[d];
    for (i64 at = (i64)blockIdx.x * THREADS + threadIdx.x; at < n; at += (i64)gridDim.x * THREADS) {
        i32 coord[RANK];
        unravel<RANK>(coord, (Index)at, out_shape);
        i64 offset = 0;
        bool inside = true;
#pragma unroll
        for (int d = 0; d < RANK; d++) {
            const i64 lo = in.before[d] < 0 ? -in.before[d] : 0, hi = in.size[d] + (in.after[d] < 0 ? in.after[d] : 0);
            const i64 i = map(coord[d] - (in.before[d] > 0 ? in.before[d] : 0), hi - lo);
            inside = inside && i >= 0;
            offset += (lo + i) * in.stride[d];
        }
        y[at] = inside ? x[offset] : (T_UNIT)value;
    }
}
