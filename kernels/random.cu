// random.cu — random numbers from a counter-based generator (Philox 4x32, 10 rounds)
// Args     y: T_OUT [n] · n: i64 · low, span: double, the uniform's range or the normal's mean and deviation · key: i64
// Params   T_OUT {float,double,f16,bf16} · NORMAL {0: uniform, 1: normal} · FRESH {1: every launch draws other numbers} · THREADS
// Requires nothing more
// Launch   grid = min(ceil(n/THREADS), some multiple of the processors; the kernel strides) · block = THREADS · smem = 0
// Numerics computed in f64 from 24 random bits (53 for double), rounded once
// Notes    FRESH mixes the device's clock into the key: each thread's own reading, since numbers differ by their index anyway
#if !defined(T_OUT) || !defined(NORMAL) || !defined(FRESH) || !defined(THREADS)
#error "T_OUT, NORMAL, FRESH or THREADS is not defined"
#endif
#include "common/types.cuh"

struct Words { u32 w[4]; };

DEVICE Words philox(u64 counter, u64 key)
{
    Words c{{(u32)counter, (u32)(counter >> 32), 0, 0}};
    u32 k0 = (u32)key, k1 = (u32)(key >> 32);
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const u64 a = (u64)0xD2511F53u * c.w[0], b = (u64)0xCD9E8D57u * c.w[2];
        c = Words{{(u32)(b >> 32) ^ c.w[1] ^ k0, (u32)b, (u32)(a >> 32) ^ c.w[3] ^ k1, (u32)a}};
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return c;
}

template <class T> struct Unit { DEVICE static double of(u32 a, u32) { return (double)(a >> 8) * 0x1p-24; } };
template <> struct Unit<double> { DEVICE static double of(u32 a, u32 b) { return (double)(((u64)a << 32 | b) >> 11) * 0x1p-53; } };

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(T_OUT* y, const i64 n, const double low, const double span, const i64 key)
{
    griddepcontrol_wait();
    u64 k = (u64)key;
#if FRESH
    u64 now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    k ^= now * 0x9E3779B97F4A7C15ull ^ (u64)clock64();
#endif
    for (i64 at = (i64)blockIdx.x * THREADS + threadIdx.x; at < n; at += (i64)gridDim.x * THREADS) {
        const Words r = philox((u64)at, k);
        const double u = Unit<T_OUT>::of(r.w[0], r.w[1]);
#if NORMAL
        const double v = Unit<T_OUT>::of(r.w[2], r.w[3]);
        const double x = ::sqrt(-2.0 * ::log(1.0 - u)) * ::cos(6.283185307179586476925 * v);
#else
        const double x = u;
#endif
        y[at] = from_compute<T_OUT>(low + span * x);
    }
}
