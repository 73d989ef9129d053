// topk_write.cu — elements and indices of sorted items, where topk.cu left them in memory
// Args     x: T_UNIT [outer, length, inner] · items: Item [rows, pad] · y: T_UNIT [outer, k, inner] · index: i64, as y · length, inner,
//          k, pad: i64 · n: i64 = rows*k
// Params   T_UNIT {u8,u16,u32,u64}: bits of one element · WIDE (common/sort.cuh) · THREADS
// Requires nothing more
// Launch   grid = min(ceil(n/THREADS), some multiple of the processors; the kernel strides) · block = THREADS · smem = 0
// Numerics exact
#if !defined(T_UNIT) || !defined(THREADS)
#error "T_UNIT or THREADS is not defined"
#endif
#include "common/sort.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_UNIT* x, const void* items, T_UNIT* y, i64* index, const i64 length, const i64 inner, const i64 k, const i64 pad, const i64 n)
{
    griddepcontrol_wait();
    for (i64 at = (i64)blockIdx.x * THREADS + threadIdx.x; at < n; at += (i64)gridDim.x * THREADS) {
        const i64 row = at / k, j = at - row * k, o = row / inner, i = row - o * inner;
        const i64 from = index_of(((const Item*)items)[row * pad + j]), to = (o * k + j) * inner + i;
        y[to] = x[(o * length + from) * inner + i];
        index[to] = from;
    }
}
