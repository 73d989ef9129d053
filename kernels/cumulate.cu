// cumulate.cu — running sums or products along the middle of [outer, length, inner]
// Args     x, y: T_DATA · rows: i64 = outer*inner · length, inner: i64
// Params   T_DATA {float,double,f16,bf16,integers} · PRODUCT {0 sum,1 product} · EXCLUSIVE {0,1}: an element is left out of its own
//          result · REVERSE {0,1}: from the end · LANES {1: a thread walks a row, THREADS: a block does} · THREADS
// Requires nothing more
// Launch   grid = min(ceil(rows*LANES/THREADS), some multiple of the processors; the kernel strides) · block = THREADS · smem = 0
// Numerics accumulated in Acc<T_DATA> (common/types.cuh), in a fixed order
#if !defined(T_DATA) || !defined(PRODUCT) || !defined(EXCLUSIVE) || !defined(REVERSE) || !defined(LANES) || !defined(THREADS)
#error "T_DATA, PRODUCT, EXCLUSIVE, REVERSE, LANES or THREADS is not defined"
#endif
#include "common/scan.cuh"

typedef Acc<T_DATA>::type A;

struct Join { DEVICE A operator()(A a, A b) const { return PRODUCT ? a * b : a + b; } };

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_DATA* x, T_DATA* y, const i64 rows, const i64 length, const i64 inner)
{
    griddepcontrol_wait();
    const A zero = (A)PRODUCT;
    const Join join;
#if LANES == 1
    for (i64 row = (i64)blockIdx.x * THREADS + threadIdx.x; row < rows; row += (i64)gridDim.x * THREADS) {
        const i64 o = row / inner, base = o * length * inner + (row - o * inner);
        A sum = zero;
        for (i64 j = 0; j < length; j++) {
            const i64 at = base + (REVERSE ? length - 1 - j : j) * inner;
            const A next = join(sum, to_acc<A>(x[at]));
            y[at] = from_acc<T_DATA>(EXCLUSIVE ? sum : next);
            sum = next;
        }
    }
#else
    __shared__ A s_scratch[THREADS / 32];
    __shared__ A s_shift[THREADS];
    for (i64 row = blockIdx.x; row < rows; row += gridDim.x) {
        const i64 o = row / inner, base = o * length * inner + (row - o * inner);
        A carry = zero;
        for (i64 first = 0; first < length; first += THREADS) {
            const i64 j = first + threadIdx.x, at = base + (REVERSE ? length - 1 - j : j) * inner;
            const A v = j < length ? to_acc<A>(x[at]) : zero;
            A total;
            A sum = join(carry, block_scan<THREADS>(v, zero, join, s_scratch, total));
            if (EXCLUSIVE) {
                s_shift[threadIdx.x] = sum;
                __syncthreads();  // orders the sums before their neighbours read them
                sum = threadIdx.x ? s_shift[threadIdx.x - 1] : carry;
                __syncthreads();  // orders the reads before the next round writes
            }
            if (j < length) y[at] = from_acc<T_DATA>(sum);
            carry = join(carry, total);
        }
    }
#endif
}
