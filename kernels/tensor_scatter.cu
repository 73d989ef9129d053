// tensor_scatter.cu — rows of an update into a cache:  y[o, write[o / per_batch] + s, i] = update[o, s, i]
// Args     update: T_UNIT [outer, rows, inner] · write: T_INDEX [batch] or null (0) · y: T_UNIT [outer, length, inner], a copy of the
//          cache · per_batch, length, rows, inner: i64, inner counted in T_UNIT · n: i64 = outer*rows*inner
// Params   T_UNIT {u8,u16,u32,u64,uint4}: what one thread moves · T_INDEX {i32,i64} · CIRCULAR {0,1}: positions wrap · THREADS
// Requires length > 0 where n > 0
// Launch   grid = min(ceil(n/THREADS), some multiple of the processors; the kernel strides) · block = THREADS · smem = 0
// Numerics exact
// Notes    a position out of range is skipped
#if !defined(T_UNIT) || !defined(T_INDEX) || !defined(CIRCULAR) || !defined(THREADS)
#error "T_UNIT, T_INDEX, CIRCULAR or THREADS is not defined"
#endif
#include "common/types.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_UNIT* update, const T_INDEX* write, T_UNIT* y, const i64 per_batch, const i64 length, const i64 rows, const i64 inner, const i64 n)
{
    griddepcontrol_wait();
    for (i64 at = (i64)blockIdx.x * THREADS + threadIdx.x; at < n; at += (i64)gridDim.x * THREADS) {
        const i64 row = at / inner, i = at - row * inner, o = row / rows, s = row - o * rows;
        const i64 start = write ? (i64)write[o / per_batch] : 0;
        if (start < 0) continue;
#if CIRCULAR
        const i64 to = (start % length + s) % length;
#else
        const i64 to = start + s;
        if (to >= length) continue;
#endif
        y[(o * length + to) * inner + i] = update[at];
    }
}
