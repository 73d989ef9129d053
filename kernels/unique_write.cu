// unique_write.cu — positions, inverse and counts of the groups that unique_groups.cu found
// Args     order, group, start, rank: i32, as there · first: i64 [total], position of each group's first slice · inverse: i64 [n],
//          the group of each slice · count: i64 [total] · total, n: i64
// Params   SORTED {1: groups in the order of their slices, 0: of their first positions} · THREADS
// Requires nothing more
// Launch   grid = min(ceil(n/THREADS), some multiple of the processors; the kernel strides) · block = THREADS · smem = 0
// Numerics exact
#if !defined(SORTED) || !defined(THREADS)
#error "SORTED or THREADS is not defined"
#endif
#include "common/types.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const i32* order, const i32* group, const i32* start, const i32* rank, i64* first, i64* inverse, i64* count, const i64 total, const i64 n)
{
    griddepcontrol_wait();
    for (i64 j = (i64)blockIdx.x * THREADS + threadIdx.x; j < n; j += (i64)gridDim.x * THREADS) {
        const i64 g = group[j], begin = start[g], to = SORTED ? g : rank[order[begin]];
        if (to >= total) continue;
        inverse[order[j]] = to;
        if (j != begin) continue;
        first[to] = order[j];
        count[to] = (g + 1 < total ? start[g + 1] : n) - begin;
    }
}
