// rotary.cu — rotary embedding:  (re, im) -> (cos re - sin im, sin re + cos im)  for pairs of elements of each head
// Args     x, y: T_X [batch, heads, length, size] or [batch, length, heads, size] · cos, sin: T_X [rows, dim/2] ·
//          positions: T_POSITION or null · p: Rotary, by value
// Params   T_X {float,f16,bf16,double} · T_POSITION {i32,i64} · INTERLEAVED {0: pairs are dim/2 apart, 1: neighbours} ·
//          THREADS {128,256}
// Requires nothing more
// Launch   grid = min(ceil(n/THREADS), some multiple of the processors; the kernel strides) · block = THREADS · smem = 0
// Numerics f32 (double for double), rounded once
// Notes    a position that is out of range is clamped to the nearest row; elements from dim on are copied
#if !defined(T_X) || !defined(T_POSITION) || !defined(INTERLEAVED) || !defined(THREADS)
#error "T_X, T_POSITION, INTERLEAVED or THREADS is not defined"
#endif
#include "common/types.cuh"

struct Rotary
{
    i64 n, length, heads, size, dim, rows;
    i64 angles;  // 0: a row a place, 1: a row a position, 2: positions count up from one
    i64 packed;  // 1: [batch, length, heads, size]
};

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_X* x, const T_X* cos, const T_X* sin, const T_POSITION* positions, T_X* y, const Rotary p)
{
    griddepcontrol_wait();
    typedef typename Acc<T_X>::type A;
    const i64 half = p.dim / 2;
    for (i64 i = (i64)blockIdx.x * THREADS + threadIdx.x; i < p.n; i += (i64)gridDim.x * THREADS) {
        const i64 c = i % p.size, base = i - c;
        if (c >= p.dim || p.rows == 0) {
            y[i] = x[i];
            continue;
        }
        i64 rest = i / p.size, b, s;
        if (p.packed) {
            rest /= p.heads;
            s = rest % p.length, b = rest / p.length;
        } else {
            s = rest % p.length, b = rest / p.length / p.heads;
        }
        i64 row = b * p.length + s;
        if (p.angles == 1) row = (i64)positions[row];
        if (p.angles == 2) row = (i64)positions[0] + s;
        row = row < 0 ? 0 : row >= p.rows ? p.rows - 1 : row;
        const i64 pair = INTERLEAVED ? c / 2 : c % half;
        const bool is_im = INTERLEAVED ? c & 1 : c >= half;
        const A re = to_acc<A>(x[base + (INTERLEAVED ? 2 * pair : pair)]);
        const A im = to_acc<A>(x[base + (INTERLEAVED ? 2 * pair + 1 : pair + half)]);
        const A cs = to_acc<A>(cos[row * half + pair]), sn = to_acc<A>(sin[row * half + pair]);
        y[i] = from_acc<T_X>(is_im ? sn * re + cs * im : cs * re - sn * im);
    }
}
