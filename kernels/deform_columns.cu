// deform_columns.cu — what the taps of a deformable convolution see:  y[n,c,t,o] = mask * x[n,c] interpolated at o*stride - pad + t*dil + offset
// Args     x: T_IN [n,c,in..] · offset: T_IN [n,groups,taps,RANK,out..] · mask: T_IN [n,groups,taps,out..] or null · y: T_IN
//          [n,c,taps,out..] · params: DeformParams, a 64-bit struct of 21: n, c, groups, in[3] out[3] window[3] stride[3] pad[3]
//          dil[3] (leading dimensions of size 1 where fewer are used)
// Params   T_IN {float,f16,bf16,double} · RANK {1,2,3} · HAS_MASK {0,1} · THREADS {128,256}
// Requires groups divides c; in[] and out[] products below 2^31
// Launch   grid = min(ceil(n*c*taps*out/THREADS), 2^31-1), the kernel strides · block = THREADS · smem = 0
// Numerics float (double for double), class rel(1e-5) f32
// Notes    elements outside of x are zero; a position that is no number lies far outside
#if !defined(T_IN) || !defined(RANK) || !defined(HAS_MASK) || !defined(THREADS)
#error "T_IN, RANK, HAS_MASK or THREADS is not defined"
#endif
#include "common/math.cuh"
#include "common/rounded.cuh"

typedef Compute<T_IN>::type REAL;
#define FAR REAL(1 << 30)

struct DeformParams
{
    i64 n, c, groups, in[3], out[3], window[3], stride[3], pad[3], dil[3];
};

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_IN* x, const T_IN* offset, const T_IN* mask, T_IN* y, const DeformParams params)
{
    griddepcontrol_wait();
    const i64 points = params.out[0] * params.out[1] * params.out[2], plane = params.in[0] * params.in[1] * params.in[2];
    const i64 taps = params.window[0] * params.window[1] * params.window[2], total = params.n * params.c * taps * points;
    const i64 per_group = params.c / params.groups;
    for (i64 flat = (i64)blockIdx.x * THREADS + threadIdx.x; flat < total; flat += (i64)gridDim.x * THREADS) {
        const i64 row = flat / points, tap = row % taps, channel = row / taps % params.c, image = row / taps / params.c;
        const i32 point = (i32)(flat - row * points);
        const i64 source = (image * params.groups + channel / per_group) * taps + tap;
        const T_IN* g_x = x + (image * params.c + channel) * plane;
        i32 low[RANK];
        REAL weight[RANK];
        i64 tap_rest = tap;
        i32 point_rest = point;
#pragma unroll
        for (int i = RANK - 1; i >= 0; i--) {
            const int d = i + 3 - RANK;
            const i64 k = tap_rest % params.window[d], o = point_rest % (i32)params.out[d];
            tap_rest /= params.window[d];
            point_rest /= (i32)params.out[d];
            const REAL shift = to_compute(offset[(source * RANK + i) * points + point]);
            const REAL at = within(add_rn(REAL(o * params.stride[d] + k * params.dil[d] - params.pad[d]), shift), -FAR, FAR);
            const REAL floor_at = op::floor(at);
            low[i] = (i32)floor_at;
            weight[i] = at - floor_at;
        }
        REAL sum = 0;
#pragma unroll
        for (int corner = 0; corner < 1 << RANK; corner++) {
            REAL w = 1;
            i64 place = 0;
            bool inside = true;
#pragma unroll
            for (int i = 0; i < RANK; i++) {
                const int d = i + 3 - RANK;
                const bool high = corner >> (RANK - 1 - i) & 1;
                const i32 at = low[i] + (high ? 1 : 0);
                inside = inside && (u32)at < (u32)params.in[d];
                place = place * params.in[d] + at;
                w *= high ? weight[i] : REAL(1) - weight[i];
            }
            if (inside) sum += w * to_compute(g_x[place]);
        }
#if HAS_MASK
        sum *= to_compute(mask[source * points + point]);
#endif
        y[flat] = from_compute<T_IN>(sum);
    }
}
