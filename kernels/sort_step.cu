// sort_step.cu — one step of a bitonic sort of rows of items in memory
// Args     items: Item [rows, pad] · pad, size, stride: i64 · n: i64 = rows*pad/2
// Params   WIDE (common/sort.cuh) · THREADS
// Requires pad a power of two, 2 <= size <= pad, stride < size, both powers of two
// Launch   grid = min(ceil(n/THREADS), some multiple of the processors; the kernel strides) · block = THREADS · smem = 0
// Numerics exact
// Notes    launched for size = 2, 4 .. pad and for each, for stride = size/2 .. 1
#ifndef THREADS
#error "THREADS is not defined"
#endif
#include "common/sort.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(void* items, const i64 pad, const i64 size, const i64 stride, const i64 n)
{
    griddepcontrol_wait();
    const i64 half = pad / 2;
    for (i64 at = (i64)blockIdx.x * THREADS + threadIdx.x; at < n; at += (i64)gridDim.x * THREADS) {
        const i64 row = at / half;
        sort_step((Item*)items + row * pad, at - row * half, size, stride);
    }
}
