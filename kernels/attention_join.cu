// attention_join.cu — the parts that blocks of attention_mma_sm80.cu made of pieces of the keys, joined
// Args     parts: float, per row of a unit and split V_SIZE sums, maximum and sum of weights, in powers of two · sinks: T_X
//          [heads] or null · y: T_X · p: Attention (see common/attention.cuh) · share: i32, heads whose queries are rows of one
//          unit · n_splits: i32
// Params   T_X {f16,bf16} · V_SIZE: elements of a head of v, rounded up to 16 · WARPS: rows of a block
// Requires nothing more
// Launch   grid = ceil(batch * heads * q_len / WARPS) · block = 32 * WARPS · smem = 0
// Numerics sums in f32, splits in order
#if !defined(T_X) || !defined(V_SIZE) || !defined(WARPS)
#error "T_X, V_SIZE or WARPS is not defined"
#endif
#include "common/attention.cuh"

extern "C" __global__ void __launch_bounds__(32 * WARPS)
KERNEL_NAME(const float* parts, const T_X* sinks, T_X* y, const Attention p, const int share, const int n_splits, const i64 n_rows)
{
    griddepcontrol_wait();
    const i64 index = (i64)blockIdx.x * WARPS + threadIdx.x / 32, per_unit = p.q_len * share;
    if (index >= n_rows) return;
    const int lane = threadIdx.x % 32;
    const i64 unit = index / per_unit, row = index % per_unit, units = p.n_heads / share;
    const i64 b = unit / units, h = unit % units * share + row % share;
    parts += index * n_splits * (V_SIZE + 2);
    const bool has_sink = sinks || p.smooth;
    const float sink = sinks ? to_acc<float>(sinks[h]) * 1.4426950408889634f : 0.0f;
    float top = has_sink ? sink : -INFINITY_F32;
    for (int s = 0; s < n_splits; s++) top = fmaxf(top, parts[s * (V_SIZE + 2) + V_SIZE]);
    const float zero = top == -INFINITY_F32 ? 0 : top;
    float total = has_sink ? ex2_approx_ftz_f32(sink - zero) : 0.0f, value[(V_SIZE + 31) / 32] = {};
    for (int s = 0; s < n_splits; s++) {
        const float* part = parts + s * (V_SIZE + 2);
        const float keep = ex2_approx_ftz_f32(part[V_SIZE] - zero);
        total += part[V_SIZE + 1] * keep;
#pragma unroll
        for (int c = 0; c < V_SIZE; c += 32)
            if (c + lane < (int)p.v_size && keep != 0) value[c / 32] += part[c + lane] * keep;
    }
    const float inverse = total == 0 ? 0 : 1.0f / total;
    T_X* to = y + b * p.y_b + h * p.y_h + row / share * p.y_s;
#pragma unroll
    for (int c = 0; c < V_SIZE; c += 32)
        if (c + lane < (int)p.v_size) to[c + lane] = from_acc<T_X>(value[c / 32] * inverse);
}
