// unique_groups.cu — groups of equal neighbours among sorted slices, and how many there are
// Args     x: T_DATA [outer, n, inner] · order: i32 [n], sorted positions · group: i32 [n], which group a sorted position is in ·
//          start: i32 [n], where each group begins · rank: i32 [n], at the position of a group's first slice: how many groups
//          have an earlier one · total: i64 [1] · outer, n, inner: i64
// Params   T_DATA {any element type} · THREADS
// Requires n < 2^31
// Launch   grid = 1 · block = THREADS · smem = 0
// Numerics exact
#if !defined(T_DATA) || !defined(THREADS)
#error "T_DATA or THREADS is not defined"
#endif
#define WIDE 0
#include "common/scan.cuh"
#include "common/slices.cuh"

struct Plus { DEVICE i32 operator()(i32 a, i32 b) const { return a + b; } };

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_DATA* x, const i32* order, i32* group, i32* start, i32* rank, i64* total, const i64 outer, const i64 n, const i64 inner)
{
    griddepcontrol_wait();
    __shared__ i32 s_scratch[THREADS / 32];
    const Slices<T_DATA> slices{x, outer, n, inner};
    for (i64 j = threadIdx.x; j < n; j += THREADS) rank[j] = 0;
    __syncthreads();  // orders the zeros before the marks
    i32 carry = 0;
    for (i64 first = 0; first < n; first += THREADS) {
        const i64 j = first + threadIdx.x;
        const bool head = j < n && (j == 0 || slices.compare(order[j - 1], order[j]) != 0);
        i32 sum;
        const i32 g = carry + block_scan<THREADS>((i32)head, 0, Plus(), s_scratch, sum) - 1;
        if (j < n) group[j] = g;
        if (head) {
            start[g] = (i32)j;
            rank[order[j]] = 1;
        }
        carry += sum;
    }
    if (threadIdx.x == 0) *total = carry;
    __syncthreads();  // orders the marks before they are counted
    carry = 0;
    for (i64 first = 0; first < n; first += THREADS) {
        const i64 j = first + threadIdx.x;
        const i32 mark = j < n ? rank[j] : 0;
        i32 sum;
        const i32 upto = carry + block_scan<THREADS>(mark, 0, Plus(), s_scratch, sum);
        if (mark) rank[j] = upto - 1;
        carry += sum;
    }
}
