// gather.cu — elements along one axis by index:  y[o, j, i] = x[o, index[j], i]
// Args     x: T_UNIT [outer, axis, inner] · index: T_INDEX [n_index] · y: T_UNIT [outer, n_index, inner] · outer, axis, n_index,
//          inner: i64, inner counted in T_UNIT
// Params   T_UNIT {u8,u16,u32,u64,uint4}: what one thread moves (host takes the widest that divides inner and both
//          addresses) · T_INDEX {i32,i64} · THREADS {128,256}
// Requires nothing more
// Launch   grid = min(ceil(outer*n_index*inner/THREADS), some multiple of the processors; the kernel strides) · block = THREADS · smem = 0
// Numerics exact
// Notes    a negative index counts from the end; one that is still out of range is clamped to the nearest element
#if !defined(T_UNIT) || !defined(T_INDEX) || !defined(THREADS)
#error "T_UNIT, T_INDEX or THREADS is not defined"
#endif
#include "common/types.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_UNIT* x, const T_INDEX* index, T_UNIT* y, const i64 outer, const i64 axis, const i64 n_index, const i64 inner)
{
    griddepcontrol_wait();
    const i64 total = outer * n_index * inner;
    for (i64 at = (i64)blockIdx.x * THREADS + threadIdx.x; at < total; at += (i64)gridDim.x * THREADS) {
        i64 i, j, o;
        if (total >> 31) {
            i = at % inner, j = at / inner % n_index, o = at / inner / n_index;
        } else {  // 32-bit division is several times cheaper
            const u32 q = (u32)at / (u32)inner;
            i = (u32)at - q * (u32)inner, j = q % (u32)n_index, o = q / (u32)n_index;
        }
        i64 from = (i64)index[j];
        from += from < 0 ? axis : 0;
        from = from < 0 ? 0 : from >= axis ? axis - 1 : from;
        y[at] = x[(o * axis + from) * inner + i];
    }
}
