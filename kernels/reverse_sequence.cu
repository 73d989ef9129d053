// reverse_sequence.cu — the first length[b] elements of each batch element in reverse order along time
// Args     x: T_UNIT [first, second, inner] · length: T_INDEX [batch] · y: as x · first, second, inner: i64, inner counted in T_UNIT
//          · n: i64 = first*second*inner
// Params   T_UNIT {u8,u16,u32,u64,uint4}: what one thread moves · T_INDEX {i32,i64} · BATCH_FIRST {0: [time, batch], 1: [batch,
//          time]} · THREADS
// Requires nothing more
// Launch   grid = min(ceil(n/THREADS), some multiple of the processors; the kernel strides) · block = THREADS · smem = 0
// Numerics exact
// Notes    a length beyond the time axis is clamped
#if !defined(T_UNIT) || !defined(T_INDEX) || !defined(BATCH_FIRST) || !defined(THREADS)
#error "T_UNIT, T_INDEX, BATCH_FIRST or THREADS is not defined"
#endif
#include "common/types.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_UNIT* x, const T_INDEX* length, T_UNIT* y, const i64 first, const i64 second, const i64 inner, const i64 n)
{
    griddepcontrol_wait();
    const i64 time = BATCH_FIRST ? second : first;
    for (i64 at = (i64)blockIdx.x * THREADS + threadIdx.x; at < n; at += (i64)gridDim.x * THREADS) {
        const i64 row = at / inner, i = at - row * inner, a = row / second, b = row - a * second;
        const i64 t = BATCH_FIRST ? b : a;
        i64 len = (i64)length[BATCH_FIRST ? a : b];
        len = len > time ? time : len;
        const i64 from = t < len ? len - 1 - t : t;
        y[at] = x[(BATCH_FIRST ? a * second + from : from * second + b) * inner + i];
    }
}
