// attention_tile.cu — attention, a block per tile of queries of one head: y = softmax(cap(scale q k^T_X) + mask) v
// Args     q, k, v: T_X · mask: T_MASK or null · lengths: T_LENGTH [batch] or null · offsets: T_OFFSET [1 or batch] or null ·
//          sinks: T_X [heads] or null · y: T_X · p: Attention (see common/attention.cuh) · scale, cap, lowest: T_ACC ·
//          n_tiles: i64, tiles of WARPS * ROWS queries · n_chunks: i64, pieces of V_COLS columns of v
// Params   T_X {float,f16,bf16,double} · T_ACC {float,double} · T_MASK {bool,float,T_X} · T_LENGTH, T_OFFSET {i32,i64} ·
//          WARPS {4} · ROWS {4,8}: queries of a warp · V_COLS {32,64,128}
// Requires nothing more; any size of a head
// Launch   grid = batch * heads * n_tiles * n_chunks · block = 32 * WARPS · smem = 0
// Numerics scores, weights and sums in T_ACC, keys in order
// Notes    a lane takes one key of a tile of 32 for all of its warp's queries, in steps of STEP elements of a head that
//          the block stages; then the lanes take columns of v. A query without keys gives zeros.
#if !defined(T_X) || !defined(T_ACC) || !defined(T_MASK) || !defined(T_LENGTH) || !defined(T_OFFSET)
#error "T_X, T_ACC, T_MASK, T_LENGTH or T_OFFSET is not defined"
#endif
#if !defined(WARPS) || !defined(V_COLS) || !defined(ROWS)
#error "WARPS, V_COLS or ROWS is not defined"
#endif
#include "common/attention.cuh"

#define KEYS 32  // of a tile: one a lane
#define STEP 32  // elements of a head that are staged
#define PITCH (STEP + 16 / (int)sizeof(T_ACC))  // lanes read 16 bytes at rows of this pitch without conflicts
#define COLS_PER_LANE (V_COLS / 32)
#define TILE (WARPS * ROWS)
#define THREADS (32 * WARPS)
#define VEC (16 / (int)sizeof(T_ACC))

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const T_X* q, const T_X* k, const T_X* v, const T_MASK* mask, const T_LENGTH* lengths, const T_OFFSET* offsets,
            const T_X* sinks, T_X* y, const Attention p, const T_ACC scale, const T_ACC cap, const T_ACC lowest,
            const i64 n_tiles, const i64 n_chunks)
{
    __shared__ __align__(16) T_ACC s_q[TILE][STEP], s_k[KEYS][PITCH], s_w[TILE][KEYS];
    griddepcontrol_wait();
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const i64 chunk = blockIdx.x % n_chunks, tile = blockIdx.x / n_chunks % n_tiles, unit = blockIdx.x / n_chunks / n_tiles;
    const i64 h = unit % p.n_heads, b = unit / p.n_heads;
    const i64 first_row = tile * TILE, my_row = first_row + warp * ROWS;
    q += p.q_at + b * p.q_b + h * p.q_h;
    k += p.k_at + b * p.k_b + h / p.group * p.k_h;
    v += p.v_at + b * p.v_b + h / p.group * p.v_h + chunk * V_COLS;
    if (mask) mask += b * p.mask_b + h * p.mask_h;
    const i64 n_cols = p.v_size - chunk * V_COLS;

    // The keys that any query of the block sees: bounds grow with the row.
    const i64 last_row = first_row + TILE < p.q_len ? first_row + TILE - 1 : p.q_len - 1;
    const i64 start = seen_by(p, lengths, offsets, b, first_row).start, end = seen_by(p, lengths, offsets, b, last_row).end;

    T_ACC max[ROWS], sum[ROWS], acc[ROWS][COLS_PER_LANE];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        max[r] = minus_infinity<T_ACC>(), sum[r] = 0;
#pragma unroll
        for (int c = 0; c < COLS_PER_LANE; c++) acc[r][c] = 0;
    }
    for (i64 first = start; first < end; first += KEYS) {
        T_ACC s[ROWS] = {};
        for (i64 at = 0; at < p.size; at += STEP) {
            __syncthreads();  // orders the reads of the last step before it is overwritten
            for (int i = threadIdx.x; i < TILE * STEP; i += THREADS) {
                const i64 row = first_row + i / STEP, c = at + i % STEP;
                s_q[i / STEP][i % STEP] = row < p.q_len && c < p.size ? to_acc<T_ACC>(q[row * p.q_s + c]) : (T_ACC)0;
            }
            for (int i = threadIdx.x; i < KEYS * STEP; i += THREADS) {
                const i64 key = first + i / STEP, c = at + i % STEP;
                s_k[i / STEP][i % STEP] = key < end && c < p.size ? to_acc<T_ACC>(k[key * p.k_s + c]) : (T_ACC)0;
            }
            __syncthreads();  // orders the staged elements before they are read
#pragma unroll
            for (int c = 0; c < STEP; c += VEC) {
                T_ACC kc[VEC];
                load_vec<VEC>(kc, &s_k[lane][c]);
#pragma unroll
                for (int r = 0; r < ROWS; r++) {
                    T_ACC qc[VEC];
                    load_vec<VEC>(qc, &s_q[warp * ROWS + r][c]);
#pragma unroll
                    for (int i = 0; i < VEC; i++) s[r] += qc[i] * kc[i];
                }
            }
        }
        const i64 key = first + lane;
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            const i64 row = my_row + r;
            const Seen seen = seen_by(p, lengths, offsets, b, row);
            const bool is_seen = row < p.q_len && key >= seen.start && key < seen.end;
            const T_ACC capped = apply_cap(scale * s[r], cap);
            const T_ACC score =
                is_seen ? masked_score(capped, p, mask ? mask + row * p.mask_q : mask, key, seen.at, lowest) : minus_infinity<T_ACC>();
            const T_ACC top = warp_combine(score, Max());
            const T_ACC new_max = top > max[r] || top != top ? top : max[r];
            const T_ACC w = weight_of(score, new_max), keep = weight_of(max[r], new_max);
            sum[r] = sum[r] * keep + warp_combine(w, Sum());
            max[r] = new_max;
            s_w[warp * ROWS + r][lane] = w;
#pragma unroll
            for (int c = 0; c < COLS_PER_LANE; c++) acc[r][c] *= keep;
        }
        __syncwarp();  // orders the warp's weights before its lanes read them
        const int n = (int)(end - first < KEYS ? end - first : KEYS);
        for (int j = 0; j < n; j++) {
            T_ACC vj[COLS_PER_LANE];
#pragma unroll
            for (int c = 0; c < COLS_PER_LANE; c++)
                vj[c] = c * 32 + lane < n_cols ? to_acc<T_ACC>(v[(first + j) * p.v_s + c * 32 + lane]) : (T_ACC)0;
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                const T_ACC w = s_w[warp * ROWS + r][j];
                if (w == (T_ACC)0) continue;  // whatever its value is, it does not take part
#pragma unroll
                for (int c = 0; c < COLS_PER_LANE; c++) acc[r][c] += w * vj[c];
            }
        }
        __syncwarp();  // orders these reads before the weights are overwritten
    }
    const bool has_sink = sinks || p.smooth;
    const T_ACC sink = sinks ? to_acc<T_ACC>(sinks[h]) : (T_ACC)0;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const i64 row = my_row + r;
        if (row >= p.q_len) break;
        const T_ACC top = has_sink && sink > max[r] ? sink : max[r];
        const T_ACC keep = weight_of(max[r], top);
        const T_ACC total = sum[r] * keep + (has_sink ? weight_of(sink, top) : (T_ACC)0);
        const T_ACC factor = total == (T_ACC)0 ? (T_ACC)0 : keep / total;
        T_X* to = y + b * p.y_b + h * p.y_h + row * p.y_s + chunk * V_COLS;
#pragma unroll
        for (int c = 0; c < COLS_PER_LANE; c++)
            if (c * 32 + lane < n_cols) to[c * 32 + lane] = from_acc<T_X>(acc[r][c] * factor);
    }
}
