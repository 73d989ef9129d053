// fill.cu — one value everywhere:  y[i] = value
// Args     y: T_UNIT [n] · n: i64 · value: u64, the bits of the element in its low bytes
// Params   T_UNIT {u8,u16,u32,u64} element type by size · VEC {1,2,4,8,16} elements per store · THREADS {128,256}
// Requires VEC*sizeof(T_UNIT) <= 16 (static_assert); y aligned to the element
// Launch   grid = min(ceil(n/(THREADS*VEC)), some multiple of the processors; the kernel strides) · block = THREADS · smem = 0
// Numerics exact
// Notes    an unaligned y or a tail is written element by element
#if !defined(T_UNIT) || !defined(VEC) || !defined(THREADS)
#error "T_UNIT, VEC or THREADS is not defined"
#endif
#include "common/types.cuh"

static_assert(VEC * sizeof(T_UNIT) <= 16, "at most 16 bytes a store");

extern "C" __global__ void __launch_bounds__(THREADS) KERNEL_NAME(T_UNIT* y, const i64 n, const u64 value)
{
    griddepcontrol_wait();
    T_UNIT r[VEC];
#pragma unroll
    for (int v = 0; v < VEC; v++) r[v] = (T_UNIT)value;
    const bool aligned = is_aligned<VEC>(y);
    const i64 step = (i64)gridDim.x * THREADS * VEC;
    for (i64 at = ((i64)blockIdx.x * THREADS + threadIdx.x) * VEC; at < n; at += step) {
        if (aligned && n - at >= VEC) {
            store_vec<VEC>(y + at, r);
        } else {
            for (int v = 0; v < VEC && at + v < n; v++) y[at + v] = (T_UNIT)value;
        }
    }
}
