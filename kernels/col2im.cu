// col2im.cu — columns of sliding blocks added back into images:  y[p,i] = sum over (k,s) with s*stride + k*dil - pad = i of x[p,k,s]
// Args     x: T_IN [planes, block.., steps..] · y: T_IN [planes, image..] · params: Col2ImParams, a 64-bit struct of 37: planes,
//          image[6] block[6] steps[6] stride[6] pad[6] dil[6], the first RANK of each used
// Params   T_IN any type but bool · RANK {1..6} · THREADS {128,256}
// Requires every stride from 1; offsets are 64-bit
// Launch   grid = min(ceil(planes*image/THREADS), 2^31-1), the kernel strides · block = THREADS · smem = 0
// Numerics sums in float (double for double), integers wrap, block in order: deterministic
// Notes    one thread gathers one element
#if !defined(T_IN) || !defined(RANK) || !defined(THREADS)
#error "T_IN, RANK or THREADS is not defined"
#endif
#include "common/types.cuh"

typedef Acc<T_IN>::type ACC;

struct Col2ImParams
{
    i64 planes, image[6], block[6], steps[6], stride[6], pad[6], dil[6];
};

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_IN* x, T_IN* y, const Col2ImParams params)
{
    griddepcontrol_wait();
    i64 pixels = 1, taps = 1, steps = 1;
#pragma unroll
    for (int d = 0; d < RANK; d++) {
        pixels *= params.image[d];
        taps *= params.block[d];
        steps *= params.steps[d];
    }
    const i64 total = params.planes * pixels;
    for (i64 flat = (i64)blockIdx.x * THREADS + threadIdx.x; flat < total; flat += (i64)gridDim.x * THREADS) {
        const i64 plane = flat / pixels;
        i64 at[RANK], rest = flat - plane * pixels;
#pragma unroll
        for (int d = RANK - 1; d >= 0; d--) {
            at[d] = rest % params.image[d] + params.pad[d];
            rest /= params.image[d];
        }
        const T_IN* g_x = x + plane * taps * steps;
        ACC sum = 0;
        for (i64 tap = 0; tap < taps; tap++, g_x += steps) {
            i64 k = tap, place = 0, stride = 1;
            bool inside = true;
#pragma unroll
            for (int d = RANK - 1; d >= 0; d--) {
                const i64 from = at[d] - k % params.block[d] * params.dil[d], step = from / params.stride[d];
                k /= params.block[d];
                inside = inside && from >= 0 && from == step * params.stride[d] && step < params.steps[d];
                place += step * stride;
                stride *= params.steps[d];
            }
            if (inside) sum += to_acc<ACC>(g_x[place]);
        }
        y[flat] = from_acc<T_IN>(sum);
    }
}
