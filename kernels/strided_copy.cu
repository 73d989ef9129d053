// strided_copy.cu — transposes, slices, broadcasts, flips:  y[c0, .., cr] = x[base + sum_d c_d * stride_d]
// Args     x: T_UNIT · y: T_UNIT, dense in shape · shape: Shape of y, strides: Strides of x (common/index.cuh; negative and 0
//          allowed) · base: i64 elements added to x
// Params   T_UNIT {u8,u16,u32,u64,uint4} · MODE {FLAT 0: a thread per element, TRANSPOSE 1: 32x32 tiles of the last two
//          dimensions through shared memory} · RANK {1..8} · THREADS {128,256} · INDEX64 {0,1}
// Requires TRANSPOSE: RANK >= 2, THREADS 256, best where stride[RANK-2] is 1; product of the outer sizes < 65536*65535
// Launch   FLAT: grid = min(ceil(n/THREADS), some multiple of the processors; the kernel strides) · TRANSPOSE: grid =
//          (ceil(size[RANK-1]/32), ceil(size[RANK-2]/32) (at most 65535: host takes FLAT beyond), min(outer, 65535); strides
//          over outer) · block = THREADS · smem = 0
// Numerics exact
// Notes    merge dimensions on the host first: fewer dimensions are fewer multiplications
#define MODE_FLAT 0
#define MODE_TRANSPOSE 1
#if !defined(T_UNIT) || !defined(MODE) || !defined(RANK) || !defined(THREADS)
#error "T_UNIT, MODE, RANK or THREADS is not defined"
#endif
#include "common/index.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_UNIT* x, T_UNIT* y, const Shape shape, const Strides strides, const i64 base)
{
    griddepcontrol_wait();
    const T_UNIT* g_x = x + base;
#if MODE == MODE_FLAT
    i64 n = 1;
#pragma unroll
    for (int d = 0; d < RANK; d++) n *= shape.size[d];
    for (i64 at = (i64)blockIdx.x * THREADS + threadIdx.x; at < n; at += (i64)gridDim.x * THREADS) {
        i32 coord[RANK];
        unravel<RANK>(coord, (Index)at, shape);
        y[at] = g_x[offset_of<RANK>(coord, strides.s)];
    }
#else
    static_assert(THREADS == 256 && RANK >= 2, "a tile is moved by 8 rows of 32 threads");
    __shared__ T_UNIT s_tile[32][33];  // [column of y, row of y], padded against bank conflicts
    const int lane = threadIdx.x % 32, row = threadIdx.x / 32;
    const i64 rows = shape.size[RANK - 2], cols = shape.size[RANK - 1];
    const i64 row0 = (i64)blockIdx.y * 32, col0 = (i64)blockIdx.x * 32;
    i64 outer = 1;
#pragma unroll
    for (int d = 0; d < RANK - 2; d++) outer *= shape.size[d];
    for (i64 o = blockIdx.z; o < outer; o += gridDim.z) {
        i64 rest = o, offset = 0;
#pragma unroll
        for (int d = RANK - 3; d >= 0; d--) {
            offset += rest % shape.size[d] * strides.s[d];
            rest /= shape.size[d];
        }
        // Threads of a warp run along the rows of y, which are neighbours in x.
#pragma unroll
        for (int i = 0; i < 32; i += 8) {
            const i64 r = row0 + lane, c = col0 + row + i;
            if (r < rows && c < cols) s_tile[row + i][lane] = g_x[offset + r * strides.s[RANK - 2] + c * strides.s[RANK - 1]];
        }
        __syncthreads();  // orders the tile's stores before its reads
#pragma unroll
        for (int i = 0; i < 32; i += 8) {
            const i64 r = row0 + row + i, c = col0 + lane;
            if (r < rows && c < cols) y[(o * rows + r) * cols + c] = s_tile[lane][row + i];
        }
        __syncthreads();  // orders the reads before the next tile's stores
    }
#endif
}
