// scatter_nd.cu — slices by index tuples:  y[slice(index[r]) + i] joins update[r, i]
// Args     index: T_INDEX [rows, k] · update: T_DATA [rows, inner] · y: T_DATA, a copy of the data · tuple: see common/tuple.cuh · count: slices
//          that one thread walks · n: i64 threads: rows * inner, or inner where count = rows
// Params   MODE {0 one thread per update, 1 one thread per position of a slice} · COMBINE (common/combine.cuh) · T_DATA: element type, or
//          bits of one where COMBINE is 0 · T_INDEX {i32,i64} · THREADS
// Requires no indexed axis is empty
// Launch   grid = min(ceil(n/THREADS), some multiple of the processors; the kernel strides) · block = THREADS · smem = 0
// Numerics MODE 1 joins in order; MODE 0 in any order, atomically
// Notes    an index out of range is skipped
#if !defined(MODE) || !defined(T_DATA) || !defined(T_INDEX) || !defined(THREADS)
#error "MODE, T_DATA, T_INDEX or THREADS is not defined"
#endif
#include "common/combine.cuh"
#include "common/tuple.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_INDEX* index, const T_DATA* update, T_DATA* y, const Tuple tuple, const i64 count, const i64 n)
{
    griddepcontrol_wait();
    for (i64 at = (i64)blockIdx.x * THREADS + threadIdx.x; at < n; at += (i64)gridDim.x * THREADS) {
        const i64 first = at / tuple.inner, i = at - first * tuple.inner;
        for (i64 row = first; row < first + count; row++) {
            bool inside;
            const i64 slice = slice_of(index, row, tuple, inside);
            if (!inside) continue;
#if MODE == 0
            atomic_join(y + slice + i, update[row * tuple.inner + i]);
#else
            y[slice + i] = join(y[slice + i], update[row * tuple.inner + i]);
#endif
        }
    }
}
