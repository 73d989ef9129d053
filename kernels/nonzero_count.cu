// nonzero_count.cu — how many elements of each chunk of CHUNK are not zero
// Args     x: T_DATA [n] · counts: i64 [ceil(n/CHUNK)] · n: i64
// Params   T_DATA {any element type} · CHUNK: a multiple of THREADS · THREADS
// Requires nothing more
// Launch   grid = min(ceil(n/CHUNK), some multiple of the processors; the kernel strides) · block = THREADS · smem = 0
// Numerics exact; -0 is zero, NaN is not
#if !defined(T_DATA) || !defined(CHUNK) || !defined(THREADS)
#error "T_DATA, CHUNK or THREADS is not defined"
#endif
#include "common/reduce.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_DATA* x, i64* counts, const i64 n)
{
    griddepcontrol_wait();
    __shared__ i32 s_scratch[THREADS / 32];
    for (i64 chunk = blockIdx.x; chunk * CHUNK < n; chunk += gridDim.x) {
        i32 found = 0;
        for (i32 k = threadIdx.x; k < CHUNK; k += THREADS) {
            const i64 at = chunk * CHUNK + k;
            if (at < n && to_compute(x[at]) != 0) found++;
        }
        found = block_combine<THREADS>(found, Sum(), s_scratch);
        if (threadIdx.x == 0) counts[chunk] = found;
    }
}
