// attention_half.cuh — what a query sees of the keys, for attention on tensor cores: bounds and added numbers.
//
// Scores are in powers of two here: what is added was multiplied by log2 e.
#pragma once
#include "common/attention.cuh"

DEVICE u32 two_halves(Tag<f16>, float low, float high) { return cvt_rn_f16x2_f32(low, high); }
DEVICE u32 two_halves(Tag<bf16>, float low, float high) { return cvt_rn_bf16x2_f32(low, high); }

// The least number that is added. The product with log2 e is rounded toward zero: a finite number stays finite, so a query all
// of whose keys have the least one still weighs them evenly.
#define LEAST_ADDED -3.402823466e38f

DEVICE float added_of(bool takes_part) { return takes_part ? 0.0f : -INFINITY_F32; }
template <class M> DEVICE float added_of(M x) { return __fmul_rz(to_acc<float>(x), 1.4426950408889634f); }

// One query of a head: the keys [start, end), its position, its row of the mask.
template <class M> struct RowKeys
{
    int start, end, at, n_masked;
    const M* mask;
    bool in_pairs;

    template <class L, class O>
    DEVICE void set(const Attention& p, const L* lengths, const O* offsets, const M* all_masks, i64 b, i64 h, i64 row)
    {
        const Seen seen = seen_by(p, lengths, offsets, b, row);
        start = (int)seen.start, end = (int)seen.end;
        at = (int)clamp(seen.at, -1, 0x7fffffff);
        mask = all_masks ? all_masks + b * p.mask_b + h * p.mask_h + row * p.mask_q : nullptr;
        // Keys behind the mask's end are excluded.
        if (mask && p.causal != CAUSAL_LOWEST && p.mask_keys < end) end = (int)p.mask_keys;
        if (start > end) start = end;
        n_masked = end < (int)p.mask_keys ? end : (int)p.mask_keys;
        in_pairs = p.mask_k == 1 && ((u64)mask & (2 * sizeof(M) - 1)) == 0;
    }

    // What is added to the scores of keys `key` and the next one; anything outside of the bounds.
    DEVICE void added(const Attention& p, int key, bool counts_late, float (&r)[2]) const
    {
        r[0] = r[1] = 0;
        if (mask) {
            if (key < n_masked) r[0] = added_of(mask[key * p.mask_k]);
            if (key + 1 < n_masked) r[1] = added_of(mask[(key + 1) * p.mask_k]);
        }
        if (counts_late) {
            if (key > at) r[0] = LEAST_ADDED;
            if (key + 1 > at) r[1] = LEAST_ADDED;
        }
    }

    // Keys [first, first + n) can be read two at a time without a look at bounds.
    DEVICE bool is_whole(int first, int n) const { return in_pairs && first + n <= n_masked && first % 2 == 0; }
    DEVICE void pair(int key, float (&r)[2]) const
    {
        M two[2];
        load_vec<2>(two, mask + key);
        r[0] = added_of(two[0]), r[1] = added_of(two[1]);
    }
};

// From products to weights, for the two rows that a lane has of a 16-row tile: score e of columns 8 * j .. is row e / 2,
// column 2 * (lane % 4) + e % 2. `at(j, e)` is the product and becomes the weight. Keys from `first` on; `factor` is what
// brings max to powers of two: scale * log2 e where the scores stay unscaled until the exponent (neither mask nor cap).
template <int N, bool MASKED, bool CAPPED, class M, class At>
DEVICE void weigh(At at, const RowKeys<M> (&rows)[2], const Attention& p, int first, float scale, float cap, float (&max)[2],
                  float (&sum)[2], float (&keep)[2])
{
    constexpr float LOG2E = 1.4426950408889634f;
    const float scale2 = scale * LOG2E, factor = MASKED || CAPPED ? 1.0f : scale2;
    const int lane = threadIdx.x % 32, my_key = first + lane % 4 * 2;
    if (CAPPED) {
#pragma unroll
        for (int j = 0; j < N; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                float& x = at(j, e);
                x = cap * op::tanh(x * scale / cap) * LOG2E;
            }
    }
    if (MASKED) {
        const float by = CAPPED ? 1.0f : scale2;
        const bool counts_late = p.causal == CAUSAL_LOWEST, is_whole = !counts_late && rows[0].is_whole(first, 8 * N) && rows[1].is_whole(first, 8 * N);
        if (__all_sync(~0u, is_whole && rows[0].mask == rows[1].mask)) {
            // One row of the mask for both queries.
#pragma unroll
            for (int j = 0; j < N; j++) {
                float added[2];
                rows[0].pair(my_key + j * 8, added);
#pragma unroll
                for (int e = 0; e < 4; e++) at(j, e) = fmaf(at(j, e), by, added[e % 2]);
            }
        } else if (__all_sync(~0u, is_whole)) {
#pragma unroll
            for (int j = 0; j < N; j++)
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    float added[2];
                    rows[r].pair(my_key + j * 8, added);
#pragma unroll
                    for (int e = 0; e < 2; e++) at(j, 2 * r + e) = fmaf(at(j, 2 * r + e), by, added[e]);
                }
        } else {
#pragma unroll
            for (int j = 0; j < N; j++)
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    float added[2];
                    rows[r].added(p, my_key + j * 8, counts_late, added);
#pragma unroll
                    for (int e = 0; e < 2; e++) at(j, 2 * r + e) = fmaf(at(j, 2 * r + e), by, added[e]);
                }
        }
    }
    const bool is_edge = first < rows[0].start || first + 8 * N > rows[0].end || first < rows[1].start || first + 8 * N > rows[1].end;
    if (__any_sync(~0u, is_edge)) {
#pragma unroll
        for (int r = 0; r < 2; r++)
#pragma unroll
            for (int j = 0; j < N; j++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    const int key = my_key + j * 8 + e;
                    if (key < rows[r].start || key >= rows[r].end) at(j, 2 * r + e) = -INFINITY_F32;
                }
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float top = max[r];
#pragma unroll
        for (int j = 0; j < N; j++) top = fmaxf(top, fmaxf(at(j, 2 * r), at(j, 2 * r + 1)));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
        const float zero = top == -INFINITY_F32 ? 0 : top * factor;  // a row without keys yet has weights of 0
        keep[r] = ex2_approx_ftz_f32(max[r] * factor - zero);
        max[r] = top;
        float part[2] = {0, 0};  // two chains
#pragma unroll
        for (int j = 0; j < N; j++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                float& x = at(j, 2 * r + e);
                x = ex2_approx_ftz_f32(MASKED || CAPPED ? x - zero : fmaf(x, factor, -zero));
                part[e] += x;
            }
        sum[r] = sum[r] * keep[r] + (part[0] + part[1]);
    }
}
