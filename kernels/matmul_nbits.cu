// matmul_nbits.cu — product with a weight of few bits:  y[m,n] = sum_k a[m,k] (b[n,k] - zero[n,k/BLOCK_SIZE]) scale[n,k/BLOCK_SIZE] + bias[n]
// Args     a: T_DATA [m,k] · b: u8 [n, blocks, BLOCK_SIZE*BITS/8], low bits first, blocks = ceil(k/BLOCK_SIZE) · scales: T_DATA [n, blocks] ·
//          zeros: u8 [n, ceil(blocks*BITS/8)] packed as b is, T_DATA [n, blocks], or null · bias: T_DATA [n] or null · y: T_DATA [m,n] · m, n, k: i64
// Params   T_DATA {float,f16,bf16} · BITS {2,4,8} · BLOCK_SIZE {16, 32, ..}: a power of two · ZEROS {ZEROS_DEFAULT 0: half of the range,
//          ZEROS_PACKED 1, ZEROS_FLOAT 2} · HAS_BIAS {0,1} · ROWS {1,2,4,8} of a at a time · THREADS {128,256}
// Requires BLOCK_SIZE * BITS a multiple of 8
// Launch   grid = (ceil(n/(THREADS/32)), min(ceil(m/ROWS), 65535), the kernel strides) · block = THREADS · smem = 0
// Numerics f32; each lane sums every 32nd byte in order, then a tree over lanes: deterministic; class rel(1e-5) f32, rel(2e-3) f16
// Notes    one warp a column: the weights are read once for ROWS rows
#define ZEROS_DEFAULT 0
#define ZEROS_PACKED 1
#define ZEROS_FLOAT 2
#if !defined(T_DATA) || !defined(BITS) || !defined(BLOCK_SIZE) || !defined(ZEROS) || !defined(HAS_BIAS)
#error "T_DATA, BITS, BLOCK_SIZE, ZEROS or HAS_BIAS is not defined"
#endif
#if !defined(ROWS) || !defined(THREADS)
#error "ROWS or THREADS is not defined"
#endif
#include "common/types.cuh"

#define PER_BYTE (8 / BITS)
#define BLOB (BLOCK_SIZE / PER_BYTE)
#define MASK ((1 << BITS) - 1)

static_assert(BITS == 2 || BITS == 4 || BITS == 8, "a byte holds whole elements");
static_assert(BLOCK_SIZE % PER_BYTE == 0, "a block is whole bytes");

#if ZEROS == ZEROS_FLOAT
typedef T_DATA T_ZERO;
#else
typedef u8 T_ZERO;
#endif

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_DATA* a, const u8* b, const T_DATA* scales, const T_ZERO* zeros, const T_DATA* bias, T_DATA* y, const i64 m, const i64 n, const i64 k)
{
    griddepcontrol_wait();
    const int lane = threadIdx.x % 32;
    const i64 column = (i64)blockIdx.x * (THREADS / 32) + threadIdx.x / 32;
    if (column >= n) return;  // whole warps
    const i64 n_blocks = (k + BLOCK_SIZE - 1) / BLOCK_SIZE, n_bytes = (k + PER_BYTE - 1) / PER_BYTE;
    const u8* g_b = b + column * n_blocks * BLOB;
    for (i64 m0 = (i64)blockIdx.y * ROWS; m0 < m; m0 += (i64)gridDim.y * ROWS) {
        float acc[ROWS] = {};
        for (i64 at = lane; at < n_bytes; at += 32) {
            const i64 block = at / BLOB;
            const u32 byte = g_b[at];
            const float scale = to_float(scales[column * n_blocks + block]);
#if ZEROS == ZEROS_PACKED
            const i64 zero_bytes = (n_blocks * BITS + 7) / 8;
            const float zero = (float)((zeros[column * zero_bytes + block / PER_BYTE] >> (block % PER_BYTE * BITS)) & MASK);
#elif ZEROS == ZEROS_FLOAT
            const float zero = to_float(zeros[column * n_blocks + block]);
#else
            const float zero = (float)(1 << (BITS - 1));
#endif
#pragma unroll
            for (int v = 0; v < PER_BYTE; v++) {
                const i64 kk = at * PER_BYTE + v;
                if (kk >= k) continue;
                const float w = ((float)((byte >> (v * BITS)) & MASK) - zero) * scale;
#pragma unroll
                for (int r = 0; r < ROWS; r++)
                    if (m0 + r < m) acc[r] += to_float(a[(m0 + r) * k + kk]) * w;
            }
        }
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
#pragma unroll
            for (int step = 16; step > 0; step /= 2) acc[r] += __shfl_xor_sync(0xffffffffu, acc[r], step);
            if (lane == 0 && m0 + r < m) {
                float sum = acc[r];
#if HAS_BIAS
                sum += to_float(bias[column]);
#endif
                y[(m0 + r) * n + column] = from_float<T_DATA>(sum);
            }
        }
    }
}
