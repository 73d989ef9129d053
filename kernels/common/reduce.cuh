// reduce.cuh — sums and maxima over a warp or a block, in a fixed order (deterministic).
//
// Notes    `combine` is any commutative functor; every thread of the group must call, and all get the result. The block
//          form ends with a barrier, so that the scratch may be reused at once.
#pragma once
#include "common/types.cuh"

struct Sum { template <class A> DEVICE A operator()(A a, A b) const { return a + b; } };
struct Max { template <class A> DEVICE A operator()(A a, A b) const { return a > b || a != a ? a : b; } };

template <class A, class F> DEVICE A warp_combine(A x, F combine)
{
#pragma unroll
    for (int delta = 16; delta > 0; delta >>= 1) x = combine(x, __shfl_xor_sync(0xffffffffu, x, delta));
    return x;
}

template <int THREADS_, class A, class F> DEVICE A block_combine(A x, F combine, A* s_scratch /* [THREADS_/32] */)
{
    static_assert(THREADS_ % 32 == 0 && THREADS_ <= 1024, "a block is whole warps, at most 32 of them");
    x = warp_combine(x, combine);
    if (THREADS_ == 32) return x;
    if (threadIdx.x % 32 == 0) s_scratch[threadIdx.x / 32] = x;
    __syncthreads();  // orders the warps' results before they are read
    x = s_scratch[0];
#pragma unroll
    for (int w = 1; w < THREADS_ / 32; w++) x = combine(x, s_scratch[w]);
    __syncthreads();  // orders the reads before the scratch is written again
    return x;
}
