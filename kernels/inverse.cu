// inverse.cu — inverses of square matrices by Gauss-Jordan elimination, one block a matrix
// Args     x: T_DATA [count, n, n] · y: T_DATA as x · work: double [count, n, 2n], each matrix beside what becomes its inverse · n: i64
// Params   T_DATA {float,double,f16,bf16} · THREADS
// Requires nothing more
// Launch   grid = count · block = THREADS · smem = 0
// Numerics f64 with row exchanges, rounded once; a singular matrix gives numbers that are not finite
#if !defined(T_DATA) || !defined(THREADS)
#error "T_DATA or THREADS is not defined"
#endif
#include "common/types.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_DATA* x, T_DATA* y, double* work, const i64 n)
{
    griddepcontrol_wait();
    __shared__ i64 s_pivot;
    const i64 pitch = 2 * n, base = blockIdx.x * n * n;
    double* a = work + 2 * base;
    for (i64 at = threadIdx.x; at < n * pitch; at += THREADS) {
        const i64 i = at / pitch, j = at % pitch;
        a[at] = j < n ? (double)to_compute(x[base + i * n + j]) : (j - n == i ? 1.0 : 0.0);
    }
    __syncthreads();  // orders the copy before it is read
    for (i64 k = 0; k < n; k++) {
        if (threadIdx.x == 0) {
            i64 best = k;
            for (i64 i = k + 1; i < n; i++)
                if (fabs(a[i * pitch + k]) > fabs(a[best * pitch + k])) best = i;
            s_pivot = best;
        }
        __syncthreads();  // orders the pivot before all read it
        const i64 pivot = s_pivot;
        const double p = a[pivot * pitch + k];
        __syncthreads();  // orders the reads above before the rows change
        for (i64 j = threadIdx.x; j < pitch; j += THREADS) {
            const double t = a[k * pitch + j];
            a[k * pitch + j] = a[pivot * pitch + j] / p;
            if (pivot != k) a[pivot * pitch + j] = t;
        }
        __syncthreads();  // orders the exchange before it is read
        // Column k of the other rows is read by all, so it is left as it is: nobody looks at it again.
        for (i64 at = threadIdx.x; at < n * (pitch - k - 1); at += THREADS) {
            const i64 i = at / (pitch - k - 1), j = k + 1 + at % (pitch - k - 1);
            if (i != k) a[i * pitch + j] -= a[i * pitch + k] * a[k * pitch + j];
        }
        __syncthreads();  // orders this elimination before the next pivot is sought
    }
    for (i64 at = threadIdx.x; at < n * n; at += THREADS) y[base + at] = from_compute<T_DATA>(a[at / n * pitch + n + at % n]);
}
