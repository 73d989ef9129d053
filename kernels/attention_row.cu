// attention_row.cu — attention, a block per query: y = softmax(cap(scale q k^T_X) + mask) v
// Args     q, k, v: T_X · mask: T_MASK or null · lengths: T_LENGTH [batch] or null · offsets: T_OFFSET [1 or batch] or null ·
//          sinks: T_X [heads] or null · y: T_X · scores: T_X [batch, heads, q_len, kv_len] or null · p: Attention (see
//          common/attention.cuh) · scale, cap, lowest: T_ACC · n_chunks: i64, pieces of V_COLS columns of v
// Params   T_X {float,f16,bf16,double} · T_ACC {float,double} · T_MASK {bool,float,T_X} · T_LENGTH, T_OFFSET {i32,i64} ·
//          WARPS {4,8} · V_COLS {32,64,128,256} · SCORES {0 none,1 raw,2 capped,3 masked,4 weights}
// Requires nothing more; any size of a head
// Launch   grid = batch * heads * q_len * n_chunks · block = 32 * WARPS · smem = 0
// Numerics scores, weights and sums in T_ACC; the warps' sums are joined in a fixed order
// Notes    eight lanes take the product with one key, so that a warp reads four keys at once in whole sectors; then the
//          lanes take columns of v. A query without keys gives zeros.
#if !defined(T_X) || !defined(T_ACC) || !defined(T_MASK) || !defined(T_LENGTH) || !defined(T_OFFSET)
#error "T_X, T_ACC, T_MASK, T_LENGTH or T_OFFSET is not defined"
#endif
#if !defined(WARPS) || !defined(V_COLS) || !defined(SCORES)
#error "WARPS, V_COLS or SCORES is not defined"
#endif
#include "common/attention.cuh"

#define KEYS 32          // of a warp's tile
#define LANES_PER_KEY 8  // so KEYS / 4 rounds a tile
#define COLS_PER_LANE (V_COLS / 32)

// The product of q with the key of each lane: lane l has key 4 * (l % 8) + l / 8 of the tile.
DEVICE T_ACC products(const T_X* q, const T_X* k, i64 first, i64 end, const Attention& p)
{
    const int lane = threadIdx.x % 32, part = lane % LANES_PER_KEY, sub = lane / LANES_PER_KEY;
    T_ACC mine = 0;
#pragma unroll
    for (int round = 0; round < KEYS / 4; round++) {
        const i64 key = first + round * 4 + sub;
        T_ACC sum = 0;
        if (key < end)
            for (i64 c = part; c < p.size; c += LANES_PER_KEY) sum += to_acc<T_ACC>(q[c]) * to_acc<T_ACC>(k[key * p.k_s + c]);
#pragma unroll
        for (int delta = LANES_PER_KEY / 2; delta > 0; delta >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, delta);
        if (part == round) mine = sum;
    }
    return mine;
}

extern "C" __global__ void __launch_bounds__(32 * WARPS)
KERNEL_NAME(const T_X* q, const T_X* k, const T_X* v, const T_MASK* mask, const T_LENGTH* lengths, const T_OFFSET* offsets,
            const T_X* sinks, T_X* y, T_X* scores, const Attention p, const T_ACC scale, const T_ACC cap, const T_ACC lowest,
            const i64 n_chunks)
{
    __shared__ T_ACC s_max[WARPS], s_sum[WARPS], s_y[WARPS][V_COLS];
    griddepcontrol_wait();
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const i64 chunk = blockIdx.x % n_chunks, unit = blockIdx.x / n_chunks;
    const i64 row = unit % p.q_len, h = unit / p.q_len % p.n_heads, b = unit / p.q_len / p.n_heads;
    q += p.q_at + b * p.q_b + h * p.q_h + row * p.q_s;
    k += p.k_at + b * p.k_b + h / p.group * p.k_h;
    v += p.v_at + b * p.v_b + h / p.group * p.v_h + chunk * V_COLS;
    if (mask) mask += b * p.mask_b + h * p.mask_h + row * p.mask_q;
    const Seen seen = seen_by(p, lengths, offsets, b, row);
    const i64 n_cols = p.v_size - chunk * V_COLS;
    const int my_key = 4 * (lane % LANES_PER_KEY) + lane / LANES_PER_KEY;

#if SCORES
    T_X* out = scores + unit * p.kv_len;
    if (chunk == 0 && SCORES != 4) {
        // All keys, also those that the query does not see.
        for (i64 first = warp * KEYS; first < p.kv_len; first += WARPS * KEYS) {
            T_ACC s = scale * products(q, k, first, p.kv_len, p);
            const i64 key = first + my_key;
            if (key >= p.kv_len) continue;
            if (SCORES >= 2) s = apply_cap(s, cap);
            if (SCORES == 3) {
                const bool is_seen = key >= seen.start && key < seen.end;
                s = is_seen ? masked_score(s, p, mask, key, seen.at, lowest) : minus_infinity<T_ACC>();
            }
            out[key] = from_acc<T_X>(s);
        }
    }
#endif

    T_ACC max = minus_infinity<T_ACC>(), sum = 0, acc[COLS_PER_LANE] = {};
    for (i64 first = seen.start + warp * KEYS; first < seen.end; first += WARPS * KEYS) {
        T_ACC s = apply_cap(scale * products(q, k, first, seen.end, p), cap);
        const i64 key = first + my_key;
        s = key < seen.end ? masked_score(s, p, mask, key, seen.at, lowest) : minus_infinity<T_ACC>();
        const T_ACC top = warp_combine(s, Max());
        const T_ACC new_max = top > max || top != top ? top : max;
        const T_ACC w = weight_of(s, new_max), keep = weight_of(max, new_max);
        sum = sum * keep + warp_combine(w, Sum());
#pragma unroll
        for (int c = 0; c < COLS_PER_LANE; c++) acc[c] *= keep;
        max = new_max;
        for (int j = 0; j < KEYS && first + j < seen.end; j++) {
            const T_ACC wj = __shfl_sync(0xffffffffu, w, (j % 4) * LANES_PER_KEY + j / 4);
            if (wj == (T_ACC)0) continue;  // whatever its value is, it does not take part
            const T_X* vj = v + (first + j) * p.v_s;
#pragma unroll
            for (int c = 0; c < COLS_PER_LANE; c++)
                if (c * 32 + lane < n_cols) acc[c] += wj * to_acc<T_ACC>(vj[c * 32 + lane]);
        }
    }
    if (lane == 0) s_max[warp] = max, s_sum[warp] = sum;
#pragma unroll
    for (int c = 0; c < COLS_PER_LANE; c++) s_y[warp][c * 32 + lane] = acc[c];
    __syncthreads();  // orders the warps' parts before they are joined

    T_ACC total_max = minus_infinity<T_ACC>(), total = 0;
    const bool has_sink = sinks || p.smooth;
    const T_ACC sink = sinks ? to_acc<T_ACC>(sinks[h]) : (T_ACC)0;
    if (has_sink) total_max = sink;
#pragma unroll
    for (int w = 0; w < WARPS; w++) total_max = s_max[w] > total_max || s_max[w] != s_max[w] ? s_max[w] : total_max;
    if (has_sink) total = weight_of(sink, total_max);
#pragma unroll
    for (int w = 0; w < WARPS; w++) total += s_sum[w] * weight_of(s_max[w], total_max);
    const T_ACC inverse = total == (T_ACC)0 ? (T_ACC)0 : (T_ACC)1 / total;
    for (i64 c = threadIdx.x; c < V_COLS && c < n_cols; c += 32 * WARPS) {
        T_ACC value = 0;
#pragma unroll
        for (int w = 0; w < WARPS; w++) value += s_y[w][c] * weight_of(s_max[w], total_max);
        y[b * p.y_b + h * p.y_h + row * p.y_s + chunk * V_COLS + c] = from_acc<T_X>(value * inverse);
    }
#if SCORES == 4
    if (chunk == 0) {
        for (i64 first = warp * KEYS; first < p.kv_len; first += WARPS * KEYS) {
            T_ACC s = apply_cap(scale * products(q, k, first, p.kv_len, p), cap);
            const i64 key = first + my_key;
            if (key >= p.kv_len) continue;
            const bool is_seen = key >= seen.start && key < seen.end;
            s = is_seen ? masked_score(s, p, mask, key, seen.at, lowest) : minus_infinity<T_ACC>();
            out[key] = from_acc<T_X>(weight_of(s, total_max) * inverse);
        }
    }
#endif
}
