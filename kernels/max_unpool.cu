// max_unpool.cu — elements to the places that indices name:  y[place(index[i])] = x[i]
// Args     x: T_UNIT [n] · index: i64 [n], flat in counted · y: T_UNIT [out..], zero before · params: UnpoolParams, a 64-bit struct
//          of 11: n, counted[5] out[5] (leading dimensions of size 1 where fewer are used)
// Params   T_UNIT {u8,u16,u32,u64}: what one thread moves · THREADS {128,256}
// Requires nothing more
// Launch   grid = min(ceil(n/THREADS), 2^31-1), the kernel strides · block = THREADS · smem = 0
// Numerics exact
// Notes    an index out of range and a place outside of y are left out; of several values for one place any is kept
#if !defined(T_UNIT) || !defined(THREADS)
#error "T_UNIT or THREADS is not defined"
#endif
#include "common/types.cuh"

struct UnpoolParams
{
    i64 n, counted[5], out[5];
};

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_UNIT* x, const i64* index, T_UNIT* y, const UnpoolParams params)
{
    griddepcontrol_wait();
    for (i64 i = (i64)blockIdx.x * THREADS + threadIdx.x; i < params.n; i += (i64)gridDim.x * THREADS) {
        i64 rest = index[i], place = 0, stride = 1;
        bool inside = rest >= 0;
#pragma unroll
        for (int d = 4; d >= 0; d--) {
            const i64 at = rest % params.counted[d];
            rest /= params.counted[d];
            inside = inside && at < params.out[d];
            place += at * stride;
            stride *= params.out[d];
        }
        if (inside && rest == 0) y[place] = x[i];
    }
}
