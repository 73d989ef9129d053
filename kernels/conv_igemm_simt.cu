// conv_igemm_simt.cu — convolution as a product, on scalar units:  y[n,k,p,q] = epilogue(sum_crs w[k,c,r,s] x[n,c,ih,iw] + bias[k])
// Args     x: T_IN [n,c,h,w] · w: T_IN [k,c/groups,r,s] · bias: T_BIAS [k] or null · y: T_OUT [n,k,p,q] · params: ConvParams
//          (common/conv.cuh) · e0..e3, epi: common/epilogue.cuh, coordinates (n, k, pixel, 0, 0)
// Params   T_IN {float,f16,bf16,double} · T_OUT · T_BIAS · BLOCK_M {16..128} channels, BLOCK_N {32..128} pixels, BLOCK_K
//          {4,8,16,32} · THREAD_M, THREAD_N {1,2,4,8} · SUM_PART {0 = one sum, or the length of its parts} · FILTER_H, FILTER_W {0 = run time, or the filter} · HAS_BIAS, EPILOGUE
// Requires static_asserts below
// Launch   grid = (ceil(n*p*q/BLOCK_N), ceil(k_group/BLOCK_M), groups*splits) · block = (BLOCK_M/THREAD_M)*(BLOCK_N/THREAD_N) · smem = 0
//          splits > 1: compile with T_OUT = T_ACC (float, or double), HAS_BIAS 0, EPILOGUE 0, give y splits*n*out_image
//          elements, and run split_finish.cu on it
// Numerics FMA in float (double for double), c, r, s in order, parts of SUM_PART added up: deterministic; class rel(1e-5) f32, rel(2e-3) f16
// Notes    pixels run along the threads, so reads of x and writes of y coalesce in NCHW
#if !defined(T_IN) || !defined(T_OUT)
#error "T_IN or T_OUT is not defined"
#endif
#if !defined(BLOCK_M) || !defined(BLOCK_N) || !defined(BLOCK_K) || !defined(THREAD_M) || !defined(THREAD_N)
#error "BLOCK_M, BLOCK_N, BLOCK_K, THREAD_M or THREAD_N is not defined"
#endif
#if !defined(HAS_BIAS) || !defined(SUM_PART)
#error "HAS_BIAS or SUM_PART is not defined"
#endif
#if HAS_BIAS && !defined(T_BIAS)
#error "T_BIAS is not defined"
#endif
#if !HAS_BIAS
#undef T_BIAS
#define T_BIAS T_IN
#endif
#include "common/types.cuh"
typedef Acc<T_IN>::type ACC;
#include "common/conv.cuh"
#include "common/epilogue.cuh"

#define THREADS ((BLOCK_M / THREAD_M) * (BLOCK_N / THREAD_N))
#define PAD (16 / (int)sizeof(ACC))  // keeps rows 16-byte aligned, and spreads transposed stores over the banks
#define A_ITEMS (BLOCK_M * BLOCK_K / THREADS)
#define B_ITEMS (BLOCK_N * BLOCK_K / THREADS)

static_assert(BLOCK_M % THREAD_M == 0 && BLOCK_N % THREAD_N == 0, "thread tiles divide the block tile");
static_assert(THREADS % 32 == 0 && THREADS <= 1024, "a block is whole warps, at most 32");
static_assert(BLOCK_M * BLOCK_K % THREADS == 0 && BLOCK_N * BLOCK_K % THREADS == 0, "each thread loads the same number");
static_assert(THREADS % BLOCK_N == 0, "a thread keeps its pixel over all rows that it loads");
static_assert(SUM_PART % BLOCK_K == 0, "parts are whole steps");
static_assert(2 * BLOCK_K * (BLOCK_M + BLOCK_N + 2 * PAD) * sizeof(ACC) <= 48 * 1024, "tiles fit static shared memory");

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_IN* x, const T_IN* w, const T_BIAS* bias, T_OUT* y, const ConvParams params, const void* e0,
            const void* e1, const void* e2, const void* e3, const EpilogueStrides epi)
{
    griddepcontrol_wait();
    __shared__ __attribute__((aligned(16))) ACC s_w[2][BLOCK_K][BLOCK_M + PAD];  // [stage, crs, channel]
    __shared__ __attribute__((aligned(16))) ACC s_x[2][BLOCK_K][BLOCK_N + PAD];  // [stage, crs, pixel]
    __shared__ __attribute__((aligned(16))) Tap s_taps[2][BLOCK_K];  // [tile parity, crs]
    ACC acc[THREAD_M][THREAD_N], total[THREAD_M][THREAD_N];  // of the current part, of those before
    // Ends a part: rounding grows with the length of a sum.
    auto end_part = [&](bool first) {
#pragma unroll
        for (int i = 0; i < THREAD_M; i++)
#pragma unroll
            for (int j = 0; j < THREAD_N; j++) {
                total[i][j] = first ? ACC(0) : total[i][j] + acc[i][j];
                acc[i][j] = 0;
            }
    };
    end_part(true);

    const Split split = Split::of_block<BLOCK_K>(params);
    const i32 n_pixels = params.n * params.pq, group = split.group;
    const i32 n0 = blockIdx.x * BLOCK_N, m0 = blockIdx.y * BLOCK_M;
    const i32 load_n = threadIdx.x % BLOCK_N, load_row = threadIdx.x / BLOCK_N;
    const Gather gather = Gather::of(n0 + load_n, n_pixels, params);
    const T_IN* g_x = x + (i64)gather.at.image * params.in_image + (i64)group * params.c_group * params.h * params.w;
    const T_IN* g_w = w + ((i64)group * params.k_group + m0) * params.crs;

    T_IN r_w[A_ITEMS], r_x[B_ITEMS];
    auto load = [&](i32 k0) {
#pragma unroll
        for (int i = 0; i < A_ITEMS; i++) {
            const int item = threadIdx.x + i * THREADS, m = item / BLOCK_K, kk = k0 + item % BLOCK_K;
            r_w[i] = m0 + m < params.k_group && kk < params.crs ? g_w[(i64)m * params.crs + kk] : T_IN{};
        }
        // Both tables were filled before the last barrier.
        const Tap* taps = s_taps[k0 / BLOCK_K % 2];
        if (has_tap_bits(params)) {
#pragma unroll
            for (int i = 0; i < B_ITEMS; i++) r_x[i] = gather.read(g_x, taps[load_row + i * (THREADS / BLOCK_N)]);
        } else {
#pragma unroll
            for (int i = 0; i < B_ITEMS; i++) r_x[i] = gather.read_compared(g_x, k0 + load_row + i * (THREADS / BLOCK_N), params);
        }
    };

    const int tx = threadIdx.x % (BLOCK_N / THREAD_N), ty = threadIdx.x / (BLOCK_N / THREAD_N);
    auto fill_taps = [&](i32 k0) {
        for (int i = threadIdx.x; i < BLOCK_K; i += THREADS) s_taps[k0 / BLOCK_K % 2][i] = Tap::of(k0 + i, params);
    };
    fill_taps(split.k_begin);
    fill_taps(split.k_begin + BLOCK_K);
    __syncthreads();  // orders the tables before the first loads
    load(split.k_begin);
    for (i32 k0 = split.k_begin, stage = 0; k0 < split.k_end; k0 += BLOCK_K, stage ^= 1) {
#pragma unroll
        for (int i = 0; i < A_ITEMS; i++) {
            const int item = threadIdx.x + i * THREADS;
            s_w[stage][item % BLOCK_K][item / BLOCK_K] = to_acc<ACC>(r_w[i]);
        }
#pragma unroll
        for (int i = 0; i < B_ITEMS; i++) s_x[stage][load_row + i * (THREADS / BLOCK_N)][load_n] = to_acc<ACC>(r_x[i]);
        __syncthreads();  // orders this stage's stores before its reads, and the other stage's reads before its next stores
        if (k0 + BLOCK_K < split.k_end) load(k0 + BLOCK_K);
        fill_taps(k0 + 2 * BLOCK_K);  // over the table of this tile, which was read before the barrier
#pragma unroll
        for (int kk = 0; kk < BLOCK_K; kk++) {
            ACC a[THREAD_M], b[THREAD_N];
#pragma unroll
            for (int i = 0; i < THREAD_M; i++) a[i] = s_w[stage][kk][ty * THREAD_M + i];
#pragma unroll
            for (int j = 0; j < THREAD_N; j++) b[j] = s_x[stage][kk][tx * THREAD_N + j];
#pragma unroll
            for (int i = 0; i < THREAD_M; i++)
#pragma unroll
                for (int j = 0; j < THREAD_N; j++) acc[i][j] += a[i] * b[j];
        }
        if (SUM_PART && (k0 - split.k_begin + BLOCK_K) % SUM_PART == 0) end_part(false);
    }
    if (SUM_PART) end_part(false);

    const Epilogue epilogue_of{{e0, e1, e2, e3}, epi};
    y += (i64)split.index * params.n * params.out_image;
#pragma unroll
    for (int j = 0; j < THREAD_N; j++) {
        const i32 flat = n0 + tx * THREAD_N + j;
        if (flat >= n_pixels) continue;
        const i32 image = (i32)divide(flat, params.by_pq), pixel = flat - image * params.pq;
#pragma unroll
        for (int i = 0; i < THREAD_M; i++) {
            const i32 m = m0 + ty * THREAD_M + i, channel = group * params.k_group + m;
            if (m >= params.k_group) continue;
            ACC v = SUM_PART ? total[i][j] : acc[i][j];
#if HAS_BIAS
            v += to_acc<ACC>(bias[channel]);
#endif
            v = epilogue_of.apply(v, image, channel, pixel, 0, 0);
            y[(i64)image * params.out_image + (i64)channel * params.pq + pixel] = from_acc<T_OUT>(v);
        }
    }
}
