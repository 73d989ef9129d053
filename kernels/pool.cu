// pool.cu — pooling over windows, one to three spatial dimensions:  y[n,c,o] = max | mean | (sum |x|^p)^(1/p) over a window of x
// Args     x: T_IN [planes, in..] · y: T_IN [planes, out..] · index: i64 [planes, out..] or null, flat position of the maximum in
//          x · params: PoolParams, a 64-bit struct of 23: planes (= n*c), in[3] out[3] window[3] stride[3] pad[3] (before)
//          pad_end[3] dil[3], count_include_pad (leading dimensions of size 1 where fewer are used) · p: float (LP)
// Params   T_IN {float,f16,bf16,double; MAX also the integers} · OP {POOL_MAX 0, POOL_AVERAGE 1, POOL_LP 2} · HAS_INDEX {0,1}
//          (MAX) · COLUMN_MAJOR {0,1}: index counts each plane column-major (storage_order 1) · THREADS {128,256}
// Requires pixels of one plane below 2^31
// Launch   grid = min(ceil(planes*out/THREADS), 2^31-1), the kernel strides · block = THREADS · smem = 0
// Numerics f32 sums (double for double), window in order: deterministic. MAX exact, NaN propagates, the first of equals;
//          a window in the padding alone gives the lowest value and index -1
// Notes    AVERAGE divides by the elements inside x; with count_include_pad by those inside x and its padding, so that the part
//          of a window that ceil mode lets hang over the padding never counts
#define POOL_MAX 0
#define POOL_AVERAGE 1
#define POOL_LP 2
#if !defined(T_IN) || !defined(OP) || !defined(HAS_INDEX) || !defined(COLUMN_MAJOR) || !defined(THREADS)
#error "T_IN, OP, HAS_INDEX, COLUMN_MAJOR or THREADS is not defined"
#endif
#include "common/math.cuh"

#if OP == POOL_MAX
typedef Compute<T_IN>::type ACC;
#else
typedef Acc<T_IN>::type ACC;
#endif

// The maximum of nothing: what a window gives that lies in the padding alone.
DEVICE void set_lowest(float& x) { x = -INFINITY_F32; }
DEVICE void set_lowest(double& x) { x = -INFINITY_F32; }
template <class T> DEVICE void set_lowest(T& x) { x = T(-1) < T(0) ? (T)(1ull << (8 * sizeof(T) - 1)) : T(0); }

struct PoolParams
{
    i64 planes, in[3], out[3], window[3], stride[3], pad[3], pad_end[3], dil[3], count_include_pad;
};

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_IN* x, T_IN* y, i64* index, const PoolParams params, const float p)
{
    griddepcontrol_wait();
    const i32 o0 = (i32)params.out[0], o1 = (i32)params.out[1], o2 = (i32)params.out[2];
    const i32 n0 = (i32)params.in[0], n1 = (i32)params.in[1], n2 = (i32)params.in[2];
    const i32 w0 = (i32)params.window[0], w1 = (i32)params.window[1], w2 = (i32)params.window[2];
    const i32 pixels = o0 * o1 * o2;
    const i64 plane_size = (i64)n0 * n1 * n2, total = params.planes * pixels;
    for (i64 flat = (i64)blockIdx.x * THREADS + threadIdx.x; flat < total; flat += (i64)gridDim.x * THREADS) {
        const i64 plane = flat / pixels;
        const i32 pixel = (i32)(flat - plane * pixels);
        const i32 s2 = (i32)(pixel % o2 * params.stride[2] - params.pad[2]);
        const i32 s1 = (i32)(pixel / o2 % o1 * params.stride[1] - params.pad[1]);
        const i32 s0 = (i32)(pixel / o2 / o1 * params.stride[0] - params.pad[0]);
        const T_IN* g_x = x + plane * plane_size;
        ACC acc = 0;
        i32 seen = 0, counted = 0;
        [[maybe_unused]] i64 best = 0;
        for (i32 a = 0; a < w0; a++) {
            const i32 d = s0 + a * (i32)params.dil[0];
            for (i32 b = 0; b < w1; b++) {
                const i32 h = s1 + b * (i32)params.dil[1];
                for (i32 c = 0; c < w2; c++) {
                    const i32 w = s2 + c * (i32)params.dil[2];
                    counted += d < n0 + params.pad_end[0] && h < n1 + params.pad_end[1] && w < n2 + params.pad_end[2];
                    if ((u32)d >= (u32)n0 || (u32)h >= (u32)n1 || (u32)w >= (u32)n2) continue;
                    const i32 at = (d * n1 + h) * n2 + w;
#if OP == POOL_MAX
                    const ACC v = to_compute(g_x[at]);
                    if (seen == 0 || v > acc || (v != v && acc == acc)) {
                        acc = v;
                        best = COLUMN_MAJOR ? ((i64)w * n1 + h) * n0 + d : at;
                    }
#else
                    const ACC v = to_acc<ACC>(g_x[at]);
                    acc += OP == POOL_AVERAGE ? v : p == 1.0f ? op::abs(v) : p == 2.0f ? v * v : op::pow(op::abs(v), p);
#endif
                    seen++;
                }
            }
        }
#if OP == POOL_AVERAGE
        const i32 divisor = params.count_include_pad ? counted : seen;
        acc = divisor ? acc / ACC(divisor) : ACC(0);
#elif OP == POOL_MAX
        if (seen == 0) {
            set_lowest(acc);
            best = -1 - plane * plane_size;
        }
#elif OP == POOL_LP
        acc = p == 1.0f ? acc : p == 2.0f ? op::sqrt(acc) : op::pow(acc, ACC(1) / ACC(p));
#endif
        y[flat] = from_compute<T_IN>(acc);
#if HAS_INDEX
        index[flat] = plane * plane_size + best;
#endif
    }
}
