// scatter_elements.cu — one element per index along one axis:  y[row(c) + index[c] * axis_stride] joins update[c]
// Args     index: T_INDEX · update: T_DATA · y: T_DATA, a copy of the data · shape: what the threads walk · to: y's strides along it, 0 along
//          the axis · from: the indices' strides · axis, axis_stride: size and stride of y's axis · from_stride: the indices' stride
//          along the axis · count: indices that one thread walks along the axis · n: i64 threads
// Params   MODE {0 one thread per update, 1 one thread per column} · COMBINE (common/combine.cuh) · T_DATA: element type, or bits of one
//          where COMBINE is 0 · T_INDEX {i32,i64} · RANK 1..8 · THREADS · INDEX64
// Requires nothing more
// Launch   grid = min(ceil(n/THREADS), some multiple of the processors; the kernel strides) · block = THREADS · smem = 0
// Numerics MODE 1 joins in order; MODE 0 in any order, atomically
// Notes    a negative index counts from the end; one that is still out of range is skipped
#if !defined(MODE) || !defined(T_DATA) || !defined(T_INDEX) || !defined(RANK) || !defined(THREADS)
#error "MODE, T_DATA, T_INDEX, RANK or THREADS is not defined"
#endif
#include "common/combine.cuh"
#include "common/index.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_INDEX* index, const T_DATA* update, T_DATA* y, const Shape shape, const Strides to, const Strides from, const i64 axis, const i64 axis_stride, const i64 from_stride, const i64 count, const i64 n)
{
    griddepcontrol_wait();
    for (i64 at = (i64)blockIdx.x * THREADS + threadIdx.x; at < n; at += (i64)gridDim.x * THREADS) {
        i32 coord[RANK];
        unravel(coord, (Index)at, shape);
        const i64 row = offset_of(coord, to.s);
        i64 source = offset_of(coord, from.s);
        for (i64 k = 0; k < count; k++, source += from_stride) {
            i64 i = (i64)index[source];
            i += i < 0 ? axis : 0;
            if (i < 0 || i >= axis) continue;
            T_DATA* p = y + row + i * axis_stride;
#if MODE == 0
            atomic_join(p, update[source]);
#else
            *p = join(*p, update[source]);
#endif
        }
    }
}
