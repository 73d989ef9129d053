// unique_sort.cu — positions of slices in the order of their elements (lexicographic), ties by position
// Args     x: T_DATA [outer, n, inner], slice j being x[:, j, :] · order: i32 [pad] · outer, n, inner, pad: i64 · size, stride: i64,
//          the step of the bitonic sort; size 0: fill `order` with positions, and sort all where stride is 1 · threads: i64, how
//          many positions (size 0) or exchanges there are
// Params   T_DATA {any element type} · THREADS
// Requires pad a power of two, at least n, below 2^31
// Launch   grid = size || !stride ? min(ceil(threads/THREADS), some multiple of the processors; the kernel strides) : 1 · block =
//          THREADS · smem = 0
// Numerics exact; -0 equals 0, NaN is behind every number and equals NaN
#if !defined(T_DATA) || !defined(THREADS)
#error "T_DATA or THREADS is not defined"
#endif
#define WIDE 0
#include "common/sort.cuh"
#include "common/slices.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_DATA* x, i32* order, const i64 outer, const i64 n, const i64 inner, const i64 pad, const i64 size, const i64 stride, const i64 threads)
{
    griddepcontrol_wait();
    const Slices<T_DATA> slices{x, outer, n, inner};
    const i64 first = (i64)blockIdx.x * THREADS + threadIdx.x, step = (i64)gridDim.x * THREADS;
    if (size) {
        for (i64 i = first; i < threads; i += step) slices.sort_step(order, i, size, stride);
        return;
    }
    for (i64 j = first; j < threads; j += step) order[j] = (i32)j;
    if (!stride) return;
    __syncthreads();  // one block: orders the positions before they are exchanged
    for (i64 s = 2; s <= pad; s <<= 1)
        for (i64 d = s / 2; d > 0; d >>= 1) {
            for (i64 i = threadIdx.x; i < pad / 2; i += THREADS) slices.sort_step(order, i, s, d);
            __syncthreads();  // orders one step before the next
        }
}
