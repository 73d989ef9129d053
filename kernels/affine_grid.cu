// affine_grid.cu — positions of a regular grid after an affine map:  y[n, o, i] = sum_k theta[n, i, k] * position_k(o) + theta[n, i, RANK]
// Args     theta: T_IN [n, RANK, RANK+1] · y: T_IN [n, out.., RANK], innermost dimension first · params: AffineParams, a 64-bit
//          struct of 4: n, out[3] (leading dimensions of size 1 where fewer are used)
// Params   T_IN {float,f16,bf16,double} · RANK {2,3} · ALIGN_CORNERS {0,1} · THREADS {128,256}
// Requires out[] below 2^31
// Launch   grid = min(ceil(n*out/THREADS), 2^31-1), the kernel strides · block = THREADS · smem = 0
// Numerics float (double for double), class ulp(4) f32
// Notes    one thread per position; with ALIGN_CORNERS a dimension of one element lies at -1
#if !defined(T_IN) || !defined(RANK) || !defined(ALIGN_CORNERS) || !defined(THREADS)
#error "T_IN, RANK, ALIGN_CORNERS or THREADS is not defined"
#endif
#include "common/rounded.cuh"

typedef Compute<T_IN>::type REAL;

struct AffineParams
{
    i64 n, out[3];
};

DEVICE REAL position(i64 i, i64 n)
{
#if ALIGN_CORNERS
    return n > 1 ? sub_rn(REAL(2) * REAL(i) / REAL(n - 1), REAL(1)) : REAL(-1);
#else
    return sub_rn(add_rn(REAL(2) * REAL(i), REAL(1)) / REAL(n), REAL(1));
#endif
}

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_IN* theta, T_IN* y, const AffineParams params)
{
    griddepcontrol_wait();
    const i64 points = params.out[0] * params.out[1] * params.out[2], total = params.n * points;
    for (i64 flat = (i64)blockIdx.x * THREADS + threadIdx.x; flat < total; flat += (i64)gridDim.x * THREADS) {
        i64 rest = flat % points;
        REAL at[RANK];
#pragma unroll
        for (int k = 0; k < RANK; k++) {
            const i64 n = params.out[2 - k];
            at[k] = position(rest % n, n);
            rest /= n;
        }
        const T_IN* g_theta = theta + flat / points * RANK * (RANK + 1);
#pragma unroll
        for (int i = 0; i < RANK; i++) {
            REAL sum = to_compute(g_theta[i * (RANK + 1) + RANK]);
#pragma unroll
            for (int k = 0; k < RANK; k++) sum += to_compute(g_theta[i * (RANK + 1) + k]) * at[k];
            y[flat * RANK + i] = from_compute<T_IN>(sum);
        }
    }
}
