// nms_write.cu — the selected boxes of all rows, one behind the other, as (batch, class, box)
// Args     selected: i32 [rows, n] · starts: i64 [rows], where each row's begin · y: i64 [total, 3] · rows, classes, n, total: i64
// Params   THREADS
// Requires nothing more
// Launch   grid = rows · block = THREADS · smem = 0
// Numerics exact
#ifndef THREADS
#error "THREADS is not defined"
#endif
#include "common/types.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const i32* selected, const i64* starts, i64* y, const i64 rows, const i64 classes, const i64 n, const i64 total)
{
    griddepcontrol_wait();
    const i64 row = blockIdx.x, start = starts[row];
    i64 end = row + 1 < rows ? starts[row + 1] : total;
    end = end > total ? total : end;
    for (i64 k = start + threadIdx.x; k < end; k += THREADS) {
        y[3 * k] = row / classes;
        y[3 * k + 1] = row % classes;
        y[3 * k + 2] = selected[row * n + k - start];
    }
}
