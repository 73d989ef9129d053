// nonzero_write.cu — coordinates of the elements that are not zero, in order:  y[d, k] = coordinate d of element k
// Args     x: T_DATA [n] · starts: i64, where each chunk's elements begin · y: i64 [rank, total] · dims: i64 struct of 64, the
//          sizes of x · rank, total, n: i64
// Params   T_DATA {any element type} · CHUNK: as in nonzero_count.cu, a multiple of THREADS · THREADS
// Requires nothing more
// Launch   grid = min(ceil(n/CHUNK), some multiple of the processors; the kernel strides) · block = THREADS · smem = 0
// Numerics exact
#if !defined(T_DATA) || !defined(CHUNK) || !defined(THREADS)
#error "T_DATA, CHUNK or THREADS is not defined"
#endif
#include "common/scan.cuh"

struct Dims
{
    i64 d[64];
};
struct Plus { DEVICE i32 operator()(i32 a, i32 b) const { return a + b; } };

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_DATA* x, const i64* starts, i64* y, const Dims dims, const i64 rank, const i64 total, const i64 n)
{
    griddepcontrol_wait();
    __shared__ i32 s_scratch[THREADS / 32];
    for (i64 chunk = blockIdx.x; chunk * CHUNK < n; chunk += gridDim.x) {
        i64 start = starts[chunk];
        for (i32 k = 0; k < CHUNK; k += THREADS) {
            i64 at = chunk * CHUNK + k + threadIdx.x;
            const bool found = at < n && to_compute(x[at]) != 0;
            i32 sum;
            const i64 to = start + block_scan<THREADS>((i32)found, 0, Plus(), s_scratch, sum) - 1;
            start += sum;
            if (!found || to >= total) continue;
            for (i64 d = rank - 1; d >= 0; d--) {
                const i64 q = at / dims.d[d];
                y[d * total + to] = at - q * dims.d[d];
                at = q;
            }
        }
    }
}
