// scan_counts.cu — exclusive running sums of counts in place, and their total
// Args     counts: i64 [n] · total: i64 [1] · n: i64
// Params   THREADS
// Requires nothing more
// Launch   grid = 1 · block = THREADS · smem = 0
// Numerics exact
#ifndef THREADS
#error "THREADS is not defined"
#endif
#include "common/scan.cuh"

struct Plus { DEVICE i64 operator()(i64 a, i64 b) const { return a + b; } };

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(i64* counts, i64* total, const i64 n)
{
    griddepcontrol_wait();
    __shared__ i64 s_scratch[THREADS / 32];
    i64 carry = 0;
    for (i64 first = 0; first < n; first += THREADS) {
        const i64 at = first + threadIdx.x, v = at < n ? counts[at] : 0;
        i64 sum;
        const i64 upto = carry + block_scan<THREADS>(v, (i64)0, Plus(), s_scratch, sum);
        if (at < n) counts[at] = upto - v;
        carry += sum;
    }
    if (threadIdx.x == 0) *total = carry;
}
