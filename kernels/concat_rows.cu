// concat_rows.cu — a concatenation in one launch:  y[r, at_k + i] = x_k[r, i]
// Args     x0..x7: T_UNIT [rows, cols_k], null beyond the last input · y: T_UNIT [rows, pitch] · rows, pitch: i64 (in T_UNIT) ·
//          parts: Parts, 64-bit struct of 16: cols_k, then at_k, in T_UNIT
// Params   T_UNIT {u8,u16,u32,u64,uint4}: what one thread moves (host takes the widest that divides every cols_k and all
//          addresses) · THREADS {128,256}
// Requires nothing more
// Launch   grid = (min(ceil(rows*largest cols_k/THREADS), some multiple of the processors; the kernel strides), inputs) ·
//          block = THREADS · smem = 0
// Numerics exact
#if !defined(T_UNIT) || !defined(THREADS)
#error "T_UNIT or THREADS is not defined"
#endif
#include "common/types.cuh"

struct Parts
{
    i64 cols[8], at[8];
};

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_UNIT* x0, const T_UNIT* x1, const T_UNIT* x2, const T_UNIT* x3, const T_UNIT* x4, const T_UNIT* x5,
            const T_UNIT* x6, const T_UNIT* x7, T_UNIT* y, const i64 rows, const i64 pitch, const Parts parts)
{
    griddepcontrol_wait();
    const T_UNIT* x = x0;
    i64 cols = parts.cols[0], first = parts.at[0];
#define PART(k) if (blockIdx.y == k) x = x##k, cols = parts.cols[k], first = parts.at[k];
    PART(1) PART(2) PART(3) PART(4) PART(5) PART(6) PART(7)
    const i64 total = rows * cols;
    for (i64 at = (i64)blockIdx.x * THREADS + threadIdx.x; at < total; at += (i64)gridDim.x * THREADS) {
        // 32-bit division is several times cheaper.
        const i64 r = total >> 31 ? at / cols : (i64)((u32)at / (u32)cols), i = at - r * cols;
        y[r * pitch + first + i] = x[at];
    }
}
