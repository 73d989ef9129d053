// det.cu — determinants of square matrices by Gaussian elimination, one block a matrix
// Args     x: T_DATA [count, n, n] · y: T_DATA [count] · work: double [count, n, n] · n: i64
// Params   T_DATA {float,double,f16,bf16} · THREADS
// Requires nothing more
// Launch   grid = count · block = THREADS · smem = 0
// Numerics f64 with row exchanges, rounded once
#if !defined(T_DATA) || !defined(THREADS)
#error "T_DATA or THREADS is not defined"
#endif
#include "common/types.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_DATA* x, T_DATA* y, double* work, const i64 n)
{
    griddepcontrol_wait();
    __shared__ i64 s_pivot;
    double* a = work + blockIdx.x * n * n;
    for (i64 k = threadIdx.x; k < n * n; k += THREADS) a[k] = (double)to_compute(x[blockIdx.x * n * n + k]);
    __syncthreads();  // orders the copy before it is read
    double det = 1.0;
    for (i64 k = 0; k < n; k++) {
        if (threadIdx.x == 0) {
            i64 best = k;
            for (i64 i = k + 1; i < n; i++)
                if (fabs(a[i * n + k]) >= fabs(a[best * n + k])) best = i;
            s_pivot = best;
        }
        __syncthreads();  // orders the pivot before all read it
        const i64 pivot = s_pivot;
        if (a[pivot * n + k] == 0.0) {
            det = 0.0;
            break;
        }
        if (pivot != k) {
            __syncthreads();  // orders the reads above before the rows change
            for (i64 j = threadIdx.x; j < n; j += THREADS) {
                const double t = a[k * n + j];
                a[k * n + j] = a[pivot * n + j];
                a[pivot * n + j] = t;
            }
            det = -det;
            __syncthreads();  // orders the exchange before it is read
        }
        const double p = a[k * n + k];
        det *= p;
        const i64 left = n - k - 1;
        for (i64 at = threadIdx.x; at < left * left; at += THREADS) {
            const i64 i = k + 1 + at / left, j = k + 1 + at % left;
            a[i * n + j] -= a[i * n + k] / p * a[k * n + j];
        }
        __syncthreads();  // orders this elimination before the next pivot is sought
    }
    if (threadIdx.x == 0) y[blockIdx.x] = from_compute<T_DATA>(det);
}
