// split_finish.cu — adds the parts of a product or convolution whose k was split:  y = epilogue(sum_s part[s] + bias)
// Args     part: T_PART [splits, total] · bias: T_BIAS or null · y: T_OUT [total], dense · shape: Shape of y (common/index.cuh)
//          with five sizes, the coordinates of the epilogue: (b0,b1,b2,m,n) of a product, (n,k,pixel,1,1) of a convolution ·
//          splits: i32 · e0..e3, epi: common/epilogue.cuh
// Params   T_PART {float,double} · T_OUT · T_BIAS · HAS_BIAS {0,1} · BIAS_DIM {0..4} coordinate that indexes the bias (product 4,
//          or 3 by rows; convolution 1) · EPILOGUE {0,1} · THREADS {128,256} · INDEX64 {0,1}
// Requires the parts come from kernels compiled with T_OUT = T_PART, HAS_BIAS 0, EPILOGUE 0
// Launch   grid = min(ceil(total/THREADS), some multiple of the processors; the kernel strides) · block = THREADS · smem = 0
// Numerics parts are added in order: deterministic
// Notes    a part is written once and read once: worth it where the tiles of the output are far fewer than the processors
#if !defined(T_PART) || !defined(T_OUT) || !defined(HAS_BIAS) || !defined(THREADS)
#error "T_PART, T_OUT, HAS_BIAS or THREADS is not defined"
#endif
#if HAS_BIAS && (!defined(T_BIAS) || !defined(BIAS_DIM))
#error "T_BIAS or BIAS_DIM is not defined"
#endif
#if !HAS_BIAS
#undef T_BIAS
#define T_BIAS T_PART
#endif
#include "common/types.cuh"
typedef T_PART ACC;
#include "common/epilogue.cuh"
#include "common/index.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_PART* part, const T_BIAS* bias, T_OUT* y, const Shape shape, const i32 splits, const void* e0,
            const void* e1, const void* e2, const void* e3, const EpilogueStrides epi)
{
    griddepcontrol_wait();
    const i64 total = (i64)shape.size[0] * shape.size[1] * shape.size[2] * shape.size[3] * shape.size[4];
    const Epilogue epilogue_of{{e0, e1, e2, e3}, epi};
    for (i64 at = (i64)blockIdx.x * THREADS + threadIdx.x; at < total; at += (i64)gridDim.x * THREADS) {
        ACC x = 0;
#pragma unroll 8
        for (i32 s = 0; s < splits; s++) x += part[s * total + at];
        i32 c[5];
        unravel<5>(c, (Index)at, shape);
#if HAS_BIAS
        x += to_acc<ACC>(bias[c[BIAS_DIM]]);
#endif
        y[at] = from_acc<T_OUT>(epilogue_of.apply(x, c[0], c[1], c[2], c[3], c[4]));
    }
}
