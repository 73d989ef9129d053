// range.cu — numbers in equal steps:  y[i] = start + i * delta
// Args     y: T_OUT [n] · n: i64 · start, delta: double for floating-point types, i64 for integers
// Params   T_OUT {float,double,f16,bf16, integers} · FLOAT {0,1}: T_OUT is a floating-point type · THREADS {128,256}
// Requires FLOAT agrees with T_OUT
// Launch   grid = min(ceil(n/THREADS), some multiple of the processors; the kernel strides) · block = THREADS · smem = 0
//          [ops/range/cuda.rs]
// Numerics one product and one sum in double, then one rounding; integers wrap
// Notes    only long ranges come here: short ones are computed with the shapes
#if !defined(T_OUT) || !defined(FLOAT) || !defined(THREADS)
#error "T_OUT, FLOAT or THREADS is not defined"
#endif
#include "common/types.cuh"

#if FLOAT
typedef double Number;
#else
typedef i64 Number;
#endif

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(T_OUT* y, const i64 n, const Number start, const Number delta)
{
    griddepcontrol_wait();
    for (i64 i = (i64)blockIdx.x * THREADS + threadIdx.x; i < n; i += (i64)gridDim.x * THREADS)
        y[i] = from_acc<T_OUT>(start + (Number)i * delta);
}
