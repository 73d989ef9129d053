// concat_copy.cu — rows from one pitch to another: one input of a concatenation, one output of a split:  y[r, i] = x[r, i]
// Args     x, y: T_UNIT · rows, cols: i64 (cols in T_UNIT) · x_pitch, y_pitch: i64 T_UNIT from row to row · x_offset, y_offset:
//          i64 T_UNIT to the first
// Params   T_UNIT {u8,u16,u32,u64,uint4}: what one thread moves (host takes the widest that divides cols, pitches, offsets
//          and both addresses) · THREADS {128,256}
// Requires nothing more
// Launch   grid = min(ceil(rows*cols/THREADS), some multiple of the processors; the kernel strides) · block = THREADS · smem = 0
// Numerics exact
// Notes    rows = product of the sizes before the axis, cols = size along the axis times those after it
#if !defined(T_UNIT) || !defined(THREADS)
#error "T_UNIT or THREADS is not defined"
#endif
#include "common/types.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_UNIT* x, T_UNIT* y, const i64 rows, const i64 cols, const i64 x_pitch, const i64 y_pitch,
            const i64 x_offset, const i64 y_offset)
{
    griddepcontrol_wait();
    const i64 total = rows * cols;
    for (i64 at = (i64)blockIdx.x * THREADS + threadIdx.x; at < total; at += (i64)gridDim.x * THREADS) {
        // 32-bit division is several times cheaper.
        const i64 r = total >> 31 ? at / cols : (i64)((u32)at / (u32)cols), i = at - r * cols;
        y[y_offset + r * y_pitch + i] = x[x_offset + r * x_pitch + i];
    }
}
