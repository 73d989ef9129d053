// trilu.cu — a triangle of matrices:  y[.., r, c] = x[.., r, c] where c >= r + k (UPPER) or c <= r + k, else 0
// Args     x: T_UNIT [n] · k: i64 [1] or null (0) · y: T_UNIT [n] · rows, columns: i64 · n: i64
// Params   T_UNIT {u8,u16,u32,u64}: bits of one element · UPPER {0,1} · THREADS
// Requires nothing more
// Launch   grid = min(ceil(n/THREADS), some multiple of the processors; the kernel strides) · block = THREADS · smem = 0
// Numerics exact
#if !defined(T_UNIT) || !defined(UPPER) || !defined(THREADS)
#error "T_UNIT, UPPER or THREADS is not defined"
#endif
#include "common/types.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_UNIT* x, const i64* k, T_UNIT* y, const i64 rows, const i64 columns, const i64 n)
{
    griddepcontrol_wait();
    // The distance of two positions is below 2^40, so that a k beyond means the same as one there.
    const i64 far = (i64)1 << 41;
    i64 diagonal = k ? *k : 0;
    diagonal = diagonal > far ? far : diagonal < -far ? -far : diagonal;
    for (i64 at = (i64)blockIdx.x * THREADS + threadIdx.x; at < n; at += (i64)gridDim.x * THREADS) {
        const i64 flat_row = at / columns, c = at - flat_row * columns, first = flat_row % rows + diagonal;
        const bool kept = UPPER ? c >= first : c <= first;
        y[at] = kept ? x[at] : (T_UNIT)0;
    }
}
