// label_encoder.cu — y[i] = the value whose key is x[i], else the default
// Args     x: T_KEY [n] · keys: T_KEY [n_keys] in ascending order, NaN last · values: T_UNIT [n_keys + 1], the default last · y: T_UNIT
//          [n] · n, n_keys: i64
// Params   T_KEY {float,double,i16,i32,i64 ..} · T_UNIT {u8,u16,u32,u64} of the value's size · THREADS {128,256}
// Requires nothing more
// Launch   grid = min(ceil(n/THREADS), some multiple of the processors; the kernel strides) · block = THREADS · smem = 0
// Numerics exact
// Notes    NaN is found as a key whatever its bits; -0 is 0
#if !defined(T_KEY) || !defined(T_UNIT) || !defined(THREADS)
#error "T_KEY, T_UNIT or THREADS is not defined"
#endif
#include "common/types.cuh"

typedef Compute<T_KEY>::type Key;

// Order of keys: as numbers, NaN behind all.
DEVICE bool before(Key a, Key b) { return a < b || (b != b && a == a); }

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_KEY* x, const T_KEY* keys, const T_UNIT* values, T_UNIT* y, const i64 n, const i64 n_keys)
{
    griddepcontrol_wait();
    for (i64 at = (i64)blockIdx.x * THREADS + threadIdx.x; at < n; at += (i64)gridDim.x * THREADS) {
        const Key key = to_compute(x[at]);
        i64 lo = 0, hi = n_keys;  // the first key that is not before x lies in [lo, hi]
        while (lo < hi) {
            const i64 mid = (lo + hi) / 2;
            if (before(to_compute(keys[mid]), key)) lo = mid + 1;
            else hi = mid;
        }
        const bool found = lo < n_keys && !before(key, to_compute(keys[lo]));
        y[at] = values[found ? lo : n_keys];
    }
}
