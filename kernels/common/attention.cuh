// attention.cuh — sizes, strides and score arithmetic that the attention kernels share.
//
// T_X {float, f16, bf16, double}: q, k, v, y · T_ACC {float, double}: scores and sums · T_MASK {bool, float, T_X} · T_LENGTH,
// T_OFFSET {i32, i64}. A null pointer is an absent operand.
#pragma once
#include "common/math.cuh"
#include "common/reduce.cuh"

#define CAUSAL_NO 0
#define CAUSAL_EXCLUDE 1
#define CAUSAL_LOWEST 2

// By value; the host writes the same layout. Strides count elements.
struct Attention
{
    i64 n_heads, group, q_len, kv_len, size, v_size;
    i64 q_at, k_at, v_at;  // first elements
    i64 q_b, q_h, q_s, k_b, k_h, k_s, v_b, v_h, v_s, y_b, y_h, y_s;
    i64 mask_b, mask_h, mask_q, mask_k, mask_keys;
    i64 causal, window, per_batch_offset, smooth;
};

template <class A> DEVICE A minus_infinity() { return (A)-INFINITY_F32; }

DEVICE i64 clamp(i64 x, i64 low, i64 high) { return x < low ? low : x > high ? high : x; }

// The keys [start, end) that a query may see, and its position among them.
struct Seen
{
    i64 start, end, at;
};

template <class L, class O> DEVICE Seen seen_by(const Attention& p, const L* lengths, const O* offsets, i64 b, i64 row)
{
    Seen s;
    s.at = row + (offsets ? (i64)offsets[p.per_batch_offset ? b : 0] : 0);
    s.end = lengths ? clamp((i64)lengths[b], 0, p.kv_len) : p.kv_len;
    if (p.causal == CAUSAL_EXCLUDE) s.end = clamp(s.at + 1, 0, s.end);
    s.start = p.window > 0 ? clamp(s.at - (p.window - 1), 0, s.end) : 0;
    return s;
}

template <class A> DEVICE A apply_mask(A s, bool takes_part) { return takes_part ? s : minus_infinity<A>(); }
template <class A, class M> DEVICE A apply_mask(A s, M added) { return s + to_acc<A>(added); }

template <class A> DEVICE A apply_cap(A s, A cap) { return cap > (A)0 ? cap * op::tanh(s / cap) : s; }

// The score of a key that the query may see, from the capped product. `mask` is at the query's row.
template <class A, class M> DEVICE A masked_score(A s, const Attention& p, const M* mask, i64 key, i64 at, A lowest)
{
    if (p.causal == CAUSAL_LOWEST && key > at) return s + lowest;
    if (!mask) return s;
    if (key >= p.mask_keys) return minus_infinity<A>();
    return apply_mask(s, mask[key * p.mask_k]);
}

// exp(s - max), 0 for a key that takes no part.
template <class A> DEVICE A weight_of(A s, A max) { return s == minus_infinity<A>() ? (A)0 : op::exp(s - max); }
