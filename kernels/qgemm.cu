// qgemm.cu — batched product of 8-bit integers:  y[b,m,n] = finish(sum_k (a[b,m,k] - a_zero)(b[b,k,n] - b_zero) + bias)
// Args     a: T_A · b: T_B · a_zero: T_A · b_zero: T_B · bias: T_BIAS · a_scale, b_scale, y_scale: float · y_zero: T_ZERO (each of
//          these or null: 0, and 1 for scales) · y: T_OUT dense, the type that OUT gives · params: QGemmParams, a 64-bit struct ·
//          alpha: float. Every operand lies by strides over (batch[4], m, n), a and b over (batch[4], own rows, own columns)
// Params   T_A, T_B {u8,i8} · T_BIAS {i32,float} · T_ZERO {u8,i8} · OUT {OUT_I32 0, OUT_F32 1, OUT_QUANT 2} · TRANS_A, TRANS_B {0,1}:
//          k is not (is) the contiguous axis · A_SUMS, B_SUMS {0,1}: the sums of a (of b) along k are needed, because b (a) has
//          a zero point
// Requires nothing more; any size and alignment
// Launch   grid = (ceil(n/64), ceil(m/64), batches), the kernel strides over batches · block = 256 · smem = 0
// Numerics exact in i32, wraps; scales in f32, one rounding an operation; rounding half to even
// Notes    tiles of 64 x 64 x 32 bytes, one 4 x 4 tile a thread, dp4a on words of four bytes along k
#if !defined(T_A) || !defined(T_B) || !defined(T_BIAS) || !defined(T_ZERO) || !defined(OUT)
#error "T_A, T_B, T_BIAS, T_ZERO or OUT is not defined"
#endif
#if !defined(TRANS_A) || !defined(TRANS_B) || !defined(A_SUMS) || !defined(B_SUMS)
#error "TRANS_A, TRANS_B, A_SUMS or B_SUMS is not defined"
#endif
#include "common/requant.cuh"

#define THREADS 256
#define TILE 64
#define WORDS 8

constexpr bool A_SIGNED = T_A(-1) < T_A(0), B_SIGNED = T_B(-1) < T_B(0);

struct Spread
{
    i64 batch[4], row, col;

    DEVICE i64 base(const i64 (&at)[4]) const
    {
        return at[0] * batch[0] + at[1] * batch[1] + at[2] * batch[2] + at[3] * batch[3];
    }
};

struct QGemmParams
{
    i64 m, n, k, batch[4];
    Spread a, b, a_zero, b_zero, bias, a_scale, b_scale, y_scale, y_zero;
};

// The word of four bytes along k from `k` on, zeros past the end.
template <class T> DEVICE u32 load_word(const T* g, i64 k, i64 n_k, i64 stride, bool inside)
{
    u32 word = 0;
#pragma unroll
    for (int v = 0; v < 4; v++)
        if (inside && k + v < n_k) word |= (u32)(u8)g[(k + v) * stride] << (8 * v);
    return word;
}

template <class T> DEVICE i32 int_at(const T* p, const Spread& s, const i64 (&batch)[4], i64 m, i64 n)
{
    return p ? (i32)p[s.base(batch) + m * s.row + n * s.col] : 0;
}

DEVICE float float_at(const float* p, const Spread& s, const i64 (&batch)[4], i64 m, i64 n)
{
    return p ? p[s.base(batch) + m * s.row + n * s.col] : 1.0f;
}

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_A* a, const T_B* b, const T_A* a_zero, const T_B* b_zero, const T_BIAS* bias, const float* a_scale,
            const float* b_scale, const float* y_scale, const T_ZERO* y_zero, T_OUT* y, const QGemmParams params, const float alpha)
{
    griddepcontrol_wait();
    __shared__ u32 s_a[WORDS][TILE + 1];  // [word of k, m]
    __shared__ u32 s_b[WORDS][TILE + 1];  // [word of k, n]
    const i64 m0 = (i64)blockIdx.y * TILE, n0 = (i64)blockIdx.x * TILE;
    const i64 batches = params.batch[0] * params.batch[1] * params.batch[2] * params.batch[3];
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    for (i64 flat = blockIdx.z; flat < batches; flat += gridDim.z) {
        i64 at[4], rest = flat;
#pragma unroll
        for (int i = 3; i >= 0; i--) {
            at[i] = rest % params.batch[i];
            rest /= params.batch[i];
        }
        const T_A* g_a = a + params.a.base(at);
        const T_B* g_b = b + params.b.base(at);
        i32 acc[4][4] = {}, a_sum[4] = {}, b_sum[4] = {};
        for (i64 k0 = 0; k0 < params.k; k0 += 4 * WORDS) {
#pragma unroll
            for (int i = threadIdx.x; i < TILE * WORDS; i += THREADS) {
                const int ma = TRANS_A ? i % TILE : i / WORDS, ka = TRANS_A ? i / TILE : i % WORDS;
                const int nb = TRANS_B ? i / WORDS : i % TILE, kb = TRANS_B ? i % WORDS : i / TILE;
                s_a[ka][ma] = load_word(g_a + (m0 + ma) * params.a.row, k0 + 4 * ka, params.k, params.a.col, m0 + ma < params.m);
                s_b[kb][nb] = load_word(g_b + (n0 + nb) * params.b.col, k0 + 4 * kb, params.k, params.b.row, n0 + nb < params.n);
            }
            __syncthreads();  // orders the stores of this tile before its reads
#pragma unroll
            for (int kk = 0; kk < WORDS; kk++) {
                u32 r_a[4], r_b[4];
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    r_a[i] = s_a[kk][ty * 4 + i];
                    r_b[i] = s_b[kk][tx + 16 * i];
                }
#pragma unroll
                for (int i = 0; i < 4; i++) {
#if A_SUMS
                    a_sum[i] = dp4a<A_SIGNED, true>(r_a[i], 0x01010101u, a_sum[i]);
#endif
#if B_SUMS
                    b_sum[i] = dp4a<B_SIGNED, true>(r_b[i], 0x01010101u, b_sum[i]);
#endif
#pragma unroll
                    for (int j = 0; j < 4; j++) acc[i][j] = dp4a<A_SIGNED, B_SIGNED>(r_a[i], r_b[j], acc[i][j]);
                }
            }
            __syncthreads();  // orders the reads of this tile before the stores of the next
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const i64 m = m0 + ty * 4 + i;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const i64 n = n0 + tx + 16 * j;
                if (m >= params.m || n >= params.n) continue;
                const i32 az = int_at(a_zero, params.a_zero, at, m, n), bz = int_at(b_zero, params.b_zero, at, m, n);
                i32 sum = with_zeros(acc[i][j], (i32)params.k, az, bz, a_sum[i], b_sum[j]);
                float scale = 1.0f, float_bias = 0.0f;
                const T_BIAS add = bias ? bias[params.bias.base(at) + m * params.bias.row + n * params.bias.col] : T_BIAS(0);
                if (WHOLE_BIAS) sum = (i32)((u32)sum + (u32)(i32)add);
                else float_bias = (float)add;
#if OUT != OUT_I32
                scale = product_scale(alpha, float_at(a_scale, params.a_scale, at, m, n), float_at(b_scale, params.b_scale, at, m, n));
#endif
#if OUT == OUT_QUANT
                scale = __fdiv_rn(scale, float_at(y_scale, params.y_scale, at, m, n));
#endif
                y[(flat * params.m + m) * params.n + n] = finish(sum, scale, int_at(y_zero, params.y_zero, at, m, n), float_bias);
            }
        }
    }
}
