// scan.cuh — running combinations over a block, in a fixed order (deterministic).
//
// block_scan<THREADS>(x, zero, combine, s_scratch[THREADS/32], total)   the combination of this thread's x with those of all
//          threads before it, itself included; total: that of all threads. `combine` is any associative functor with the neutral
//          element `zero`. Every thread of the block must call. Ends with a barrier, so that the scratch may be reused at once.
#pragma once
#include "common/types.cuh"

template <int THREADS_, class A, class F> DEVICE A block_scan(A x, A zero, F combine, A* s_scratch, A& total)
{
    static_assert(THREADS_ % 32 == 0 && THREADS_ <= 1024, "a block is whole warps, at most 32 of them");
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int delta = 1; delta < 32; delta <<= 1) {
        const A before = __shfl_up_sync(0xffffffffu, x, delta);
        if (lane >= delta) x = combine(before, x);
    }
    if (lane == 31) s_scratch[warp] = x;
    __syncthreads();  // orders the warps' results before they are read
    A base = zero;
    total = zero;
    for (int w = 0; w < THREADS_ / 32; w++) {
        if (w == warp) base = total;
        total = combine(total, s_scratch[w]);
    }
    __syncthreads();  // orders the reads before the scratch is written again
    return combine(base, x);
}
