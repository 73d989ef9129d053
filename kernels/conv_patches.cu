// conv_patches.cu — windows that neither overlap nor leave gaps, each as one row:  y[n,p,q,c,r,s] = x[n,c,p*R+r,q*S+s]
// Args     x: T_IN [n,c,h,w] · y: T_IN [n,p,q,c,r,s] · params: PatchParams
// Params   T_IN, any type of 2 or 4 bytes · VEC {1,2,4,8} elements of an access · THREADS
// Requires s, w multiples of VEC, addresses of VEC elements · pieces below 2^31 (host checks)
// Launch   grid = ceil(pieces/THREADS), the kernel strides · block = THREADS · smem = 0
// Notes    threads go along x: its rows are read whole, and pieces of s elements are written
#if !defined(T_IN) || !defined(VEC) || !defined(THREADS)
#error "T_IN, VEC or THREADS is not defined"
#endif
#include "common/types.cuh"

struct Magic
{
    u32 magic, shift;
};

DEVICE u32 divide(u32 n, const Magic& d) { return (__umulhi(n, d.magic) + n) >> d.shift; }

// across = q*s/VEC pieces of a row of x, across_patch = s/VEC, pieces = n*c*p*r*across
struct PatchParams
{
    i32 pieces, c, h, w, p, q, r, s, across, across_patch;
    Magic by_across, by_across_patch, by_r, by_p, by_c;
};

extern "C" __global__ void __launch_bounds__(THREADS) KERNEL_NAME(const T_IN* x, T_IN* y, const PatchParams params)
{
    griddepcontrol_wait();
    for (i32 i = blockIdx.x * THREADS + threadIdx.x; i < params.pieces; i += gridDim.x * THREADS) {
        const i32 row = (i32)divide(i, params.by_across), piece = i - row * params.across;
        const i32 plane_p = (i32)divide(row, params.by_r), r = row - plane_p * params.r;
        const i32 plane = (i32)divide(plane_p, params.by_p), p = plane_p - plane * params.p;
        const i32 image = (i32)divide(plane, params.by_c), c = plane - image * params.c;
        const i32 q = (i32)divide(piece, params.by_across_patch), s = piece - q * params.across_patch;
        T_IN v[VEC];
        load_vec(v, x + ((i64)plane * params.h + p * params.r + r) * params.w + piece * VEC);
        const i64 patch = ((i64)image * params.p + p) * params.q + q;
        store_vec(y + ((patch * params.c + c) * params.r + r) * params.s + s * VEC, v);
    }
}
