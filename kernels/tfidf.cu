// tfidf.cu — occurrences of n-grams in sequences, one thread for each sequence and n-gram
// Args     x: T_DATA [batch, length] · pool: i64, the n-grams · grams: i64 [n_grams, 3], begin, length and column of each · weights:
//          float [n_grams] · y: float [batch, columns], zeros · length, n_grams, columns, max_skip: i64 · n: i64 = batch*n_grams
// Params   T_DATA {i32,i64} · MODE {0 count, 1 weight where it occurs, 2 count times weight} · THREADS
// Requires begin, length and column in range
// Launch   grid = min(ceil(n/THREADS), some multiple of the processors; the kernel strides) · block = THREADS · smem = 0
// Numerics exact, one product in f32
#if !defined(T_DATA) || !defined(MODE) || !defined(THREADS)
#error "T_DATA, MODE or THREADS is not defined"
#endif
#include "common/types.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_DATA* x, const i64* pool, const i64* grams, const float* weights, float* y, const i64 length, const i64 n_grams, const i64 columns, const i64 max_skip, const i64 n)
{
    griddepcontrol_wait();
    for (i64 at = (i64)blockIdx.x * THREADS + threadIdx.x; at < n; at += (i64)gridDim.x * THREADS) {
        const i64 batch = at / n_grams, g = at - batch * n_grams;
        const i64 size = grams[3 * g + 1];
        const i64* gram = pool + grams[3 * g];
        const T_DATA* row = x + batch * length;
        const i64 steps = size == 1 ? 1 : max_skip + 1;
        i64 count = 0;
        for (i64 step = 1; step <= steps && (size - 1) * step < length; step++)
            for (i64 start = 0; start + (size - 1) * step < length; start++) {
                bool all = true;
                for (i64 k = 0; k < size && all; k++) all = (i64)row[start + k * step] == gram[k];
                count += all;
            }
        y[batch * columns + grams[3 * g + 2]] = MODE == 0 ? (float)count : MODE == 1 ? (count ? weights[g] : 0.0f) : (float)count * weights[g];
    }
}
