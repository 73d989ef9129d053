// gather_elements.cu — one element per index along one axis:  y[c] = x[row(c) + index[c] * axis_stride]
// Args     x: T_UNIT · index: T_INDEX [n] · y: T_UNIT [n] · shape: the indices' merged dimensions · strides: x's along them, 0
//          along the axis · axis, axis_stride: size and stride of x's axis · n: i64
// Params   T_UNIT {u8,u16,u32,u64}: bits of one element · T_INDEX {i32,i64} · RANK 1..8 · THREADS · INDEX64
// Requires axis > 0 where n > 0
// Launch   grid = min(ceil(n/THREADS), some multiple of the processors; the kernel strides) · block = THREADS · smem = 0
// Numerics exact
// Notes    a negative index counts from the end; one that is still out of range is clamped to the nearest element
#if !defined(T_UNIT) || !defined(T_INDEX) || !defined(RANK) || !defined(THREADS)
#error "T_UNIT, T_INDEX, RANK or THREADS is not defined"
#endif
#include "common/index.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_UNIT* x, const T_INDEX* index, T_UNIT* y, const Shape shape, const Strides strides, const i64 axis, const i64 axis_stride, const i64 n)
{
    griddepcontrol_wait();
    for (i64 at = (i64)blockIdx.x * THREADS + threadIdx.x; at < n; at += (i64)gridDim.x * THREADS) {
        i32 coord[RANK];
        unravel(coord, (Index)at, shape);
        i64 from = (i64)index[at];
        from += from < 0 ? axis : 0;
        from = from < 0 ? 0 : from >= axis ? axis - 1 : from;
        y[at] = x[offset_of(coord, strides.s) + from * axis_stride];
    }
}
