// attention_half.cuh — what a query sees of the keys, for attention on tensor cores: bounds and added numbers.
//
// Scores are in powers of two here: what is added was multiplied by log2 e.
#pragma once
#include "common/attention.cuh"

DEVICE u32 two_halves(Tag<f16>, float low, float high) { return cvt_rn_f16x2_f32(low, high); }
DEVICE u32 two_halves(Tag<bf16>, float low, float high) { return cvt_rn_bf16x2_f32(low, high); }

// The least number that is added: a lower finite one would become -infinity in powers of two, and a query all of whose keys
// have it still weighs them evenly.
#define LEAST_ADDED -3.0e38f

DEVICE float added_of(bool takes_part) { return takes_part ? 0.0f : -INFINITY_F32; }
template <class M> DEVICE float added_of(M x)
{
    const float a = to_acc<float>(x), scaled = a * 1.4426950408889634f;
    return scaled < LEAST_ADDED && a != -INFINITY_F32 ? LEAST_ADDED : scaled;
}

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

    // What is added to the scores of keys `key` (even) and the next one; anything outside of the bounds.
    DEVICE void added(const Attention& p, int key, bool counts_late, float (&r)[2]) const
    {
        r[0] = r[1] = 0;
        if (mask) {
            if (in_pairs && key + 1 < n_masked && ((key * (int)sizeof(M)) & (2 * (int)sizeof(M) - 1)) == 0) {
                M two[2];
                load_vec<2>(two, mask + key);
                r[0] = added_of(two[0]), r[1] = added_of(two[1]);
            } else {
                if (key < n_masked) r[0] = added_of(mask[key * p.mask_k]);
                if (key + 1 < n_masked) r[1] = added_of(mask[(key + 1) * p.mask_k]);
            }
        }
        if (counts_late) {
            if (key > at) r[0] = LEAST_ADDED;
            if (key + 1 > at) r[1] = LEAST_ADDED;
        }
    }
};
