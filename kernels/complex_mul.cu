// complex_mul.cu — products of complex numbers, broadcast:  y = a * b, or a * conj(b)
// Args     a, b, y: T_DATA [.., 2], real and imaginary part side by side · n: i64 numbers of y · axes: i32 in front of the pairs ·
//          shape: ComplexShape, y's dimensions and the operands' strides in numbers (0: broadcast)
// Params   T_DATA {float,double,f16,bf16} · CONJUGATE {0,1} · THREADS
// Requires axes at most 8
// Launch   grid = min(ceil(n/THREADS), the device's bound; the kernel strides) · block = THREADS · smem = 0
// Numerics f32 (f64 for double), rounded once
#if !defined(T_DATA) || !defined(CONJUGATE) || !defined(THREADS)
#error "T_DATA, CONJUGATE or THREADS is not defined"
#endif
#include "common/types.cuh"

struct ComplexShape {
    i64 dims[8], a[8], b[8];
};

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_DATA* a, const T_DATA* b, T_DATA* y, const i64 n, const i32 axes, const ComplexShape shape)
{
    griddepcontrol_wait();
    for (i64 at = (i64)blockIdx.x * THREADS + threadIdx.x; at < n; at += (i64)gridDim.x * THREADS) {
        i64 rest = at, i = 0, j = 0;
        for (i32 k = axes - 1; k >= 0; k--) {
            const i64 c = rest % shape.dims[k];
            rest /= shape.dims[k];
            i += c * shape.a[k];
            j += c * shape.b[k];
        }
        const auto p = to_compute(a[2 * i]), q = to_compute(a[2 * i + 1]);
        const auto r = to_compute(b[2 * j]), t = to_compute(b[2 * j + 1]);
        const auto s = CONJUGATE ? -t : t;
        y[2 * at] = from_compute<T_DATA>(p * r - q * s);
        y[2 * at + 1] = from_compute<T_DATA>(p * s + q * r);
    }
}
