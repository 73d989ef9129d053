// gather_nd.cu — slices by index tuples:  y[r, i] = x[slice(index[r]) + i]
// Args     x: T_UNIT · index: T_INDEX [rows, k] · y: T_UNIT [rows, inner] · tuple: see common/tuple.cuh · n: i64 = rows * inner
// Params   T_UNIT {u8,u16,u32,u64,uint4}: what one thread moves · T_INDEX {i32,i64} · THREADS
// Requires no indexed axis is empty
// Launch   grid = min(ceil(n/THREADS), some multiple of the processors; the kernel strides) · block = THREADS · smem = 0
// Numerics exact
// Notes    an index out of range is clamped to the nearest element
#if !defined(T_UNIT) || !defined(T_INDEX) || !defined(THREADS)
#error "T_UNIT, T_INDEX or THREADS is not defined"
#endif
#include "common/tuple.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_UNIT* x, const T_INDEX* index, T_UNIT* y, const Tuple tuple, const i64 n)
{
    griddepcontrol_wait();
    for (i64 at = (i64)blockIdx.x * THREADS + threadIdx.x; at < n; at += (i64)gridDim.x * THREADS) {
        const i64 row = n >> 31 ? at / tuple.inner : (u32)at / (u32)tuple.inner;
        bool inside;
        y[at] = x[slice_of(index, row, tuple, inside) + at - row * tuple.inner];
    }
}
